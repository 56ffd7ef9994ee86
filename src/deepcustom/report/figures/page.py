"""What all figures share: colours, the empty page, and how a figure is saved."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from deepcustom.base.files import replace_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 144
INK, BLUE, GREY, RED = "#222222", "#1f5fa8", "#b5b5b5", "#c4161c"


def save_figure(fig: Figure, path: Path) -> None:
    """Write ``fig`` as a PNG, whole or not at all; equal figures make equal bytes."""
    png = io.BytesIO()
    fig.savefig(png, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    replace_file(path, png.getvalue())


def new_figure(width: float, height: float, title: str, *, compress: bool = False) -> Figure:
    """An empty figure with a title; sizes in inches."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08, compress=compress)
    fig = Figure(figsize=(width, height), layout=layout)
    fig.suptitle(title, fontsize=11, color=INK, fontweight="bold")
    return fig


def message_figure(title: str, text: str) -> Figure:
    """A small figure that only says ``text``, where there is nothing to draw."""
    fig = new_figure(5.0, 1.6, title)
    axes = fig.add_subplot()
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", color=INK, fontsize=10)
    return fig
