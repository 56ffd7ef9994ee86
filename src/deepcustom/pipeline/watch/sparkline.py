"""A curve as one short word of text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

BLOCKS = "▁▂▃▄▅▆▇█"
PLAIN = "_.-=+*#@"
"""For a terminal that has no blocks."""
GAP = "·"
WIDTH = 24


def sparkline(values: Sequence[float], width: int = WIDTH, levels: str = BLOCKS) -> str:
    """Draw values as characters of eight heights, the lowest value lowest.

    Args:
        values: any numbers; what is not finite is drawn as a gap.
        width: characters at most; more values are averaged over equal parts of the curve.
        levels: the characters, from low to high.

    Returns:
        As many characters as there are values, at most ``width``; empty for no values.
    """
    shown = _averaged(values, width)
    finite = [value for value in shown if math.isfinite(value)]
    if not finite:
        return _gap(levels) * len(shown)
    low, high = min(finite), max(finite)
    span = high - low

    def level(value: float) -> str:
        if not math.isfinite(value):
            return _gap(levels)
        share = (value - low) / span if span > 0 else 0.5
        return levels[min(len(levels) - 1, int(share * len(levels)))]

    return "".join(map(level, shown))


def levels_for(encoding: str | None) -> str:
    """The characters that a stream with this encoding can show."""
    try:
        (BLOCKS + GAP).encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return PLAIN
    return BLOCKS


def _averaged(values: Sequence[float], width: int) -> list[float]:
    if len(values) <= width:
        return list(values)
    edges = [round(place * len(values) / width) for place in range(width + 1)]
    parts = [values[a:b] for a, b in pairwise(edges)]
    return [math.fsum(part) / len(part) for part in parts]


def _gap(levels: str) -> str:
    return GAP if levels == BLOCKS else " "
