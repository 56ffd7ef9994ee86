"""Medians, spreads and ratios of what was measured; nothing here measures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

Result = dict[str, Any]
"""One contender, as :func:`benchmarks.race.race` gives it."""


@dataclass(frozen=True)
class Spread:
    """Several rounds in three numbers."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{digits(self.median)} ({digits(self.least)}-{digits(self.most)})"

    def percent(self) -> str:
        """The same as percentages."""
        each = (digits(100 * value) for value in (self.median, self.least, self.most))
        return "{} % ({}-{})".format(*each)


def digits(value: float) -> str:
    """Three digits, and commas between thousands."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:g}"


def present(results: Iterable[Result]) -> list[Result]:
    """Those that ran."""
    return [result for result in results if "absent" not in result]


def rates(result: Result) -> list[float]:
    """Images (or operations) a second, by round."""
    return [result["count"] * result["calls"] / seconds for seconds in result["seconds"]]


def rate(result: Result) -> Spread:
    """Over the rounds."""
    return Spread.of(rates(result))


def times(one: Result, other: Result) -> Spread:
    """How many times the rate of ``other`` that of ``one`` is: by round, then over the rounds."""
    return Spread.of([a / b for a, b in zip(rates(one), rates(other), strict=True)])


def fastest(results: Iterable[Result]) -> Result:
    """The one with the highest median rate."""
    return max(results, key=lambda result: rate(result).median)


def best_of_families(results: Sequence[Result]) -> list[Result]:
    """Of contenders that differ in batch size alone the fastest; families in the order of the race."""
    families: dict[str, list[Result]] = {}
    for result in present(results):
        families.setdefault(result["family"], []).append(result)
    return [fastest(members) for members in families.values()]


def peak(results: Iterable[Result], precision: str) -> list[float]:
    """Operations a second of the fastest matrix product of a precision, by round."""
    products = [one for one in results if one["options"].get("precision") == precision]
    return [
        max(one["count"] / one["fastest"][number] for one in products)
        for number in range(len(products[0]["fastest"]))
    ]


def work_rates(result: Result) -> list[float]:
    """Operations a second of a contender that knows what an image costs, by round."""
    flops: float = result["facts"]["flops"]
    return [images * flops for images in rates(result)]
