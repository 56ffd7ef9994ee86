"""Figures of a report: curves, image grids, heat maps; equal data make equal bytes.

They use only Matplotlib's object-oriented interface, so they share no state and need no display.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deepcustom.report.figures.curves import loss_curves as loss_curves
    from deepcustom.report.figures.heatmap import accuracy_heatmap as accuracy_heatmap
    from deepcustom.report.figures.images import image_grid as image_grid
    from deepcustom.report.figures.page import save_figure as save_figure
    from deepcustom.report.figures.robustness import robustness_curves as robustness_curves

HOMES = {
    "accuracy_heatmap": "deepcustom.report.figures.heatmap",
    "image_grid": "deepcustom.report.figures.images",
    "loss_curves": "deepcustom.report.figures.curves",
    "robustness_curves": "deepcustom.report.figures.robustness",
    "save_figure": "deepcustom.report.figures.page",
}
"""What others may use, and the module that each is in; loaded when it is first asked for."""


def __getattr__(name: str) -> object:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)
