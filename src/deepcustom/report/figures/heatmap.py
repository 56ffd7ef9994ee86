"""Accuracies as a heat map."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from deepcustom.evaluation.results import HardenedWith, Pivot, Result, percent, pivot
from deepcustom.report.figures.page import INK, RED, message_figure, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def accuracy_heatmap(
    results: Iterable[Result], dataset: str, protocol: str, hardened_with: HardenedWith
) -> Figure:
    """Accuracy in %, networks by attacks, of one subject under one protocol.

    The cell of the attack that a network was hardened with has a frame.
    """
    networks, attacks, cells = pivot(results, dataset, protocol)
    name = "worst case" if protocol == "worst" else f"{protocol} protocol"
    title = f"{dataset}, {name}: accuracy in %"
    if not cells:
        return message_figure(title, f"no result under the {name}")
    fig = new_figure(max(0.8 * len(attacks) + 2.8, 4.5), 0.42 * len(networks) + 1.7, title)
    axes = fig.add_subplot()
    _heat(axes, (networks, attacks, cells))
    axes.set_xticks(range(len(attacks)), attacks, rotation=30, ha="left", rotation_mode="anchor")
    axes.set_yticks(range(len(networks)), networks)
    axes.xaxis.tick_top()
    axes.tick_params(labelsize=8.5, colors=INK, length=0)
    axes.spines[:].set_visible(False)
    own = [hardened_with.get(network, "") for network in networks]
    if _frame_own(axes, own, attacks):
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


def _frame_own(axes: Axes, hardened_with: Sequence[str], attacks: Sequence[str]) -> bool:
    """In each row, frame the attack that the network was hardened with; return whether any is framed."""
    from matplotlib.patches import Rectangle

    own = [
        (attacks.index(attack), row)
        for row, attack in enumerate(hardened_with)
        if attack in attacks
    ]
    for column, row in own:
        corner = (column - 0.47, row - 0.45)
        axes.add_patch(Rectangle(corner, 0.94, 0.9, fill=False, edgecolor=RED, lw=1.6))
    return bool(own)
