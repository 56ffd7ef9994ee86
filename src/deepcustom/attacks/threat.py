"""The threat model: which images count as adversarial versions of another."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from deepcustom.attacks.norms import NORMS, Norm
from deepcustom.base.errors import InputError, ThreatModelError
from deepcustom.base.settings import ThreatParams

_CACHED = 2**16  # numbers checked at a time: in float64, few enough for the processor's cache


@dataclass(frozen=True)
class ThreatModel:
    """A ball of radius ``eps`` around each image, and pixels in [0, 1].

    Attributes:
        eps: radius in units of the pixel range; in L-infinity 0 to 1.
        clip: whether the ball applies; [0, 1] always does.
        norm: a key of :data:`deepcustom.attacks.norms.NORMS`.
    """

    eps: float
    clip: bool = True
    norm: str = "linf"

    def __post_init__(self) -> None:
        """Refuse a radius that no ball of pixels in [0, 1] has, such as 8 in place of 8/255.

        Raises:
            InputError: it is below 0, or in L-infinity above 1, or not a number; or there is no such norm.
        """
        if self.norm not in NORMS:
            raise InputError(f"norm is {self.norm!r}: choose from {', '.join(NORMS)}")
        if self.norm == "linf" and not 0 <= self.eps <= 1:
            raise InputError(f"eps is {self.eps}, want 0 to 1, in units of the pixel range [0, 1]")
        if not 0 <= self.eps < math.inf:
            raise InputError(
                f"eps is {self.eps}, want a number from 0, the length of a change in [0, 1]"
            )

    @property
    def ball(self) -> Norm:
        """The norm, and what follows from it."""
        return NORMS[self.norm]

    def fits(self, s: Tensor, x: Tensor) -> Tensor:
        """A generator's output ``s``, after a check that it has the shape of the images ``x``.

        Raises:
            InputError: it has another, which might spread over the images without a word.
        """
        if s.shape != x.shape:
            found, wanted = tuple(s.shape), tuple(x.shape)
            raise InputError(
                f"the generator gives {found} for images {wanted}, want the images' shape"
            )
        return s

    def spread(self, s: Tensor, x: Tensor) -> Tensor:
        """The images that a generator of perturbations proposes; differentiable.

        Args:
            s: the generator's output in [0, 1]: 0 and 1 are the ends of the ball, 1/2 is ``x`` itself. In L2
                2 s - 1 is a direction; where it is longer than 1, it leads to the end of the ball.
            x: clean images in [0, 1], same shape.

        Returns:
            x + eps * (2 s - 1), clipped to [0, 1]: in the ball up to rounding, which ``project`` corrects.
        """
        return (x + self.ball.spread(s, self.eps)).clamp(0.0, 1.0)

    @classmethod
    def of(cls, params: ThreatParams) -> ThreatModel:
        """The threat model that a subject names."""
        return cls(params.eps, norm=params.norm)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The image that the threat model allows in place of ``x_adv``; differentiable.

        In L-infinity it is the nearest. In L2 the change is shortened, then pixels are clipped to [0, 1].

        Args:
            x_adv: proposed images (N, C, H, W), float32.
            x: clean images in [0, 1], same shape.

        Returns:
            Images whose distance from ``x`` is at most ``eps`` exactly.
        """
        if self.clip:
            x_adv = self.ball.limit(x_adv, x, self.eps)
        return x_adv.clamp(0.0, 1.0)

    def verify(self, x_adv: np.ndarray, x: np.ndarray) -> None:
        """Check, image by image and in float64, what ``project`` promises.

        Args:
            x_adv: adversarial images (N, C, H, W), float.
            x: clean images in [0, 1], same shape, float; or uint8 in 0..255.

        Raises:
            ThreatModelError: shapes differ, a value is not finite, or an image lies outside; the
                message says how many and by how much.
        """
        if x_adv.shape != x.shape:
            raise ThreatModelError(f"shapes differ: adversarial {x_adv.shape}, clean {x.shape}")
        outside, excess = 0, 0.0
        chunk = max(_CACHED // max(math.prod(x.shape[1:]), 1), 1)
        for start in range(0, len(x), chunk):
            over = self._excess(x_adv[start : start + chunk], x[start : start + chunk])
            outside += int((over > 0).sum())
            excess = max(excess, float(over.max(initial=0.0)))
        if outside:
            of = "" if self.norm == "linf" else f"{self.ball.title} "
            ball = f"the eps={self.eps} {of}ball and " if self.clip else ""
            raise ThreatModelError(
                f"{outside} of {len(x)} images lie outside {ball}[0, 1], by up to {excess:.3g}"
            )

    def _excess(self, x_adv: np.ndarray, x: np.ndarray) -> np.ndarray:
        """How far each image lies outside, (n,); 0 inside, inf where a pixel is not finite."""
        wide = x_adv.astype(np.float64).reshape(len(x_adv), -1)
        over = np.maximum(-wide, wide - 1.0).max(axis=1, initial=0.0)
        if self.clip:
            # The program's images are float32: a uint8 pixel stands for float32(value / 255).
            clean = x.astype(np.float32) / np.float32(255) if x.dtype == np.uint8 else x
            change = wide - clean.astype(np.float64).reshape(len(x), -1)
            over = np.maximum(over, self.ball.lengths(change) - self.eps)
        finite: np.ndarray = np.where(np.isfinite(over), over, np.inf)
        return finite
