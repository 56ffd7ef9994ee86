"""Tasks without work, to measure what tasks cost besides it."""

from __future__ import annotations

import time
from typing import Any

from deepcustom.base.progress import Advance
from deepcustom.data.arrays import Array, images


def nothing(shared: Any, *, compute: Any, advance: Advance) -> None:
    """A task that does nothing."""


def wait(shared: Any, seconds: float, *, compute: Any, advance: Advance) -> None:
    """A task that waits."""
    time.sleep(seconds)


def take(shared: Any, x: Array, *, compute: Any, advance: Advance) -> int:
    """A task that is sent images (n, C, H, W), and only counts them."""
    return len(x)


def pixels(shared: Any, x: Array, *, compute: Any, advance: Advance) -> Array:
    """A task that returns its images (n, C, H, W) as float32 in [0, 1]."""
    return images(x).numpy()
