"""What the networks for images of any size ask of a data set's shape."""

from __future__ import annotations

from collections.abc import Sequence

from deepcustom.base.errors import InputError

LEAST = 8  # pixels on each side that the ready-made classifiers need


def at_least(shape: Sequence[int], name: str, least: int = LEAST) -> tuple[int, int, int]:
    """``shape`` (C, H, W), checked.

    Args:
        shape: channels, height and width of the images.
        name: the network that asks, for the message.
        least: the fewest pixels of a side that it can take.

    Raises:
        InputError: there are not three numbers, no channel, or a side is shorter than ``least``.
    """
    if len(shape) != 3 or shape[0] < 1 or min(shape[1:]) < least:
        raise InputError(
            f"{name} takes images (C, H, W) of one channel or more and at least {least} x {least} pixels, "
            f"found {tuple(shape)}"
        )
    channels, height, width = (int(n) for n in shape)
    return channels, height, width
