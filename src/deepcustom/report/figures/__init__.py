"""Figures of a report: curves, image grids, heat maps; equal data make equal bytes.

Matplotlib's object-oriented interface only, so no state is shared and no display is needed.
"""

from deepcustom.report.figures.curves import loss_curves
from deepcustom.report.figures.heatmap import accuracy_heatmap
from deepcustom.report.figures.images import image_grid
from deepcustom.report.figures.page import save_figure
from deepcustom.report.figures.robustness import robustness_curves

__all__ = [
    "accuracy_heatmap",
    "image_grid",
    "loss_curves",
    "robustness_curves",
    "save_figure",
]
