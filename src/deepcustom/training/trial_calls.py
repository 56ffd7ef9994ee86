"""How a network wants to be called: number formats, device, form of the output, and sizes of batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepcustom.base.errors import InputError, one_line
from deepcustom.training.compute import Compute
from deepcustom.training.nets.healed import Healed, Remedy
from deepcustom.training.nets.outputs import Place, place_of_logits, spelt, tensor_at

EXACT = (
    *range(1, 33),
    40,
    48,
    50,
    64,
    96,
    100,
    125,
    128,
    150,
    192,
    200,
    250,
    256,
    300,
    500,
    512,
    1000,
    1024,
)
"""Sizes of batches that are tried, if a network refuses small ones."""


@dataclass
class Calls:
    """A network that is tried, and the images that it is tried on.

    Attributes:
        net: the network.
        x: images (n, C, H, W), float32 in [0, 1], 1 or more.
        y: true labels (n,).
        what: what to call it.
        format: the number format of its logits, once they are known.
        weights: the number format that its images are cast to.
        gradient: whether a gradient reaches the images, once that is known.
    """

    net: nn.Module
    x: Tensor
    y: Tensor
    what: str
    format: str = "float32"
    weights: str = "float32"
    gradient: bool = False

    @property
    def coarse(self) -> bool:
        """Whether it computes in less than float32."""
        return {self.format, self.weights} & {"float16", "bfloat16"} != set()

    def images(self, n: int) -> Tensor:
        """The first ``n`` images; if there are fewer, again from the first."""
        times = -(-n // len(self.x))
        return self.x.repeat(times, 1, 1, 1)[:n] if times > 1 else self.x[:n]

    def answer(self, remedy: Remedy, x: Tensor) -> Tensor:
        """Logits (n, classes), float32, without a gradient; nan counts as an answer."""
        with torch.no_grad():
            found: Tensor = Healed(self.net, remedy)(x.clone())
        return found

    def bare(self, remedy: Remedy, x: Tensor) -> Any:
        """The network's own output, whatever it is."""
        with torch.no_grad():
            return _Bare(self.net, remedy)(x)

    def with_gradient(self, remedy: Remedy, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits where a gradient is asked for, and the gradient of their cross entropy, (n, C, H, W).

        It is None if no way leads back to the images.
        """
        given = x.clone().requires_grad_()
        with torch.enable_grad():
            logits: Tensor = Healed(self.net, remedy)(given)
            if not logits.requires_grad:
                return logits, None
            y = self.y.repeat(-(-len(x) // len(self.y)))[: len(x)]
            loss = F.cross_entropy(logits, y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, given, allow_unused=True)
        return logits.detach(), gradient

    @staticmethod
    def spelt(place: Place) -> str:
        """A place in the output in words."""
        return spelt(place)

    @staticmethod
    def reason(error: Exception) -> str:
        """An error of the network in one line."""
        return one_line(error)


def first_call(calls: Calls, classes: int, compute: Compute) -> Remedy:
    """Find a way to call the network.

    Raises:
        InputError: there is none, or its output is not what scoring needs.
    """
    failed: list[Exception] = []
    ways = list(_ways(calls.net, classes, compute))
    small = [(n, way) for way in ways for n in (2, 3, 1)]
    others = [(n, way) for n in EXACT[3:] for way in ways]
    for n, remedy in small + others:
        given = calls.images(n).clone()
        before = given.clone()
        try:
            out = calls.bare(remedy, given)
        except Exception as error:  # the network may raise anything
            failed.append(error)
            continue
        return _described(calls, remedy, out, n, written=not torch.equal(given, before))
    shape, why = tuple(calls.x.shape[1:]), calls.reason(failed[0])
    raise InputError(
        f"{calls.what}: the network refuses 2 images of shape {shape}: {why}"
    ) from failed[0]


class _Bare(Healed):
    """A network with a remedy whose output is taken as it is."""

    def forward(self, x: Tensor) -> Any:
        """The network's own output."""
        return self.net(self._given(x))


def _described(calls: Calls, remedy: Remedy, out: Any, n: int, *, written: bool) -> Remedy:
    """``remedy`` with what the output ``out`` for ``n`` images says."""
    try:
        take = place_of_logits(out, n, remedy.classes)
    except InputError as error:
        raise InputError(f"{calls.what}: the network {error}") from None
    found = tensor_at(out, take)
    calls.format = str(found.dtype).removeprefix("torch.")
    calls.weights = remedy.dtype or "float32"
    fixed = n > 3
    return replace(
        remedy,
        take=take,
        recast=_odd(out, take, (n, remedy.classes)),
        copy=written,
        most=n if fixed else None,
        exact=fixed,
    )


def _odd(out: Any, take: Place, shape: tuple[int, int]) -> bool:
    """Whether logits are anything but an ordinary float32 tensor of that shape."""
    found = tensor_at(out, take)
    plain = found.dtype is torch.float32 and not found.is_inference()
    return not plain or tuple(found.shape) != shape or not (take or isinstance(out, Tensor))


def _ways(net: nn.Module, classes: int, compute: Compute) -> Iterator[Remedy]:
    """Ways to give it images: as they are; in the number format of its weights; on its own device."""
    plain = Remedy(classes)
    kinds = [p for p in net.parameters() if p.is_floating_point()]
    formats = {str(p.dtype).removeprefix("torch.") for p in kinds} - {"float32"}
    devices = {str(p.device) for p in net.parameters()} - {str(compute.device)}
    if compute.device.type != "cpu":
        devices.add("cpu")
    for device in (None, *sorted(devices)):
        for dtype in (None, *sorted(formats)):
            yield replace(plain, device=device, dtype=dtype)


def sizes_it_takes(calls: Calls, remedy: Remedy, sizes: Sequence[int]) -> Remedy:
    """Try one image alone, and as many as attacks give it; find the bound, if there is one.

    Raises:
        InputError: it takes no number of images twice.
    """
    if not remedy.exact:
        remedy = _bounded(calls, remedy, sizes)
    if remedy.exact or remedy.recast:
        return remedy
    one = calls.bare(remedy, calls.images(1).clone())
    return replace(remedy, recast=_odd(one, remedy.take, (1, remedy.classes)))


def _bounded(calls: Calls, remedy: Remedy, sizes: Sequence[int]) -> Remedy:
    wanted = sorted({1, 2, 3, *sizes})
    takes = {n: _takes(calls, remedy, n) for n in wanted}
    if all(takes.values()):
        return remedy
    if not takes[1]:
        most = max((n for n in wanted if takes[n]), default=0)
        if not most:
            raise InputError(
                f"{calls.what}: the network takes {wanted[1]} images, but not {wanted[1]} again"
            )
        return replace(remedy, most=most, exact=True)
    most = largest(lambda n: _takes(calls, remedy, n), 1, wanted[-1])
    whole = all(_takes(calls, remedy, n) for n in {1, most // 2, most - 1} if n > 0)
    return replace(remedy, most=most, exact=not whole)


def _takes(calls: Calls, remedy: Remedy, n: int) -> bool:
    """Whether it answers ``n`` images, each in a row of its own."""
    try:
        calls.answer(remedy, calls.images(n))
    except Exception:  # the network may raise anything
        return False
    return True


def largest(takes: Callable[[int], bool], low: int, high: int) -> int:
    """The largest number up to which ``takes`` holds, between ``low``, where it does, and ``high``."""
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if takes(middle) else (low, middle - 1)
    return low
