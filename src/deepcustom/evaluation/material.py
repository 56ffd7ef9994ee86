"""What attackers have besides the network itself."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

from torch import Tensor

from deepcustom.attacks.bank import DGNBank
from deepcustom.attacks.conditional import ConditionalDGN
from deepcustom.training.rows import LabelledImages

T = TypeVar("T")


@dataclass(frozen=True)
class Lazy(Generic[T]):
    """A value that is made, or read, only when it is first needed.

    Attributes:
        key: decides the value: equal keys mean equal values; anything that JSON can hold.
        make: makes the value; called at most once.
    """

    key: Any
    make: Callable[[], T] = field(compare=False)

    @cached_property
    def value(self) -> T:
        """The value that ``make`` returns."""
        return self.make()


def as_it_is(value: T) -> Lazy[T]:
    """Wrap a value that exists already. Its key is always new, so no stored piece that needs it is reused."""
    return Lazy(uuid.uuid4().hex, lambda: value)


DGNs = DGNBank | ConditionalDGN
"""One DGN for each class, or a single one that is told the label."""
Adaptable = tuple[DGNs, LabelledImages]
"""DGNs to adapt, and the images (N, C, H, W) and labels (N,) to adapt them on."""


@dataclass(frozen=True)
class Material:
    """What the attackers of one network have at hand.

    Attributes:
        dgns: the DGNs to adapt to the network; None: the adaptive protocol is left out.
        sets: name of an adversarial set → (n,) bool, which of its images the network gets right.
        surrogates: name of another network → images made against it, (n, C, H, W).
    """

    dgns: Lazy[Adaptable] | None = None
    sets: Mapping[str, Tensor] = field(default_factory=dict)
    surrogates: Mapping[str, Lazy[Tensor]] = field(default_factory=dict)
