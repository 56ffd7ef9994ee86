"""Spans of time and sizes as people say them."""

from __future__ import annotations

MINUTE, HOUR = 60, 3600
GIGA, MEGA = 10**9, 10**6


def span(seconds: float) -> str:
    """Such as ``42 s``, ``12 min`` or ``1 h 40 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / MINUTE)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"


def size(count: float) -> str:
    """Such as ``412 MB`` or ``12.1 GB``, in powers of ten."""
    if count < GIGA:
        return f"{count / MEGA:.0f} MB"
    return f"{count / GIGA:.1f} GB"


def counted(count: int, one: str, many: str = "") -> str:
    """Such as ``1 stage`` or ``3 stages``."""
    return f"{count} {one if count == 1 else many or one + 's'}"
