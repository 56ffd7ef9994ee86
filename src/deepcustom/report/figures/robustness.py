"""Accuracy under attack against the radius of the ball, and against the number of steps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, Protocol

from deepcustom.report.figures.page import GREY, INK, message_figure, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#7a5195",
    "#a6761d",
    "#56b4e9",
    "#c4161c",
    "#222222",
    "#8a8a00",
)
"""Colours of the networks; with the markers, people with common colour blindness can tell them apart."""

MARKERS = "os^vDPX<>"  # one fewer than colours, so that a pair repeats only after 90 networks
GAP = 5.2  # percentage points between labels, so that they do not touch
AXES = {"eps": "eps, radius of the ball", "steps": "steps of PGD (logarithmic)"}


class CurvePoint(Protocol):
    """The part that is drawn of a point from :mod:`deepcustom.evaluation.curves`."""

    @property
    def curve(self) -> str:
        """``eps`` or ``steps``, which of the two varies."""

    @property
    def eps(self) -> float:
        """Radius of the ball."""

    @property
    def steps(self) -> int:
        """Number of PGD steps."""

    @property
    def accuracy(self) -> float:
        """Accuracy under attack, 0 to 1."""


def robustness_curves(points: Sequence[tuple[str, CurvePoint]], curve: str, title: str) -> Figure:
    """The curves of all networks in one picture, each with its name at its end.

    Args:
        points: name of the network and point, of both curves.
        curve: ``eps`` or ``steps``, which one to draw.
        title: names the data set.
    """
    lines = _lines(points, curve)
    if not lines:
        return message_figure(title, f"no accuracy against {curve} was measured")
    fig = new_figure(7.6, max(4.0, 0.24 * len(lines) + 2.0), title)
    axes = fig.add_subplot()
    styles = zip(cycle(COLOURS), cycle(MARKERS), strict=False)
    ends = []
    for (name, values), (colour, marker) in zip(lines.items(), styles, strict=False):
        x, y = zip(*values, strict=True)
        axes.plot(x, y, color=colour, marker=marker, ms=4, lw=1.5, alpha=0.9)
        ends.append((name, colour, marker, values))
    _scale(axes, curve, sorted({x for values in lines.values() for x, _ in values}))
    _name_lines(axes, ends)
    if curve == "eps":
        _mark_eps(axes, points)
    return fig


_Values = list[tuple[float, float]]
_Line = tuple[str, str, str, _Values]  # name, colour, marker, (x, y)


def _lines(points: Sequence[tuple[str, CurvePoint]], curve: str) -> dict[str, _Values]:
    """Network → its points (x, accuracy in %), x rising."""
    lines: dict[str, _Values] = {}
    for name, point in points:
        if point.curve == curve:
            x = point.eps if curve == "eps" else float(point.steps)
            lines.setdefault(name, []).append((x, 100 * point.accuracy))
    return {name: sorted(values) for name, values in lines.items()}


def _scale(axes: Axes, curve: str, x: Sequence[float]) -> None:
    """Set up the axes. Numbers of steps double, so their axis is logarithmic, with a place for 0."""
    if curve == "steps":
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xticks(x, [f"{value:g}" for value in x])
        axes.set_xticks([], minor=True)
    axes.set_ylim(-2, 102)
    axes.set_xlabel(AXES[curve], fontsize=9, color=INK)
    axes.set_ylabel("accuracy, %", fontsize=9, color=INK)
    axes.tick_params(labelsize=8, colors=INK, length=2)
    axes.grid(axis="y", color="#e6e6e6", lw=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _name_lines(axes: Axes, lines: Sequence[_Line]) -> None:
    """Write the names beside the ends, moved apart; if ends meet, the higher curve has the higher name."""

    def height(line: _Line) -> tuple[float, float]:
        values = line[-1]
        return values[-1][1], sum(y for _, y in values) / len(values)

    ordered = sorted(lines, key=height)
    places = spread([values[-1][1] for *_, values in ordered], GAP)
    beside = axes.get_yaxis_transform()
    for (name, colour, marker, values), place in zip(ordered, places, strict=True):
        key: dict[str, Any] = {"color": colour, "transform": beside, "clip_on": False}
        axes.plot([1.06], [place], marker=marker, ms=4.5, ls="", **key)
        axes.text(1.08, place, name, fontsize=8.5, va="center", **key)
        leader: dict[str, Any] = {"arrowstyle": "-", "color": colour, "lw": 0.5, "alpha": 0.5}
        axes.annotate("", values[-1], (1.05, place), textcoords=beside, arrowprops=leader)


def spread(values: Sequence[float], gap: float, top: float = 100.0) -> list[float]:
    """Move rising ``values`` as little as needed to lie ``gap`` apart, and below ``top`` if they fit."""
    places: list[float] = []
    for value in values:
        places.append(max(value, places[-1] + gap) if places else value)
    highest = max(top, gap * (len(values) - 1))
    for number in reversed(range(len(places))):
        places[number] = min(places[number], highest)
        highest = places[number] - gap
    return places


def _mark_eps(axes: Axes, points: Sequence[tuple[str, CurvePoint]]) -> None:
    """Draw a line at the threat model's radius, which is the radius of the curve against steps."""
    radii = {point.eps for _, point in points if point.curve == "steps"}
    if len(radii) == 1:
        (eps,) = radii
        axes.axvline(eps, color=GREY, lw=1, ls="--", zorder=0)
        words = f"threat model: {eps:.4g}"
        axes.annotate(words, (eps, 101), xytext=(3, 0), textcoords="offset points", fontsize=7.5)
