"""What the page shows of one subject, as plain data; whoever gathers it knows where files lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deepcustom.evaluation.checks import Check
from deepcustom.evaluation.points import Point
from deepcustom.evaluation.results import HardenedWith, Result
from deepcustom.evaluation.statistics import PairedTest

if TYPE_CHECKING:
    import numpy as np

    Images = np.ndarray[Any, np.dtype[np.uint8]]
    Floats = np.ndarray[Any, np.dtype[np.floating[Any]]]
    Integers = np.ndarray[Any, np.dtype[np.integer[Any]]]
    Flags = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Missing:
    """Something that the page would show if it were there.

    Attributes:
        what: the part of the page.
        command: what makes it.
    """

    what: str
    command: str


@dataclass(frozen=True, eq=False)
class Shown:
    """Some images of one adversarial set.

    Attributes:
        x: uint8 (K, C, H, W).
        of: which row of the clean images each was made from, (K,).
        predicted: class that the target network gives, (K,).
        confidence: its softmax probability, (K,), 0 to 1.
    """

    x: Images
    of: Integers
    predicted: Integers
    confidence: Floats


@dataclass(frozen=True, eq=False)
class Gallery:
    """Images to leaf through.

    Attributes:
        title: of the data set, for people.
        x: clean images, uint8 (M, C, H, W).
        label: true classes, (M,).
        predicted: class that the target network gives, (M,).
        confidence: its softmax probability, (M,), 0 to 1.
        index: row of each in the official test split, (M,).
        sets: attack → its images.
        classes: name of each class.
        eps: the change of a pixel that is drawn in full colour: the radius in L-infinity.
        reduced: by how much each side was divided to make the images small; 1 where they are whole.
    """

    title: str
    x: Images
    label: Integers
    predicted: Integers
    confidence: Floats
    index: Integers
    sets: Mapping[str, Shown]
    classes: Sequence[str]
    eps: float
    reduced: int = 1

    def largest(self) -> float:
        """The largest change of a pixel in any of the images, 0 to 1."""
        import numpy as np

        clean = np.asarray(self.x, np.float64)
        found = [np.abs(one.x - clean[one.of]).max(initial=0) for one in self.sets.values()]
        return float(max(found, default=0)) / 255


@dataclass(frozen=True, eq=False)
class Relevance:
    """What relevance found.

    Attributes:
        relevance: (classes, C, H, W).
        pixels: the most relevant values of each class, as places in (C, H, W), (classes, k).
    """

    relevance: Floats
    pixels: Integers


@dataclass(frozen=True, eq=False)
class Suspiciousness:
    """What suspiciousness found: layer → one row per class.

    Attributes:
        scores: (classes, units) for each layer.
        suspicious: (classes, units) for each layer, which are the most suspicious.
        failures: images of each class that the network gets wrong, (classes,).
    """

    scores: Mapping[str, Floats]
    suspicious: Mapping[str, Flags]
    failures: Integers


@dataclass(frozen=True, eq=False)
class Subject:
    """All that the page shows of one subject; what is empty or None is not there.

    Attributes:
        name: below ``subjects`` in ``params.yaml``.
        title: of its data set, for people.
        threat: the threat model, in words.
        eps: radius of the ball, in units of the pixel range.
        bounded: what eps bounds, in words.
        networks: all networks by the settings, the target first; they need not have been trained.
        classes: name of each class, as far as known.
        banks: names of its banks of DGNs.
        results: the numbers.
        hardened_with: network → the attack that it was hardened with.
        checks: of the evaluation; None where there are none.
        points: accuracy against eps and steps, with the network.
        pairs: networks compared two by two.
        histories: name of a training → measure → its value by epoch.
        seconds: ``network/protocol/attack`` → seconds that the attack took.
        made: attack of a stored set → seconds for 1,000 images.
        gallery: images.
        relevance: relevant pixels.
        suspiciousness: suspicious units.
        missing: what is not there, and what makes it.
        trace: where the numbers come from, as JSON can hold it; None where no record tells.
    """

    name: str
    title: str
    threat: str
    eps: float
    bounded: str
    networks: Sequence[str] = ()
    classes: Sequence[str] = ()
    banks: Sequence[str] = ()
    results: Sequence[Result] = ()
    hardened_with: HardenedWith = field(default_factory=dict)
    checks: Sequence[Check] | None = None
    points: Sequence[tuple[str, Point]] = ()
    pairs: Sequence[PairedTest] = ()
    histories: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    made: Mapping[str, float] = field(default_factory=dict)
    gallery: Gallery | None = None
    relevance: Relevance | None = None
    suspiciousness: Suspiciousness | None = None
    missing: Sequence[Missing] = ()
    trace: Mapping[str, Any] | None = None
