"""Any network as a classifier: normalised images in front, and hidden layers seen from outside.

What enters each hidden activation is a *pre-activation*. A network that names its own layers
(:class:`~deepcustom.training.nets.base.Classifier`) tells them itself. Of any other, either the outputs of
listed modules are taken, or whatever enters a ReLU or one of its relatives, in the order of the forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from deepcustom.base.errors import InputError
from deepcustom.training.nets.base import Classifier
from deepcustom.training.nets.outputs import place_of_logits, tensor_at

ACTIVATIONS = {
    F.relu,
    F.relu_,
    torch.relu,
    torch.relu_,
    Tensor.relu,
    Tensor.relu_,
    F.relu6,
    F.leaky_relu,
    F.elu,
    F.gelu,
    F.silu,
    F.mish,
    F.hardswish,
}
"""What counts as a hidden activation: all are near zero, or at most linear, below zero."""


def check_normalisation(
    mean: Sequence[float], std: Sequence[float], channels: int, name: str
) -> None:
    """Check what images are normalised by.

    Args:
        mean: of each channel.
        std: likewise, what images are then divided by.
        channels: of an image.
        name: what messages call the two.

    Raises:
        InputError: there is not one number for each channel; or a mean is none of images in [0, 1], such as
            one in units of 0..255; or a number is not finite, or an std not above 0.
    """
    whole = len(mean) == len(std) == channels
    if not (whole and all(0 <= m <= 1 for m in mean) and all(0 < s < math.inf for s in std)):
        raise InputError(
            f"{name}: want {channels} numbers each, std above 0, and mean in the range [0, 1] of the images"
        )


class Foreign(Classifier):
    """A network of any class as a :class:`Classifier`.

    Attributes:
        net: the network: normalised images (N, C, H, W) to logits (N, classes).
        layers: the modules whose outputs are its pre-activations; empty: they are found.
        classes: number of logits; None: the output is taken as it is, also if it is not one tensor.
        format: the number format of all its weights, if there is but one.
        cast: the number format that normalised images are cast to; None: they stay in float32.
    """

    mean: Tensor | None
    std: Tensor | None
    cast: torch.dtype | None

    def __init__(
        self,
        net: nn.Module,
        *,
        mean: Sequence[float] = (),
        std: Sequence[float] = (),
        layers: Sequence[str] = (),
        classes: int | None = None,
    ) -> None:
        """Wrap ``net``. If all its weights are of one number format, images are cast to it.

        Args:
            net: the network.
            mean: of each channel, subtracted from images in [0, 1]; empty: images stay as they are.
            std: of each channel, by which they are then divided.
            layers: names of modules of ``net``, as ``named_modules`` gives them.
            classes: number of logits, to find them in a tuple or a dict.

        Raises:
            InputError: the network has no such module.
        """
        super().__init__()
        self.net, self.layers, self.classes = net, tuple(layers), classes
        formats = {p.dtype for p in net.parameters() if p.is_floating_point()}
        self.format = formats.pop() if len(formats) == 1 else None
        self.cast = self.format
        for name, values in (("mean", mean), ("std", std)):
            column = torch.tensor(values).view(1, -1, 1, 1) if values else None
            self.register_buffer(name, column, persistent=False)
        known = dict(net.named_modules())
        for name in self.layers:
            if name not in known:
                there = ", ".join(filter(None, known))
                raise InputError(f"the network has no layer {name!r}; it has: {there}")

    def normalized(self, x: Tensor) -> Tensor:
        """(x - mean) / std for images in [0, 1], in the format that ``net`` takes."""
        z = x if self.mean is None or self.std is None else (x - self.mean) / self.std
        return z if self.cast is None else z.to(self.cast)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W) in [0, 1]."""
        return self._logits(self.net(self.normalized(x)), len(x))

    def _logits(self, out: Any, n: int) -> Tensor:
        if self.classes is not None and not isinstance(out, Tensor):
            return tensor_at(out, place_of_logits(out, n, self.classes))
        logits: Tensor = out
        return logits

    def preactivations(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """See :meth:`Classifier.preactivations`; layers that are found are called ``hidden1`` and so on.

        Raises:
            InputError: no hidden layer is found.
        """
        normalized = self.normalized(x)
        if isinstance(self.net, Classifier) and not self.layers:
            return self.net.preactivations(normalized)
        watch = _listed(self.net, self.layers) if self.layers else _Watch()
        with watch as seen:
            logits = self._logits(self.net(normalized), len(x))
        if not seen:
            raise InputError(
                "no hidden layer was found, since nothing enters a ReLU or one like it: list layers"
            )
        return seen, logits


@contextmanager
def _listed(net: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Collect the outputs of modules meanwhile."""
    seen: dict[str, Tensor] = {}
    known = dict(net.named_modules())
    hooks = [known[name].register_forward_hook(_keep(seen, name)) for name in layers]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _keep(seen: dict[str, Tensor], name: str) -> Callable[..., None]:
    def keep(module: nn.Module, given: Any, output: Any) -> None:
        if not isinstance(output, Tensor):
            raise InputError(f"layer {name!r} gives {type(output).__name__}, want one tensor")
        # A ReLU that follows may write into it.
        seen[name if name not in seen else f"{name}.{len(seen)}"] = output.clone()

    return keep


class _Watch(TorchFunctionMode):
    """Collects what enters activations meanwhile."""

    def __enter__(self) -> dict[str, Tensor]:
        super().__enter__()  # type: ignore[no-untyped-call]
        self.seen: dict[str, Tensor] = {}
        return self.seen

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in ACTIVATIONS:
            x = args[0] if args else kwargs["input"]
            self.seen[f"hidden{len(self.seen) + 1}"] = x.clone()  # it may write into its input
        return func(*args, **kwargs)


def unexplained(net: nn.Module, x: Tensor, explained: Sequence[type[nn.Module]]) -> str | None:
    """What a network does besides running each of its modules of the ``explained`` kinds once.

    Args:
        net: the network.
        x: images (N, C, H, W) that it is tried on.
        explained: kinds of modules; what they do inside does not matter.

    Returns:
        The first thing: a module of another kind, one that runs twice, or an operation outside of modules;
        None if there is none. Operations that only arrange numbers anew (flatten, reshape) are no matter.
    """
    trial = _Trial()
    leaves = {m: name for name, m in net.named_modules() if not list(m.children())}
    for module, name in leaves.items():
        if type(module) not in explained and type(module) not in ARRANGING:
            return f"{name or 'the network'} is a {type(module).__name__}"
    hooks = []
    for module, name in leaves.items():
        hooks.append(module.register_forward_pre_hook(trial.enter(name)))
        hooks.append(module.register_forward_hook(trial.leave))
    try:
        with torch.no_grad(), trial:
            net(x)
    finally:
        for hook in hooks:
            hook.remove()
    return trial.fault


ARRANGING = (nn.Flatten, nn.Identity, nn.Unflatten)
_ARRANGES = {
    "flatten",
    "reshape",
    "view",
    "view_as",
    "size",
    "contiguous",
    "squeeze",
    "unsqueeze",
    "__get__",  # attributes, such as the shape
    "dim",
    "__len__",
}


class _Trial(TorchFunctionMode):
    """Notes the first operation of a forward pass that is outside of leaf modules, or a second run of one."""

    def __init__(self) -> None:
        super().__init__()
        self.fault: str | None = None
        self._depth = 0
        self._ran: set[str] = set()

    def enter(self, name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            self._depth += 1
            if name in self._ran:
                self.fault = self.fault or f"{name} runs twice"
            self._ran.add(name)

        return hook

    def leave(self, *_: Any) -> None:
        self._depth -= 1

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", str(func))
        if not self._depth and name not in _ARRANGES:
            self.fault = self.fault or f"{name.strip('_')} is computed outside of its layers"
        return func(*args, **(kwargs or {}))
