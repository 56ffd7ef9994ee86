"""What attackers bring along, next to the network itself."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

from torch import Tensor

from deepcustom.attacks.bank import DGNBank

T = TypeVar("T")


@dataclass(frozen=True)
class Lazy(Generic[T]):
    """Something that is made, or read, only where it is needed.

    Attributes:
        key: what it follows from: equal keys, equal values; anything that JSON can hold.
        make: makes it, once.
    """

    key: Any
    make: Callable[[], T] = field(compare=False)

    @cached_property
    def value(self) -> T:
        """What ``make`` makes."""
        return self.make()


def as_it_is(value: T) -> Lazy[T]:
    """Something that is there already, made nobody knows how: no piece that follows from it is taken."""
    return Lazy(uuid.uuid4().hex, lambda: value)


Adaptable = tuple[DGNBank, tuple[Tensor, Tensor]]
"""DGNs to adapt, and the images (N, C, H, W) and labels (N,) to adapt them on."""


@dataclass(frozen=True)
class Material:
    """What attackers of one network have at hand.

    Attributes:
        dgns: to adapt to the network.
        sets: name of an adversarial set → (n,) bool, which of its images the network gets right.
        surrogates: name of another network → images made against it, (n, C, H, W).
    """

    dgns: Lazy[Adaptable]
    sets: Mapping[str, Tensor] = field(default_factory=dict)
    surrogates: Mapping[str, Lazy[Tensor]] = field(default_factory=dict)
