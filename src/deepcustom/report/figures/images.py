"""Images of an adversarial set beside the clean ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from deepcustom.base.errors import InputError
from deepcustom.report.figures.page import INK, RED, message_figure, new_figure

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from deepcustom.attacks.threat import ThreatModel

    FloatArray = np.ndarray[Any, np.dtype[np.floating[Any]]]
    IntArray = np.ndarray[Any, np.dtype[np.integer[Any]]]


def image_grid(
    x: FloatArray,
    x_adv: FloatArray,
    y: IntArray,
    *,
    class_names: Sequence[str],
    predicted: IntArray | None = None,
    predicted_adv: IntArray | None = None,
    threat: ThreatModel,
    title: str,
) -> Figure:
    """Clean images, adversarial images and their differences, one image per column, in the order given.

    Args:
        x: clean images, (N, C, H, W) in [0, 1], with C 1 or 3; N may be 0.
        x_adv: their adversarial images, of the same shape.
        y: true classes, (N,).
        class_names: name of each class.
        predicted: class the network gives each clean image, (N,).
        predicted_adv: class it gives each adversarial image, (N,); a change is shown in red.
        threat: with a radius above 0. In L-infinity the difference is drawn on the scale -eps to eps; in L2,
            where no pixel may change by as much, to its largest value.
        title: names the data set and the attack.

    Raises:
        InputError: the shapes do not fit together.
    """
    import numpy as np

    x, x_adv, y = np.asarray(x), np.asarray(x_adv), np.asarray(y)
    _check_images(x, x_adv, {"y": y, "predicted": predicted, "predicted_adv": predicted_adv})
    if len(x) == 0:
        return message_figure(title, "the set is empty, so there is no image to show")
    scale, note = _scale(x, x_adv, threat)
    # One column of cells for each image.
    colour = x.shape[1] == 3
    fig = new_figure(max(1.0 * len(x) + 1.2, 6.0), 4.5 if colour else 4.1, title, compress=True)
    grid = fig.subplots(3, len(x), squeeze=False)
    for cells, clean, adversarial, label in zip(grid.T, x, x_adv, y, strict=True):
        _image_column(cells, clean, adversarial, scale)
        cells[0].set_title(
            class_names[int(label)], fontsize=8.5, color=INK, fontweight="bold", pad=16
        )
    # What is written around the cells.
    if predicted is not None and predicted_adv is not None:
        _prediction_labels(
            grid[0],
            [class_names[int(label)] for label in predicted],
            [class_names[int(label)] for label in predicted_adv],
        )
    for axes, label in zip(grid[:, 0], ("clean", "adversarial", "difference"), strict=True):
        axes.set_ylabel(label, fontsize=9, color=INK)
    _difference_scale(fig, grid, scale, note, colour=colour)
    return fig


def _check_images(x: FloatArray, x_adv: FloatArray, labels: Mapping[str, IntArray | None]) -> None:
    if x.ndim != 4 or x.shape[1] not in (1, 3) or x.shape != x_adv.shape:
        raise InputError(
            f"images have shapes {x.shape} and {x_adv.shape}: want (N, 1 or 3, H, W) twice"
        )
    for name, values in labels.items():
        if values is not None and len(values) != len(x):
            raise InputError(f"{name} has {len(values)} entries for {len(x)} images")


def _scale(x: FloatArray, x_adv: FloatArray, threat: ThreatModel) -> tuple[float, str]:
    """The change of a pixel that is drawn in full colour, and what to say of the largest changes."""
    import numpy as np

    eps, ball = threat.eps, threat.ball
    largest = float(np.abs(x_adv - x).max())
    if threat.norm == "linf":
        return eps, f"eps {eps:g}, largest change in these images {largest:.4f}"
    longest = float(ball.lengths((x_adv - x).reshape(len(x), -1).astype(np.float64)).max())
    note = (
        f"eps {eps:g} in {ball.title}, longest change in these images {longest:.4f}, "
        f"and {largest:.4f} of a pixel"
    )
    return float(f"{largest:.2g}") or eps, note


def _image_column(
    cells: Iterable[Axes], clean: FloatArray, adversarial: FloatArray, scale: float
) -> None:
    import numpy as np

    grey = clean.shape[0] == 1
    difference = adversarial - clean
    if not grey:
        difference = np.clip(0.5 + difference / (2 * scale), 0, 1)
    scales = [("gray", 0.0, 1.0), ("gray", 0.0, 1.0), ("RdBu_r", -scale, scale)]
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
    """Write under each class name what the network predicts, before and after; red if it changed."""
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


def _difference_scale(fig: Figure, grid: Any, scale: float, note: str, *, colour: bool) -> None:
    """Say what the colours of the difference mean, and write ``note`` below."""
    if colour:
        note += (
            f"\ndifference: grey means no change; each channel runs from -{scale:g} (dark) "
            f"to +{scale:g} (bright)"
        )
    else:
        image = grid[2, 0].images[0]
        bar = fig.colorbar(image, ax=grid, shrink=0.3, anchor=(0, 0), pad=0.015, aspect=12)
        bar.set_ticks([-scale, 0, scale], labels=[f"-{scale:g}", "0", f"+{scale:g}"])
        bar.ax.tick_params(labelsize=7.5, length=2)
        bar.outline.set_visible(False)
    fig.supxlabel(note, fontsize=8, color=INK)
