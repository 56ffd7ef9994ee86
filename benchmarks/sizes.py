"""One figure for several sizes of classifier: how many images a second each way makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.figures import best_of_families, rate
from benchmarks.inputs import SUBJECTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = ("cifar10", "cifar10-resnet20", "cifar10-resnet18")
"""From the smallest classifier to the largest; all see the same images."""
PICTURE = "sizes.png"
WAYS = {
    "dgn": "generators, this project",
    "fgsm-project": "FGSM, this project",
    "fgsm-plain": "FGSM, plain PyTorch, float32",
    "pgd-project": "PGD-20, this project",
    "pgd-plain": "PGD-20, plain PyTorch, float32",
}
"""Families of contenders, and what the legend calls them."""


def drawable(measured: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The files of ``making`` to draw, in order; none unless all are there, measured on one machine."""
    by_name = {one["dataset"]: one for one in measured if one["group"] == "making"}
    if not all(name in by_name for name in SHOWN):
        return []
    found = [by_name[name] for name in SHOWN]
    machines = [
        {key: value for key, value in one["machine"].items() if key != "load"} for one in found
    ]
    return found if all(machine == machines[0] for machine in machines) else []


def draw(found: Sequence[Mapping[str, Any]]) -> Figure:
    """A line for each way, on a logarithmic axis, with the spread of the rounds."""
    from deepcustom.report.figures.page import new_figure

    figure = new_figure(7.2, 4.4, "Adversarial images a second, by the size of the classifier")
    axes = figure.subplots()
    places = range(len(found))
    for family, words in WAYS.items():
        rates = [
            next((rate(r) for r in best_of_families(one["results"]) if r["family"] == family), None)
            for one in found
        ]
        drawn = [(place, each) for place, each in zip(places, rates, strict=True) if each]
        axes.errorbar(
            [place for place, _ in drawn],
            [each.median for _, each in drawn],
            yerr=[
                [each.median - each.least for _, each in drawn],
                [each.most - each.median for _, each in drawn],
            ],
            marker="o",
            capsize=3,
            label=words,
        )
    titles = [SUBJECTS[name].title.removeprefix("CIFAR-10, ") for name in SHOWN]
    axes.set_xticks(list(places), ["the study's CNN", *titles[1:]])
    axes.set(yscale="log", ylabel="images a second")
    axes.margins(x=0.1)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def write(measured: Sequence[Mapping[str, Any]], folder: Path) -> Path | None:
    """Draw into ``folder``; None where there is nothing to draw."""
    found = drawable(measured)
    if not found:
        return None
    from deepcustom.report.figures.page import save_figure

    save_figure(draw(found), folder / PICTURE)
    return folder / PICTURE
