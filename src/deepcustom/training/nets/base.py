"""The base classes of classifiers and generators, their common parts, and how a name becomes a network.

A classifier names its hidden layers and returns their pre-activations, which the analyses and the
suspiciousness loss use. A generator is one DGN: images in, images of the same shape out, in [0, 1].
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepcustom.base.errors import InputError, one_line
from deepcustom.base.names import load_object
from deepcustom.training.compute import Compute


class Classifier(nn.Module):
    """A network from images (N, C, H, W) in [0, 1] to logits (N, classes), with named hidden layers."""

    def preactivations(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """One pass through the network.

        Args:
            x: images (N, C, H, W) in [0, 1].

        Returns:
            What enters each hidden ReLU, by layer name in forward order, (N, units) for dense layers
            and (N, maps, H, W) for convolutions; and the logits (N, classes).
        """
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W) in [0, 1]."""
        return self.preactivations(x)[1]


class MixedPrecision(Classifier):
    """A frozen classifier whose convolutions and matrix products run in ``compute.precision``.

    Its outputs are float32, so that a loss or an attack does its own arithmetic in full precision. In
    float16 a gradient through it needs a scaled loss (:class:`torch.amp.GradScaler`): most of an unscaled
    gradient is below float16's smallest number.
    """

    def __init__(self, net: Classifier, compute: Compute) -> None:
        super().__init__()
        self.net, self.compute = net, compute

    def preactivations(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """See :meth:`Classifier.preactivations`; float32."""
        with self.compute.autocast():
            seen, logits = self.net.preactivations(x)
        return {name: values.float() for name, values in seen.items()}, logits.float()

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes), float32; not by way of the pre-activations, which not every network tells."""
        with self.compute.autocast():
            logits: Tensor = self.net(x)
        return logits.float()


class Conditional(nn.Module):
    """A network from images (N, C, H, W) in [0, 1] and labels (N,) to numbers of that shape in [0, 1].

    Attributes:
        classes: how many labels it knows.
    """

    classes: int

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """0 and 1 stand for the two ends of the ball around each pixel."""
        raise NotImplementedError


class UpConv2d(nn.ConvTranspose2d):
    """Transposed convolution without padding that avoids slow paths of the CPU library (oneDNN 3.x).

    It gives the numbers of :class:`torch.nn.ConvTranspose2d`, which is slow in two cases:

    * The gradient of a bias inside the convolution takes as long as that of the weights. With gradients
      enabled, the bias is therefore added afterwards.
    * With a bias inside and a stride of 2, an odd size is 4 to 8 times as slow as the next even one.
      Without gradients, the output is therefore made one row and column larger, and cropped.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride)
        self.kernel, self.step = kernel, stride

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, (H - 1) * stride + kernel, likewise for W).

        Raises:
            ValueError: ``output_size`` is given; the size above is the only one.
        """
        if output_size is not None:
            raise ValueError(f"UpConv2d has one output size, found output_size={output_size}")
        if self.bias is not None and torch.is_grad_enabled():
            bare = F.conv_transpose2d(x, self.weight, stride=self.step)
            return bare.add_(self.bias.to(bare.dtype)[:, None, None])
        height, width = ((n - 1) * self.step + self.kernel for n in x.shape[2:])
        odd = self.step > 1 and (height % 2 or width % 2)
        extra = 1 if odd else 0
        wide = F.conv_transpose2d(x, self.weight, self.bias, self.step, output_padding=extra)
        return wide[:, :, :height, :width]


def up_step(inputs: int, outputs: int, *, kernel: int, stride: int) -> list[nn.Module]:
    """One step of a decoder: transposed convolution, ReLU, batch norm."""
    return [
        UpConv2d(inputs, outputs, kernel, stride=stride),
        nn.ReLU(),
        nn.BatchNorm2d(outputs),
    ]


def parameter_count(net: nn.Module) -> int:
    """The number of parameters, with those that a module says it holds in ``frozen_parameters``."""
    frozen = sum(getattr(module, "frozen_parameters", 0) for module in net.modules())
    return sum(p.numel() for p in net.parameters()) + frozen


N = TypeVar("N", bound=nn.Module)


@dataclass(frozen=True)
class Architecture:
    """What a network is made from.

    Attributes:
        name: ``package.module:Class``, a subclass of :class:`torch.nn.Module`, from the current folder too.
        options: arguments of the class.
        facts: further arguments, such as ``shape`` and ``classes`` of the data set; the class gets those that
            it has a parameter for.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> nn.Module:
        """A fresh network.

        Raises:
            InputError: in one line: there is no such class, it is not a network, or it refuses the options.
        """
        return self._built(nn.Module)

    def _built(self, kind: type[N]) -> N:
        found = network_class(self.name, kind)
        known = inspect.signature(found).parameters
        facts = {name: value for name, value in self.facts.items() if name in known}
        try:
            return found(**{**facts, **self.options})
        except Exception as error:  # the user's own class may raise anything
            why = one_line(error)
            raise InputError(
                f"network {self.name!r}: making one failed: {why}; its arguments: {', '.join(known)}"
            ) from error


def network_class(name: str, kind: type[N]) -> type[N]:
    """The class ``package.module:Class``.

    Raises:
        InputError: there is no such class, or it is no subclass of ``kind``.
    """
    found = load_object(name, "network", InputError)
    if not (isinstance(found, type) and issubclass(found, kind)):
        wanted = "torch.nn.Module" if kind is nn.Module else f"{kind.__module__}.{kind.__name__}"
        raise InputError(f"network {name!r} is not a subclass of {wanted}")
    return found


Named = Architecture | str
"""A network's architecture, or its class alone, ``package.module:Class``."""


def build(named: Named, **more: Any) -> nn.Module:
    """A fresh network.

    Args:
        named: what it is made from.
        more: further arguments of the class, if it has parameters of these names.

    Raises:
        InputError: as :meth:`Architecture.build`.
    """
    return _with(named, more).build()


def build_classifier(named: Named, **more: Any) -> Classifier:
    """Like :func:`build`, for a network that names its hidden layers.

    Raises:
        InputError: as there, or the class is not a :class:`Classifier`.
    """
    return _with(named, more)._built(Classifier)


def build_conditional(named: Named, classes: int) -> Conditional:
    """Like :func:`build`, for a generator that is told the label.

    Raises:
        InputError: as there, or the class is not a :class:`Conditional`.
    """
    return _with(named, {"classes": classes})._built(Conditional)


def _with(named: Named, more: Mapping[str, Any]) -> Architecture:
    """``named`` with further facts."""
    known = Architecture(named) if isinstance(named, str) else named
    return replace(known, facts={**known.facts, **more})
