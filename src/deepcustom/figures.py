"""Figures of a report: loss curves, image grids, heat maps; equal data make equal bytes.

Matplotlib's object-oriented interface only, so no state is shared and no display is needed.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepcustom.errors import InputError
from deepcustom.results import Pivot, Result, percent, pivot, replace_file, trained_on

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    FloatArray = np.ndarray[Any, np.dtype[np.floating[Any]]]
    IntArray = np.ndarray[Any, np.dtype[np.integer[Any]]]

DPI = 144
INK, BLUE, GREY, RED = "#222222", "#1f5fa8", "#b5b5b5", "#c4161c"
_CLASS_KEY = re.compile(r"class_\d+/(.+)")


def save_figure(fig: Figure, path: Path) -> None:
    """Write ``fig`` as a PNG, whole or not at all; equal figures make equal bytes."""
    png = io.BytesIO()
    fig.savefig(png, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    replace_file(path, png.getvalue())


def _figure(width: float, height: float, title: str, *, compress: bool = False) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08, compress=compress)
    fig = Figure(figsize=(width, height), layout=layout)
    fig.suptitle(title, fontsize=11, color=INK, fontweight="bold")
    return fig


def _message(title: str, text: str) -> Figure:
    """A small figure that only says ``text``, where there is nothing to draw."""
    fig = _figure(5.0, 1.6, title)
    axes = fig.add_subplot()
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", color=INK, fontsize=10)
    return fig


# --- curves -------------------------------------------------------------------------------------


def loss_curves(history: Mapping[str, Sequence[float]], title: str) -> Figure:
    """One panel per quantity over the epochs, with the single classes in grey behind.

    Args:
        history: values per epoch under ``"loss"``, ``"val_accuracy"`` and so on, and those of
            single classes under ``"class_3/loss"``.
        title: what was trained.
    """
    panels = _panels(history)
    if not panels:
        return _message(title, "no epoch was recorded")
    columns = 2 if len(panels) == 4 else min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    fig = _figure(max(3.3 * columns, 4.5), 2.4 * rows + 0.7, title)
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
    """Quantity -> its values over all classes (maybe none) and the values of each class."""
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


# --- images -------------------------------------------------------------------------------------


def image_grid(
    x: FloatArray,
    x_adv: FloatArray,
    y: IntArray,
    *,
    class_names: Sequence[str],
    predicted: IntArray | None = None,
    predicted_adv: IntArray | None = None,
    eps: float,
    title: str,
    columns: int = 10,
) -> Figure:
    """Clean images, adversarial images and their difference, a column each, every class first.

    Args:
        x: clean images, (N, C, H, W) in [0, 1], with C 1 or 3; N may be 0.
        x_adv: their adversarial images, of the same shape.
        y: true classes, (N,).
        class_names: name of each class.
        predicted: class the network gives each clean image, (N,).
        predicted_adv: class it gives each adversarial image, (N,); a change is shown in red.
        eps: radius of the threat model, above 0; the difference is drawn on the scale -eps to eps.
        title: which data set and attack.
        columns: how many images to show at most.

    Raises:
        InputError: where the shapes do not belong together.
    """
    import numpy as np

    x, x_adv, y = np.asarray(x), np.asarray(x_adv), np.asarray(y)
    _check_images(x, x_adv, {"y": y, "predicted": predicted, "predicted_adv": predicted_adv})
    if len(x) == 0:
        return _message(title, "the set is empty: there is no image to show")
    chosen = _choose(y.tolist(), columns)
    largest = float(np.abs(x_adv[chosen] - x[chosen]).max())
    colour = x.shape[1] == 3
    fig = _figure(max(1.0 * len(chosen) + 1.2, 5.5), 4.5 if colour else 4.1, title, compress=True)
    grid = fig.subplots(3, len(chosen), squeeze=False)
    for column, index in enumerate(chosen):
        _image_column(grid[:, column], x[index], x_adv[index], eps)
        grid[0, column].set_title(
            class_names[int(y[index])], fontsize=8.5, color=INK, fontweight="bold", pad=16
        )
    if predicted is not None and predicted_adv is not None:
        _prediction_labels(
            grid[0],
            [class_names[int(predicted[i])] for i in chosen],
            [class_names[int(predicted_adv[i])] for i in chosen],
        )
    for axes, label in zip(grid[:, 0], ("clean", "adversarial", "difference"), strict=True):
        axes.set_ylabel(label, fontsize=9, color=INK)
    note = f"eps {eps:g}, largest change in these images {largest:.4f}"
    _difference_scale(fig, grid, eps, note, colour=colour)
    return fig


def _check_images(x: FloatArray, x_adv: FloatArray, labels: Mapping[str, IntArray | None]) -> None:
    if x.ndim != 4 or x.shape[1] not in (1, 3) or x.shape != x_adv.shape:
        raise InputError(
            f"images have shapes {x.shape} and {x_adv.shape}: want (N, 1 or 3, H, W) twice"
        )
    for name, values in labels.items():
        if values is not None and len(values) != len(x):
            raise InputError(f"{name} has {len(values)} entries for {len(x)} images")


def _choose(labels: Sequence[int], columns: int) -> list[int]:
    """Indices of one image of each class, then of a second, up to ``columns``; in class order."""
    seen: dict[int, int] = {}
    ranked = []
    for index, label in enumerate(labels):
        seen[label] = seen.get(label, 0) + 1
        ranked.append((seen[label], label, index))
    return [index for _, label, index in sorted(sorted(ranked)[:columns], key=lambda r: r[1:])]


def _image_column(
    cells: Iterable[Axes], clean: FloatArray, adversarial: FloatArray, eps: float
) -> None:
    import numpy as np

    grey = clean.shape[0] == 1
    difference = adversarial - clean
    if not grey:
        difference = np.clip(0.5 + difference / (2 * eps), 0, 1)
    scales = [("gray", 0.0, 1.0), ("gray", 0.0, 1.0), ("RdBu_r", -eps, eps)]
    for axes, image, (cmap, low, high) in zip(
        cells, (clean, adversarial, difference), scales, strict=True
    ):
        shown = image[0] if grey else np.clip(image.transpose(1, 2, 0), 0, 1)
        axes.imshow(shown, cmap=cmap, vmin=low, vmax=high, interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_color("#cccccc")


def _prediction_labels(cells: Iterable[Axes], before: Sequence[str], after: Sequence[str]) -> None:
    """Under each class name what the network says, before and after; red where it changed."""
    long = any(len(b) + len(a) > 9 for b, a in zip(before, after, strict=True))
    for axes, b, a in zip(cells, before, after, strict=True):
        axes.text(
            0.5,
            1.03,
            f"{b}\n→ {a}" if long else f"{b} → {a}",
            transform=axes.transAxes,
            ha="center",
            va="bottom",
            fontsize=7,
            linespacing=1.1,
            color=INK if b == a else RED,
        )
        if long:
            axes.set_title(axes.get_title(), fontsize=8.5, color=INK, fontweight="bold", pad=25)


def _difference_scale(fig: Figure, grid: Any, eps: float, note: str, *, colour: bool) -> None:
    """Say what the colours of the difference mean, and write ``note`` below."""
    if colour:
        note += (
            f"\ndifference: grey is none, a channel runs from -{eps:g} (dark) to +{eps:g} (bright)"
        )
    else:
        image = grid[2, 0].images[0]
        bar = fig.colorbar(image, ax=grid, shrink=0.3, anchor=(0, 0), pad=0.015, aspect=12)
        bar.set_ticks([-eps, 0, eps], labels=[f"-{eps:g}", "0", f"+{eps:g}"])
        bar.ax.tick_params(labelsize=7.5, length=2)
        bar.outline.set_visible(False)
    fig.supxlabel(note, fontsize=8, color=INK)


# --- heat map -----------------------------------------------------------------------------------


def accuracy_heatmap(results: Iterable[Result], dataset: str, protocol: str) -> Figure:
    """Accuracy in %, networks by attacks, of one data set under one protocol."""
    networks, attacks, cells = pivot(results, dataset, protocol)
    title = f"{dataset}, {protocol} protocol: accuracy in %"
    if not cells:
        return _message(title, f"no result under the {protocol} protocol")
    fig = _figure(max(0.8 * len(attacks) + 2.8, 4.5), 0.42 * len(networks) + 1.7, title)
    axes = fig.add_subplot()
    _heat(axes, (networks, attacks, cells))
    axes.set_xticks(range(len(attacks)), attacks, rotation=30, ha="left", rotation_mode="anchor")
    axes.set_yticks(range(len(networks)), networks)
    axes.xaxis.tick_top()
    axes.tick_params(labelsize=8.5, colors=INK, length=0)
    axes.spines[:].set_visible(False)
    if _frame_own(axes, networks, attacks):
        fig.supxlabel("framed: the attack the network was hardened with", fontsize=8, color=INK)
    return fig


def _heat(axes: Axes, table: Pivot) -> None:
    import numpy as np

    networks, attacks, cells = table
    values = np.full((len(networks), len(attacks)), np.nan)
    for (network, attack), result in cells.items():
        values[networks.index(network), attacks.index(attack)] = 100 * result.accuracy
    axes.set_facecolor("#eeeeee")
    axes.imshow(np.ma.masked_invalid(values), cmap="cividis", vmin=0, vmax=100, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        axes.text(
            column,
            row,
            percent(cells.get((networks[row], attacks[column]))),
            ha="center",
            va="center",
            fontsize=8.5,
            color="white" if value <= 55 else "black",
        )
    for row in range(1, len(networks)):
        axes.axhline(row - 0.5, color="white", lw=1.5)
    for column in range(1, len(attacks)):
        axes.axvline(column - 0.5, color="white", lw=1.5)


def _frame_own(axes: Axes, networks: Sequence[str], attacks: Sequence[str]) -> bool:
    """Frame each network's own attack; say whether there was any."""
    from matplotlib.patches import Rectangle

    own = [
        (attacks.index(trained_on(network)), row)
        for row, network in enumerate(networks)
        if trained_on(network) in attacks
    ]
    for column, row in own:
        corner = (column - 0.47, row - 0.45)
        axes.add_patch(Rectangle(corner, 0.94, 0.9, fill=False, edgecolor=RED, lw=1.6))
    return bool(own)
