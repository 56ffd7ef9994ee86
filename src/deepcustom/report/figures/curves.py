"""Training curves, by epoch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from deepcustom.report.figures.page import BLUE, GREY, INK, message_figure, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CLASS_KEY = re.compile(r"class_\d+/(.+)")


def loss_curves(history: Mapping[str, Sequence[float]], title: str) -> Figure:
    """One panel per quantity over the epochs, with the single classes in grey behind.

    Args:
        history: values per epoch under ``"loss"``, ``"val_accuracy"`` and so on, and those of
            single classes under ``"class_3/loss"``.
        title: says what was trained.
    """
    panels = _panels(history)
    if not panels:
        return message_figure(title, "no epoch was recorded")
    columns = 2 if len(panels) == 4 else min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    fig = new_figure(max(3.3 * columns, 4.5), 2.4 * rows + 0.7, title)
    grid = fig.subplots(rows, columns, squeeze=False)
    for axes, (name, (main, classes)) in zip(grid.flat, panels.items(), strict=False):
        _curve_panel(axes, name, main, classes)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    if any(classes for _, classes in panels.values()):
        fig.supxlabel("epoch   (blue: all classes together, grey: each class)", fontsize=8)
    else:
        fig.supxlabel("epoch", fontsize=8)
    return fig


_Panel = tuple[Sequence[float], list[Sequence[float]]]


def _panels(history: Mapping[str, Sequence[float]]) -> dict[str, _Panel]:
    """Quantity → its values over all classes (maybe none), and the values of each class."""
    panels: dict[str, _Panel] = {}
    keys = sorted(history, key=lambda key: _CLASS_KEY.fullmatch(key) is not None)
    for key in keys:
        if not len(history[key]):
            continue
        match = _CLASS_KEY.fullmatch(key)
        if match:
            panels.setdefault(match[1], ([], []))[1].append(history[key])
        else:
            panels[key] = (history[key], [])
    return panels


def _curve_panel(
    axes: Axes, name: str, main: Sequence[float], classes: list[Sequence[float]]
) -> None:
    from matplotlib.ticker import MaxNLocator

    epochs = max(len(values) for values in [main, *classes])
    marker = "o" if epochs <= 20 else ""
    for values in classes:
        axes.plot(_epochs(values), values, color=GREY, lw=0.8, marker=marker, ms=2)
    if len(main):
        axes.plot(_epochs(main), main, color=BLUE, lw=1.8, marker=marker, ms=4)
        last = f"{main[-1] + 0.0:.4g} at epoch {len(main)}"
        axes.set_title(last, loc="right", fontsize=7.5, color=BLUE)
    axes.set_title(name.replace("_", " "), loc="left", fontsize=9, color=INK)
    axes.set_xlim((0.5, 1.5) if epochs == 1 else (1 - 0.03 * epochs, epochs * 1.03))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    _quiet(axes)
    axes.grid(axis="y", color="#e6e6e6", lw=0.6)
    axes.set_axisbelow(True)


def _epochs(values: Sequence[float]) -> range:
    return range(1, len(values) + 1)


def _quiet(axes: Axes) -> None:
    axes.tick_params(labelsize=7.5, colors=INK, length=2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
