"""Whether two networks differ on the same images."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class PairedTest:
    """McNemar's exact test (McNemar 1947, Psychometrika 12, 153).

    Attributes:
        first: name of a network.
        second: name of the other.
        only_first: images that stand with the first alone.
        only_second: images that stand with the second alone.
        p: probability of a split at least this uneven, were both equally robust.
    """

    first: str
    second: str
    only_first: int
    only_second: int
    p: float


def mcnemar(first: str, second: str, a: Tensor, b: Tensor) -> PairedTest:
    """Compare which of the same images stand, (n,) bool each."""
    from scipy.stats import binomtest  # type: ignore[import-untyped,unused-ignore]

    only_first, only_second = int((a & ~b).sum()), int((b & ~a).sum())
    uneven = only_first + only_second
    p = float(binomtest(only_first, uneven).pvalue) if uneven else 1.0
    return PairedTest(first, second, only_first, only_second, p)
