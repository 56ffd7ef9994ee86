"""A paired test: do two networks differ on the same images?"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class PairedTest:
    """McNemar's exact test (McNemar 1947, Psychometrika 12, 153).

    Attributes:
        first: name of a network.
        second: name of the other.
        only_first: how many images only the first network gets right under attack.
        only_second: likewise, only the second.
        p: probability of a split at least this uneven if both were equally robust.
    """

    first: str
    second: str
    only_first: int
    only_second: int
    p: float


def mcnemar(first: str, second: str, a: Tensor, b: Tensor) -> PairedTest:
    """Compare two networks; ``a`` and ``b`` (n,) bool say which images each gets right under attack."""
    from scipy.stats import binomtest  # type: ignore[import-untyped,unused-ignore]

    only_first, only_second = int((a & ~b).sum()), int((b & ~a).sum())
    uneven = only_first + only_second
    p = float(binomtest(only_first, uneven).pvalue) if uneven else 1.0
    return PairedTest(first, second, only_first, only_second, p)
