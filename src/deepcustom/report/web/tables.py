"""Tables of the page as plain rows, for the template: cells, what they are called, and what they trace to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deepcustom.evaluation.check_table import FAILED
from deepcustom.evaluation.checks import Check
from deepcustom.evaluation.results import CLEAN, Result, percent, pivot
from deepcustom.report.page import FAILED_OTHERWISE
from deepcustom.report.tables import NAMES, footnote, reading
from deepcustom.report.web.subject import Subject, Suspiciousness

TOP = 5
"""The most suspicious units of a class that a table names."""
NO_CELL = "-"


@dataclass(frozen=True)
class Cell:
    """A cell: its text, what it can be traced by, and a remark that a pointer shows."""

    text: str
    trace: str = ""
    note: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        key: the end of its address in the page, and the name of its CSV file.
        caption: says what it shows.
        head: names of the columns; the first is that of the row's own name.
        rows: their cells; the first is the row's name.
        note: what the reader has to know besides.
        numeric: whether the cells after the first are numbers.
    """

    key: str
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    numeric: bool = True


def protocol_table(subject: Subject, protocol: str) -> Table | None:
    """The accuracies under one protocol; None where there are none."""
    networks, attacks, cells = pivot(subject.results, subject.name, protocol)
    if not cells:
        return None
    rows = [
        [Cell(name), *(_number(cells.get((name, attack)), subject) for attack in attacks)]
        for name in networks
    ]
    remark = reading(protocol, networks)
    return Table(
        f"{subject.name}-{protocol}",
        f"{subject.title}, {NAMES[protocol].lower()}: accuracy in %",
        ["network", *attacks],
        rows,
        " ".join(filter(None, [remark, footnote(cells.values())])),
    )


def _number(cell: Result | None, subject: Subject) -> Cell:
    if cell is None or cell.empty:
        return Cell(NO_CELL)
    own = subject.hardened_with.get(cell.network) == cell.attack
    note = f"95 % interval {100 * cell.ci_low:.2f} to {100 * cell.ci_high:.2f}, {cell.n:,} images"
    if own:
        note += "; the attack that it was hardened with"
    what = "/".join((cell.dataset, cell.network, cell.protocol, cell.attack))
    return Cell(percent(cell), what, note, "own" if own else "")


def checks_table(subject: Subject, checks: Sequence[Check]) -> Table:
    """Every check, those that fail first."""
    order = ("fail", "warn", "ok")
    rows = [
        [
            Cell(c.name),
            Cell(c.verdict, kind=c.verdict),
            Cell(c.about),
            Cell(c.text),
            Cell(_meaning(c)),
        ]
        for c in sorted(checks, key=lambda one: order.index(one.verdict))
    ]
    return Table(
        f"{subject.name}-checks",
        f"{subject.title}: checks of the evaluation",
        ["check", "verdict", "about", "found", "what a failure means"],
        rows,
        numeric=False,
    )


def _meaning(check: Check) -> str:
    return "" if check.verdict == "ok" else FAILED.get(check.name, FAILED_OTHERWISE)


def pairs_table(subject: Subject) -> Table | None:
    """Networks compared two by two; None where there is no pair."""
    rows = [
        [
            Cell(one.first),
            Cell(one.second),
            Cell(f"{one.only_first:,}"),
            Cell(f"{one.only_second:,}"),
            Cell(f"{one.p:.3f}" if one.p >= 0.001 else "< 0.001"),
        ]
        for one in subject.pairs
    ]
    head = ["first", "second", "only the first", "only the second", "p"]
    return (
        Table(f"{subject.name}-pairs", f"{subject.title}: pairwise comparison", head, rows)
        if rows
        else None
    )


def units_table(subject: Subject, found: Suspiciousness, classes: Sequence[str]) -> Table:
    """The most suspicious units of each class, by name."""
    rows = []
    for label, name in enumerate(classes):
        scored = [
            (float(scores[label][unit]), layer, int(unit))
            for layer, scores in found.scores.items()
            for unit in found.suspicious[layer][label].nonzero()[0]
        ]
        first = sorted(scored, key=lambda one: (-one[0], one[1], one[2]))[:TOP]
        words = ", ".join(f"{layer} {unit} ({score:.2f})" for score, layer, unit in first)
        rows.append([Cell(name), Cell(f"{int(found.failures[label]):,}"), Cell(words or NO_CELL)])
    return Table(
        f"{subject.name}-units",
        f"{subject.title}: the {TOP} most suspicious units of each class, with their scores",
        ["class", "images wrong", "units: layer, number, score"],
        rows,
        numeric=False,
    )


def cost_table(subject: Subject, protocol: str, seconds: Mapping[str, float]) -> Table | None:
    """What each attack of one protocol cost, over all networks."""
    _, attacks, cells = pivot(subject.results, subject.name, protocol)
    rows = []
    for attack in attacks:
        own = [cell for (_, name), cell in cells.items() if name == attack and not cell.empty]
        if attack == CLEAN or not own:
            continue
        took: Any = [seconds.get(f"{cell.network}/{protocol}/{attack}") for cell in own]
        known = [one for one in took if one is not None]
        if protocol == "transfer":
            price = subject.made.get(attack)
            known = [] if price is None else [price]
        lowest = min(own, key=lambda cell: cell.accuracy)
        rows.append(
            [
                Cell(attack),
                Cell(f"{sum(c.gradients for c in own) / sum(c.n for c in own):,.1f}"),
                Cell(f"{sum(c.queries for c in own) / sum(c.n for c in own):,.1f}"),
                Cell(f"{sum(known) / len(known):,.2f}" if known else NO_CELL),
                Cell(percent(lowest), "/".join((lowest.dataset, lowest.network, protocol, attack))),
                Cell(lowest.network),
            ]
        )
    if not rows:
        return None
    second = "seconds for 1,000 images" if protocol == "transfer" else "seconds"
    head = [
        "attack",
        "gradients an image",
        "queries an image",
        second,
        "lowest accuracy left",
        "of network",
    ]
    note = "Means over the networks; an attack gets only the images that others before it left."
    if protocol == "transfer":
        note = "The images are made once, and shown to each network."
    caption = f"{subject.title}, {NAMES[protocol].lower()}: what an attack costs"
    return Table(f"{subject.name}-{protocol}-cost", caption, head, rows, note)


def curve_table(subject: Subject, curve: str, caption: str) -> Table:
    """The points of the chart of ``curve``, ``eps`` or ``steps``: a row for each network."""
    own = [(network, one) for network, one in subject.points if one.curve == curve]
    at = sorted({getattr(one, curve) for _, one in own})
    cells = {(network, getattr(one, curve)): one.accuracy for network, one in own}
    networks = list(dict.fromkeys(network for network, _ in own))
    rows = [
        [Cell(name), *(Cell(_share(cells.get((name, place)))) for place in at)] for name in networks
    ]
    head = ["network", *(f"{curve} {place:g}" for place in at)]
    return Table(f"{subject.name}-{curve}-points", f"{caption}, in %", head, rows)


def _share(accuracy: float | None) -> str:
    return NO_CELL if accuracy is None or accuracy != accuracy else f"{100 * accuracy:.1f}"
