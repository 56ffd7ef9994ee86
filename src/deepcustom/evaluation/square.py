"""Room for the Square attack in L2, whose first pattern fits into images of some sizes only.

Its authors' code (Andriushchenko et al. 2020, arXiv:1912.00049) fills the image with squares whose side is a
fifth of the height. Where they do not fit, as in 24 x 24 or 64 x 48 pixels, it ends with an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from pyautoattack.square import SquareAttack


def make_room(attack: SquareAttack, height: int, width: int) -> None:
    """Let an attack in L2 on images of this size run in the next larger size into which its pattern fits.

    The network sees the images alone, and what the attack does beside them is cut off. So its changes in them
    are as long as eps at most, as always. Nothing changes where the pattern fits.
    """
    taller, wider = room(height, width)
    if attack.norm != "L2" or (taller, wider) == (height, width):
        return
    predict, perturb = attack.predict, attack.perturb

    def cut(x: Tensor) -> Tensor:
        return x[..., :height, :width]

    def attacked(x: Tensor, y: Tensor) -> Tensor:
        found: Tensor = perturb(F.pad(x, (0, wider - width, 0, taller - height)), y)
        return cut(found)

    attack.predict = lambda x: predict(cut(x))
    attack.perturb = attacked


def room(height: int, width: int) -> tuple[int, int]:
    """The smallest image, of this height and width at least, into which the first pattern fits."""
    tallest = 5 * -(-height // 5)  # there it fits by its height
    sizes = [
        (taller, wider)
        for taller in range(height, tallest + 1)
        for wider in range(width, width + taller // 5 + 1)
        if _fits(taller, wider)
    ]
    return min(sizes, key=lambda size: (size[0] * size[1], size))


def _fits(height: int, width: int) -> bool:
    side = height // 5
    if side == 0:
        return False
    begin = (height - 5 * side) // 2
    return all(begin + pixels // side * side <= pixels for pixels in (height, width))
