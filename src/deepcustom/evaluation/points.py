"""The points of curves: what PGD leaves at a radius and a number of steps."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """A network under PGD, at one radius and one number of steps.

    Attributes:
        curve: ``eps`` or ``steps``, which of the two varies.
        eps: radius, in units of the pixel range.
        steps: number of PGD steps, from one random start.
        accuracy: share of all images that the network still gets right, 0 to 1.
        loss: mean cross entropy, under attack, of the images that the network gets right without one;
            nan if there are none.
        risen: share of those images whose loss is higher than on the clean image.
    """

    curve: str
    eps: float
    steps: int
    accuracy: float
    loss: float
    risen: float
