"""What a custom loss is, and where losses are found.

A loss is a small class, built once per DGN from its checked options and a :class:`LossContext`. It is called
with clean images ``x`` and the generator's output ``g``, and returns named terms, one number per image,
already weighted and signed. Training minimises the mean of their sum, and logs every term.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from torch import Tensor

from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.errors import LossError, UnknownNameError
from deepcustom.base.names import load_object
from deepcustom.base.params import Params, validate
from deepcustom.training.nets.base import Classifier

ANALYSES = ("relevance", "suspiciousness")


@dataclass(frozen=True)
class LossContext:
    """All that a loss may know.

    Attributes:
        target_net: the network under attack, in eval mode, weights frozen; it computes in the run's
            precision and returns float32.
        label: the class whose images this DGN gets.
        threat: the ball and range that its output will be projected to.
        analysis: for each analysis in the loss's ``requires``, its arrays for this class:
            ``relevance``: ``pixels`` (k,) int64 places in the flattened image, most relevant first, and
            ``relevance`` (C, H, W); ``suspiciousness``: ``suspicious.<layer>`` (units,) bool,
            ``scores.<layer>`` (units,), ``failures`` () int64.
    """

    target_net: Classifier
    label: int
    threat: ThreatModel
    analysis: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)


def contexts(
    target_net: Classifier,
    threat: ThreatModel,
    analysis: Mapping[str, Mapping[str, Tensor]],
    num_classes: int,
) -> list[LossContext]:
    """One :class:`LossContext` for each class.

    Args:
        target_net: as in :class:`LossContext`.
        threat: as in :class:`LossContext`.
        analysis: analysis → array → tensor with one row per class.
        num_classes: how many labels there are.
    """
    return [
        LossContext(
            target_net,
            label,
            threat,
            {
                name: {key: array[label] for key, array in arrays.items()}
                for name, arrays in analysis.items()
            },
        )
        for label in range(num_classes)
    ]


class CustomLoss(ABC):
    """Base of every loss.

    Class attributes:
        Options: the pydantic model of its options in ``params.yaml``.
        requires: names of the analyses that it reads.
    """

    Options: ClassVar[type[Params]] = Params
    requires: ClassVar[tuple[str, ...]] = ()

    def __init__(self, options: Any, context: LossContext) -> None:
        self.options = options
        self.context = context

    @abstractmethod
    def __call__(self, x: Tensor, g: Tensor) -> Mapping[str, Tensor]:
        """The terms.

        Args:
            x: clean images (N, C, H, W) in [0, 1].
            g: the generator's output before the projection, same shape, in [0, 1].

        Returns:
            Term name → (N,) differentiable tensor, weighted and signed.
        """


REGISTRY: dict[str, type[CustomLoss]] = {}
"""The losses loaded so far; :func:`registered` loads all built-in ones first."""
ROOM = "deepcustom.attacks.losses"
NO_LOSSES = ("base", "listing")  # files of this room that hold no loss
L = TypeVar("L", bound=type[CustomLoss])


def register_loss(name: str) -> Callable[[L], L]:
    """Class decorator: make the loss known under ``name``.

    Raises:
        LossError: the name is taken.
    """

    def add(cls: L) -> L:
        if cls.__module__ != f"{ROOM}.{name}":
            _load_built_in(name)
        if name in REGISTRY:
            taken = f"{REGISTRY[name].__module__}.{REGISTRY[name].__qualname__}"
            raise LossError(f"loss {name!r} is registered already, by {taken}")
        REGISTRY[name] = cls
        return cls

    return add


def built_in() -> list[str]:
    """The names of the built-in losses, which are those of their files."""
    files = pkgutil.iter_modules([str(Path(__file__).parent)])
    return sorted(file.name for file in files if file.name not in NO_LOSSES)


def registered() -> dict[str, type[CustomLoss]]:
    """All losses by name: the built-in ones, and any others that are registered."""
    for name in built_in():
        _load_built_in(name)
    return REGISTRY


def _load_built_in(name: str) -> None:
    """Load the built-in loss ``name``, and no other; do nothing if there is none."""
    if name not in REGISTRY and name in built_in():
        importlib.import_module(f"{ROOM}.{name}")


def find_loss(name: str) -> type[CustomLoss]:
    """The loss class of a registered name or of ``package.module:Class`` (from the current folder too).

    Raises:
        UnknownNameError: the name is not registered; the message lists those that are.
        LossError: the module or class cannot be imported, or the class is not a CustomLoss.
    """
    if ":" in name:
        return _import_loss(name)
    _load_built_in(name)
    if name not in REGISTRY:
        known = sorted({*built_in(), *REGISTRY})
        raise UnknownNameError("loss", name, [*known, "or your own package.module:Class"])
    return REGISTRY[name]


def _import_loss(name: str) -> type[CustomLoss]:
    found = load_object(name, "loss", LossError)
    if not (isinstance(found, type) and issubclass(found, CustomLoss)):
        raise LossError(f"loss {name!r} is not a subclass of deepcustom.attacks.losses.CustomLoss")
    return found


def build_loss(name: str, options: Mapping[str, Any], context: LossContext) -> CustomLoss:
    """Build a loss for one DGN.

    Raises:
        UnknownNameError, LossError: as :func:`find_loss`, or a required analysis is missing.
        ParamsError: an option is unknown or out of range.
    """
    cls = find_loss(name)
    missing = [analysis for analysis in cls.requires if analysis not in context.analysis]
    if missing:
        raise LossError(
            f"loss {name!r} requires the analysis {', '.join(missing)}, which is missing"
        )
    return cls(validate(cls.Options, dict(options), f"options of loss {name!r}"), context)
