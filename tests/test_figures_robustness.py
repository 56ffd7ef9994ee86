"""Pictures of accuracy against eps and against steps."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from deepcustom.evaluation.points import Point
from deepcustom.report.figures import robustness_curves, save_figure
from deepcustom.report.figures.robustness import COLOURS, GAP, MARKERS, spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = ["target", *(f"network-{number}" for number in range(11))]


def points(names: list[str] = NAMES) -> list[tuple[str, Point]]:
    """All fall to 0 with eps; those that come later stand longer."""
    found = []
    for number, name in enumerate(names):
        for eps in (0.6, 0.0, 0.3):  # in no order
            accuracy = 0.0 if eps == 0.6 else 0.9 - eps * 2 / (number + 1)
            found.append((name, Point("eps", eps, 50, accuracy, 1.0, 1.0)))
        for steps in (0, 1, 10, 100):
            found.append((name, Point("steps", 0.3, steps, 0.9 / (1 + steps), 1.0, 1.0)))
    return found


def texts(fig: Figure) -> list[str]:
    from matplotlib.text import Text

    return [t.get_text() for t in fig.findobj(Text) if isinstance(t, Text) and t.get_text()]


@pytest.mark.parametrize("curve", ["eps", "steps"])
def test_every_network_is_drawn_and_named(curve: str, tmp_path: Path) -> None:
    fig = robustness_curves(points(), curve, "MNIST")
    (axes,) = fig.axes
    drawn = [line for line in axes.lines if len(line.get_xdata()) > 2]
    assert len(drawn) == len(NAMES)
    assert all(list(line.get_xdata()) == sorted(line.get_xdata()) for line in drawn)
    assert set(NAMES) <= set(texts(fig))
    looks = {(line.get_color(), line.get_marker()) for line in drawn}
    assert len(looks) == len(NAMES) > len(COLOURS) > len(MARKERS)
    save_figure(fig, tmp_path / "a.png")
    save_figure(robustness_curves(points(), curve, "MNIST"), tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_names_stand_apart_in_the_order_of_the_curves() -> None:
    (axes,) = robustness_curves(points(), "eps", "MNIST").axes
    places = {t.get_text(): t.get_position()[1] for t in axes.texts if t.get_text() in NAMES}
    heights = [places[name] for name in NAMES]
    assert heights == sorted(heights)
    assert min(b - a for a, b in pairwise(heights)) >= GAP - 1e-9


def test_the_radius_of_the_threat_model_is_marked() -> None:
    assert "threat model: 0.3" in texts(robustness_curves(points(), "eps", "MNIST"))
    alone = [(name, point) for name, point in points() if point.curve == "eps"]
    assert not [t for t in texts(robustness_curves(alone, "eps", "MNIST")) if "threat" in t]


def test_scales() -> None:
    (axes,) = robustness_curves(points(), "steps", "MNIST").axes
    assert axes.get_xscale() == "symlog"  # 0 steps have a place on it
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0", "1", "10", "100"]
    assert robustness_curves(points(), "eps", "MNIST").axes[0].get_xscale() == "linear"


def test_no_points() -> None:
    assert "no accuracy against eps was measured" in texts(robustness_curves([], "eps", "MNIST"))
    one = [("a", Point("steps", 0.3, 5, 0.5, 1.0, 1.0))]
    assert "a" in texts(robustness_curves(one, "steps", "MNIST"))


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([], []),
        ([0, 0, 0], [0, 10, 20]),
        ([0, 50, 100], [0, 50, 100]),
        ([98, 99, 100], [80, 90, 100]),
        ([0, 0, 95, 96], [0, 10, 90, 100]),
        ([50] * 12, [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110]),
    ],
)
def test_spread(values: list[float], found: list[float]) -> None:
    assert spread(values, 10) == found
