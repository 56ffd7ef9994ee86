"""The table, the figure and the page of the comparison, from the files of results alone."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepcustom.base.files import replace_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Tried = dict[str, Any]
"""One file of results of a variant."""

BASE, REFERENCE, WIDTH = "base", "reference", "width"
PAGE, TABLE, PICTURE = "GENERATORS.md", "generators.csv", "generators.png"
SAME = 0.01  # accuracies on val that lie no farther apart count as the same
COLUMNS = (
    "on",
    "variant",
    "varies",
    "about",
    "mflop",
    "parameters",
    "epochs",
    "seconds",
    "val_left",
    "test_left",
    "classifier_md5",
)

HEAD = """\
# Generators: strength against cost

Made by `python -m benchmarks.generators` from the files in `results/generators/`; do not edit.
[README.md](README.md) says how.

A generator puts out a perturbation in one pass, so its price is that of its own convolutions, whatever the
classifier costs. Each row is one generator, trained on the 45,000 train images and scored by what it
*leaves*: the share of images that the classifier still gets right once they are perturbed within
eps = 0.0313. Less is stronger. Each row differs from `base` in the one thing that it names. The rows are
compared on the 5,000 images of `val`; the 10,000 test images are shown beside
them and decided nothing. A price counts the operations of convolutions and matrix products for one image,
two for a multiplication and an addition. For FGSM and PGD it has the passes through the classifier, forth
and back. PGD-20 was run on the first 1,000 images of each split.

![What generators, FGSM and PGD leave, against what they cost](generators.png)

The same figures as data: [generators.csv](generators.csv).
"""


def write(out: Path) -> list[Path]:
    """Write the page, the table and the figure into ``out``; returns them, none where nothing was tried."""
    found = load(out / "results" / "generators")
    if not found:
        return []
    page, table, picture = out / PAGE, out / TABLE, out / PICTURE
    replace_file(page, markdown(found).encode())
    replace_file(table, rows(found).encode())
    from deepcustom.report.figures.page import save_figure

    save_figure(draw(found), picture)
    return [page, table, picture]


def load(folder: Path) -> dict[str, dict[str, Tried]]:
    """Classifier → variant → its results, in the order of ``variants.yaml``."""
    from benchmarks.generators import variants

    places, known = variants.read()
    found = {}
    for on in places:
        files = {name: folder / on / f"{name}.json" for name in (REFERENCE, *known)}
        there = {
            name: json.loads(file.read_text()) for name, file in files.items() if file.exists()
        }
        if there:
            found[on] = there
    return found


def rows(found: dict[str, dict[str, Tried]]) -> str:
    """The table as CSV: generators, and the attacks that they are held against."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n", restval="")
    table.writeheader()
    for on, tried in found.items():
        for attack, one in tried.get(REFERENCE, {}).get("attacks", {}).items():
            table.writerow(
                {
                    "on": on,
                    "variant": attack,
                    "varies": REFERENCE,
                    "mflop": one["mflop"],
                    "val_left": f"{one['val']:.4f}",
                    "test_left": f"{one['test']:.4f}",
                    "classifier_md5": tried[REFERENCE]["classifier_md5"],
                }
            )
        for one in generators(tried):
            kept = {name: one[name] for name in COLUMNS if name in one}
            left = {"val_left": f"{one['val']:.4f}", "test_left": f"{one['test']:.4f}"}
            table.writerow({**kept, "on": on, "epochs": one["training"]["epochs"], **left})
    return text.getvalue()


def generators(tried: dict[str, Tried]) -> Iterator[Tried]:
    """All but the reference."""
    return (one for name, one in tried.items() if name != REFERENCE)


def markdown(found: dict[str, dict[str, Tried]]) -> str:
    """The whole page."""
    return "\n".join([HEAD, *(_section(on, tried) for on, tried in found.items())])


