"""Whether a network does better than guessing."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

SURE = 0.01  # how probable so many hits may be for one who guesses
LITTLE = 0.1  # share of the way from guessing to perfection, below which a network is near chance


@dataclass(frozen=True)
class Guessing:
    """A network beside one who always answers with the commonest class.

    Attributes:
        accuracy: share of the images that the network gets right, 0 to 1.
        guess: share that the other gets right; at least 1 / classes.
        p: probability of as many hits, or more, for one who guesses.
        n: number of images; with none, nothing can be told.
    """

    accuracy: float
    guess: float
    p: float
    n: int

    @classmethod
    def of(cls, right: Tensor, y: Tensor, classes: int) -> Guessing:
        """Compare.

        Args:
            right: (n,) bool, which images the network gets right.
            y: true labels (n,).
            classes: how many classes there are.
        """
        return cls.of_hits(int(right.sum()), y, classes)

    @classmethod
    def of_hits(cls, hits: int, y: Tensor, classes: int) -> Guessing:
        """The same, if it is known how many images the network gets right."""
        from scipy.stats import binomtest  # type: ignore[import-untyped,unused-ignore]

        n = len(y)
        if not n:
            return cls(float("nan"), 1.0, 1.0, 0)
        guess = max(int(y.bincount().max()) / n, 1 / classes)
        p = float(binomtest(hits, n, guess, alternative="greater").pvalue)
        return cls(hits / n, guess, p, n)

    @property
    def tellable(self) -> bool:
        """Whether a perfect network could be told from guessing, on these images."""
        return bool(self.guess**self.n <= SURE)

    @property
    def at_chance(self) -> bool:
        """Whether the network cannot be told from guessing, though there are images enough."""
        return self.tellable and self.p > SURE

    @property
    def near_chance(self) -> bool:
        """Whether it is at chance, or hardly above it."""
        above = (self.accuracy - self.guess) / max(1 - self.guess, 1e-9)
        return self.tellable and (self.at_chance or above < LITTLE)

    def __str__(self) -> str:
        return (
            f"gets {100 * self.accuracy:.1f} % of {self.n} clean images right, and answering with the "
            f"commonest class gets {100 * self.guess:.1f} %"
        )


HINT = (
    "was the normalisation forgotten (mean and std), does it want other images than in [0, 1], or are its "
    "classes in another order?"
)
