"""A network that does not quite take or give what attacks need, with what it lacks put around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from deepcustom.base.errors import InputError
from deepcustom.training.nets.base import Classifier
from deepcustom.training.nets.foreign import Foreign
from deepcustom.training.nets.outputs import Place, as_rows, tensor_at

FORMATS = ("float16", "bfloat16", "float32", "float64")
DEVICES = ("cpu",)
"""What a remedy that is kept in a file may say; there is not a GPU everywhere."""

Seen = dict[str, Tensor]


@dataclass(frozen=True)
class Remedy:
    """What a network needs around it; each part changes nothing about what the network computes.

    Attributes:
        classes: number of logits.
        take: where in its output the logits are.
        recast: whether its logits are of another number format, or have further axes of length 1.
        dtype: the number format that images are cast to; None: float32, as they are.
        device: where images are moved to; None: they lie where the network lies.
        copy: whether it writes into its images, and gets a copy.
        most: the most images that it takes at a time; None: any number.
        exact: whether it takes ``most`` images and no fewer, so that a batch is filled up.
        blind: whether it fails where a gradient is asked for, and is called without.
        empty: whether it refuses a batch of no images, and is spared it.
    """

    classes: int
    take: Place = ()
    recast: bool = False
    dtype: str | None = None
    device: str | None = None
    copy: bool = False
    most: int | None = None
    exact: bool = False
    blind: bool = False
    empty: bool = False

    @property
    def needed(self) -> bool:
        """Whether it changes anything."""
        return self != Remedy(self.classes)

    @property
    def only_sizes(self) -> bool:
        """Whether all it does is to split batches, and to spare the network those of no images."""
        return not self.exact and replace(self, most=None, empty=False) == Remedy(self.classes)

    def as_json(self) -> dict[str, Any]:
        """What JSON can hold, for :meth:`from_json`."""
        return {**asdict(self), "take": list(self.take)}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Remedy:
        """Read what :meth:`as_json` wrote.

        Raises:
            InputError: it holds something else, or a number format or a device that none may need.
        """
        try:
            found = cls(**{**kept, "take": tuple(kept["take"])})
        except (TypeError, KeyError) as error:
            raise InputError(f"a network's remedy has unknown or missing keys: {error}") from error
        for name, allowed in (("dtype", FORMATS), ("device", DEVICES)):
            value = getattr(found, name)
            if value is not None and value not in allowed:
                raise InputError(
                    f"a network's remedy: {name} must be {' or '.join(allowed)}, found {value!r}"
                )
        return found


class Healed(Classifier):
    """A network with a :class:`Remedy`: images (N, C, H, W) in [0, 1] to logits (N, classes), float32.

    Attributes:
        net: the network itself.
        remedy: what it needs.
    """

    def __init__(self, net: nn.Module, remedy: Remedy) -> None:
        super().__init__()
        self.net, self.remedy = net, remedy
        self._dtype = getattr(torch, remedy.dtype) if remedy.dtype else None
        if isinstance(net, Foreign):  # it normalises in float32, and casts then
            net.cast = self._dtype or net.format

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes), float32."""
        return self._run(lambda part: ({}, self.net(part)), x)[1]

    def preactivations(self, x: Tensor) -> tuple[Seen, Tensor]:
        """See :meth:`Classifier.preactivations`.

        Raises:
            InputError: the network does not tell them.
        """
        if not isinstance(self.net, Classifier):
            raise InputError(f"{type(self.net).__name__} does not tell its pre-activations")
        if self.remedy.empty and not len(x):  # a black image tells the shapes
            seen, logits = self._run(self.net.preactivations, x.new_zeros(1, *x.shape[1:]))
            return {name: values[:0] for name, values in seen.items()}, logits[:0]
        return self._run(self.net.preactivations, x)

    def _run(self, call: Callable[[Tensor], tuple[Seen, Any]], x: Tensor) -> tuple[Seen, Tensor]:
        if self.remedy.empty and not len(x):
            return {}, x.new_zeros(0, self.remedy.classes)
        parts = [self._part(call, part) for part in torch.split(x, self.remedy.most or len(x) or 1)]
        if len(parts) == 1:
            return parts[0]
        seen = {name: torch.cat([part[name] for part, _ in parts]) for name in parts[0][0]}
        return seen, torch.cat([logits for _, logits in parts])

    def _part(self, call: Callable[[Tensor], tuple[Seen, Any]], x: Tensor) -> tuple[Seen, Tensor]:
        with torch.no_grad() if self.remedy.blind else nullcontext():
            given = self._given(x.detach() if self.remedy.blind else x)
            seen, out = call(given)
        seen = {name: _plain(values)[: len(x)].to(x.device) for name, values in seen.items()}
        found = tensor_at(out, self.remedy.take)
        logits = as_rows(found, len(given), self.remedy.classes)
        if logits is None:
            raise InputError(f"the network gives {tuple(found.shape)} for {len(given)} images")
        return seen, _plain(logits)[: len(x)].to(x.device, torch.float32)

    def _given(self, x: Tensor) -> Tensor:
        """What the network is given: a copy, filled up, cast and moved, as far as it needs that."""
        remedy = self.remedy
        missing = (remedy.most or 0) - len(x) if remedy.exact else 0
        if missing > 0:
            rest = x[:1].detach() if len(x) else x.new_zeros(1, *x.shape[1:])
            x = torch.cat([x, rest.expand(missing, *x.shape[1:])])
        elif remedy.copy:
            x = x.clone()
        return x.to(
            remedy.device or x.device, None if isinstance(self.net, Foreign) else self._dtype
        )


def _plain(found: Tensor) -> Tensor:
    """A tensor that others may compute with and write into, also if it was made in inference mode."""
    return found.clone() if found.is_inference() else found
