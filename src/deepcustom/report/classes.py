"""Accuracy per class in Markdown, where classes are of very unequal size."""

from __future__ import annotations

import math
from collections.abc import Sequence

from deepcustom.evaluation.by_class import ClassAccuracy, unequal
from deepcustom.report.tables import escape

SHOWN = 20
"""The most classes in a table; of more, the rarest."""

WHY = """\
Some classes have many more images than others, so a network can look accurate, and robust, by answering with
the frequent ones. Each cell is the accuracy on the attacked images of one class, in %: on clean images, and
after the stroke in the worst case over everything that was tried.
"""


def class_section(rows: Sequence[ClassAccuracy]) -> str:
    """A section with a table of all networks, and what is suspicious; empty if classes are of like size."""
    if not unequal(rows):
        return ""
    networks = list(dict.fromkeys(row.network for row in rows))
    cells = {(row.network, row.label): row for row in rows}
    shown, note = _shown(rows)
    lines = [
        "| class | images | " + " | ".join(map(escape, networks)) + " |",
        "| --- | ---: |" + " ---: |" * len(networks),
    ]
    for label, n in shown.items():
        own = [_cell(cells.get((network, label))) for network in networks]
        lines.append(f"| {escape(label)} | {n:,} | " + " | ".join(own) + " |")
    blind = [f"* {line}" for network in networks if (line := _blind(rows, network))]
    parts = ["## Accuracy per class\n", WHY, "\n".join([*lines, ""]), note]
    if blind:
        parts.append("\n".join(["No clean image of these classes is right:\n", *blind, ""]))
    return "\n".join(part for part in parts if part)


def class_table(rows: Sequence[ClassAccuracy], network: str) -> str:
    """The table of one network; empty if classes are of like size, or nothing is known of the network."""
    own = [row for row in rows if row.network == network]
    if not unequal(own):
        return ""
    shown, note = _shown(own)
    lines = ["| class | n | clean, % | worst case, % |", "| --- | ---: | ---: | ---: |"]
    lines += [
        f"| {escape(row.label)} | {row.n:,} | {_percent(row.clean)} | {_percent(row.worst)} |"
        for row in own
        if row.label in shown
    ]
    return "\n".join(part for part in ["\n".join([*lines, ""]), note] if part)


def _shown(rows: Sequence[ClassAccuracy]) -> tuple[dict[str, int], str]:
    """The classes that a table shows → their images; and a note if these are not all."""
    sizes = {row.label: row.n for row in rows}
    if len(sizes) <= SHOWN:
        return sizes, ""
    rarest = set(sorted(sizes, key=lambda label: sizes[label])[:SHOWN])
    note = f"Shown are the {SHOWN} rarest of {len(sizes)} classes.\n"
    return {label: n for label, n in sizes.items() if label in rarest}, note


def _blind(rows: Sequence[ClassAccuracy], network: str) -> str:
    """The classes of which a network gets no clean image right; empty if there are none."""
    lost = [row.label for row in rows if row.network == network and row.n and row.clean == 0]
    more = f" and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
    return f"network **{network}**: {', '.join(lost[:SHOWN])}{more}" if lost else ""


def _cell(row: ClassAccuracy | None) -> str:
    if row is None or row.n == 0:
        return "-"
    return f"{_percent(row.clean)} / {_percent(row.worst)}"


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.1f}"