def _section(on: str, tried: dict[str, Tried]) -> str:
    title = next(iter(tried.values()))["classifier"]
    lines = [
        "| generator | varies | what it is | MFLOP | val left, % | test left, % | shown to another, % |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for attack, one in tried.get(REFERENCE, {}).get("attacks", {}).items():
        lines.append(_line(attack.upper() if attack != "clean" else attack, "", "", one, ""))
    for one in generators(tried):
        shown = ", ".join(f"{name}: {100 * left:.1f}" for name, left in one["shown_to"].items())
        lines.append(_line(one["variant"], one["varies"], one["about"], one, shown))
    said = [f"* {sentence}" for sentence in sentences(tried)]
    return "\n".join([f"## Against {title}", "", *lines, *([""] if said else []), *said, ""])


def _line(name: str, varies: str, about: str, one: Tried, shown: str) -> str:
    figures = f"{one['mflop']:.1f} | {100 * one['val']:.1f} | {100 * one['test']:.1f}"
    return f"| {name} | {varies} | {about} | {figures} | {shown} |"


def sentences(tried: dict[str, Tried]) -> list[str]:
    """What matters, in the order of how much."""
    base = tried.get(BASE)
    if base is None:
        return []
    others = [one for one in generators(tried) if one["variant"] != BASE]
    others.sort(key=lambda one: one["val"])
    said = [_against(one, base) for one in others]
    attacks = tried.get(REFERENCE, {}).get("attacks", {})
    if "fgsm" in attacks and others:
        best, fgsm = min([base, *others], key=lambda one: one["val"]), attacks["fgsm"]
        said.append(
            f"The strongest, `{best['variant']}`, leaves {100 * best['val']:.1f} % of val at "
            f"{best['mflop']:.0f} MFLOP; FGSM leaves {100 * fgsm['val']:.1f} % at {fgsm['mflop']:.0f} MFLOP."
        )
    return said


def _against(one: Tried, base: Tried) -> str:
    by = one["val"] - base["val"]
    price = f"{one['mflop'] / base['mflop']:.2g} times the price"
    if abs(by) <= SAME:
        return (
            f"`{one['variant']}` ({one['varies']}) makes no difference above a point, at {price}."
        )
    better = "fewer" if by < 0 else "more"
    points = f"{abs(100 * by):.1f} points {better}"
    return f"`{one['variant']}` ({one['varies']}) leaves {points} than `base`, at {price}."


STARS = {"fgsm": "C1", "pgd-20": "C2"}
"""Attacks in the figure and their colours, the same in each panel."""


def draw(found: dict[str, dict[str, Tried]]) -> Figure:
    """A panel for each classifier: the widths as a line, every other variant, and the attacks."""
    from deepcustom.report.figures.page import new_figure

    figure = new_figure(4.6 * len(found), 4.4, "What is left of val, against the price of an image")
    panels = figure.subplots(1, len(found), sharex=True, sharey=True, squeeze=False)[0]
    kinds = dict.fromkeys(one["varies"] for tried in found.values() for one in generators(tried))
    others = [kind for kind in kinds if kind not in (BASE, WIDTH)]
    for axes, tried in zip(panels, found.values(), strict=True):
        made = list(generators(tried))
        line = sorted(
            (one for one in made if one["variant"] == BASE or one["varies"] == WIDTH),
            key=lambda one: one["mflop"],
        )
        if line:
            axes.plot(*_points(line), "C0o-", label="base, and other widths")
        for number, kind in enumerate(others):
            if some := [one for one in made if one["varies"] == kind]:
                axes.plot(*_points(some), "sD^vP"[number % 5], c=f"C{3 + number}", ms=5, label=kind)
        for attack, one in tried.get(REFERENCE, {}).get("attacks", {}).items():
            if attack in STARS:
                axes.plot(
                    [one["mflop"]],
                    [100 * one["val"]],
                    "*",
                    c=STARS[attack],
                    ms=12,
                    label=attack.upper(),
                )
        axes.set(xscale="log", xlabel="MFLOP an image", ylim=(0, None))
        axes.set_title(f"against {next(iter(tried.values()))['classifier']}", fontsize=10)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7.5)
    panels[0].set_ylabel("left of val, %")
    return figure


def _points(some: list[Tried]) -> tuple[list[float], list[float]]:
    return [one["mflop"] for one in some], [100 * one["val"] for one in some]
