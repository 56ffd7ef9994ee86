"""Tables of robust accuracies for the terminal: no name and no number is broken, whatever the width.

What does not fit is stacked in parts, or left out, and a line below says so and how to see it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deepcustom.evaluation.results import PROTOCOLS, HardenedWith, Result, percent, pivot
from deepcustom.report.tables import NAMES, ORDER, footnote, reading

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table
    from rich.text import Text

WIDTH = 100
"""Characters a line, for tables that are not printed to a terminal, and for prose on any."""
GAP = 2  # characters between two columns

Cells = Mapping[tuple[str, str], Result]
Column = Sequence["Text"]


@dataclass(frozen=True)
class Block:
    """One table, or a part of one, with its title above and its notes below.

    Attributes:
        title: what the numbers are.
        columns: the columns, each with its header first.
        notes: how to read the table, and what it leaves out.
        marks: whether a number is bold.
    """

    title: str
    columns: Sequence[Column]
    notes: Sequence[str] = ()
    marks: bool = False

    @property
    def width(self) -> int:
        """Characters that the table takes."""
        return sum(map(_width, self.columns)) - GAP

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Title, table and notes; without a rule where drawing is not wanted."""
        drawn = is_drawn(console)
        yield _text(self.title, "bold")
        yield _table(self.columns, self.width, drawn)
        notes = list(self.notes)
        if self.marks and drawn:
            notes.append("Bold: the attack that the network was hardened with.")
        if notes:
            room = options.update_width(min(options.max_width, WIDTH))
            yield from console.render(_text(" ".join(notes), "dim"), room)


def is_drawn(console: Console) -> bool:
    """Whether lines are drawn: on a terminal that is more than the simplest, or where colours are forced."""
    return console.is_terminal and not console.is_dumb_terminal


def blocks(
    results: Sequence[Result], dataset: str, hardened_with: HardenedWith, width: int = WIDTH
) -> list[Block]:
    """Tables for each protocol under which ``dataset`` has results, the headline first.

    No table holds two protocols, except the headline, which holds the worst case of each. Cells include
    the 95 % interval if the table then fits ``width`` characters. Where attacks in columns do not fit,
    networks may stand there; where neither fits, the table goes on in parts. Bold marks the attack that the
    network was hardened with.
    """
    return [
        block
        for protocol in ORDER
        for block in _of_protocol(results, dataset, protocol, hardened_with, width)
    ]


def _of_protocol(
    results: Iterable[Result],
    dataset: str,
    protocol: str,
    hardened_with: HardenedWith,
    width: int,
) -> list[Block]:
    networks, attacks, cells = pivot(results, dataset, protocol)
    if not cells:
        return []
    turns = (
        (False,) if protocol == "worst" else (False, True)
    )  # the headline's columns have a meaning
    full, short = (
        [_columns(networks, attacks, cells, hardened_with, interval, turned) for turned in turns]
        for interval in (True, False)
    )
    parts = next((p for way in full + short if len(p := _parts(way, width)) == 1), None)
    if parts is None:
        parts = min((_balanced(way, width) for way in short), key=len)
    headline = " (headline)" if protocol == "worst" else ""
    title = f"{dataset}: {NAMES[protocol].lower()}{headline}, accuracy in %"
    remark = reading(protocol, networks)
    notes = [PROTOCOLS[protocol], *([remark] if remark else []), footnote(cells.values())]
    notes += _left_out(parts, min(map(_whole, full)), min(map(_whole, short)), width)
    own = any((name, attack) in cells for name, attack in hardened_with.items())
    if len(parts) == 1:
        return [Block(title, parts[0], notes, own)]
    numbered = [f"{title} ({number} of {len(parts)})" for number in range(1, len(parts) + 1)]
    last = Block(numbered[-1], parts[-1], notes, own)
    return [*(Block(*pair) for pair in zip(numbered[:-1], parts[:-1], strict=True)), last]


def _columns(
    networks: Sequence[str],
    attacks: Sequence[str],
    cells: Cells,
    hardened_with: HardenedWith,
    interval: bool,
    turned: bool,
) -> list[Column]:
    """All columns, the one of names first: a column for each attack, or, turned, for each network."""
    across, down, corner = (
        (networks, attacks, "attack") if turned else (attacks, networks, "network")
    )
    columns: list[Column] = [[_text(name) for name in (corner, *down)]]
    for head in across:
        pairs = [(head, name) if turned else (name, head) for name in down]
        of = [_cell(cells.get(p), interval, hardened_with.get(p[0]) == p[1]) for p in pairs]
        columns.append([_text(head), *of])
    return columns


def _cell(result: Result | None, interval: bool, own: bool) -> Text:
    if result is None or result.empty:
        return _text(percent(result), "dim")
    share = f"{100 * result.accuracy:.{1 if interval else 2}f}"
    cell = _text("").append(share, "bold" if own else "")
    if interval:
        cell.append(f" [{100 * result.ci_low:.1f}, {100 * result.ci_high:.1f}]", "dim")
    return cell


def _parts(columns: Sequence[Column], width: int) -> list[list[Column]]:
    """The columns in as few parts as possible, each with the names and of at most ``width`` characters.

    A part has one column more than the names, however wide that is.
    """
    names, *others = columns
    parts: list[list[Column]] = []
    room = width + GAP - _width(names)
    left = 0
    for column in others:
        if not parts or left < _width(column):
            parts.append([names])
            left = room
        parts[-1].append(column)
        left -= _width(column)
    return parts


def _balanced(columns: Sequence[Column], width: int) -> list[list[Column]]:
    """As few parts, all of them as narrow as that allows, so that the last is no lonely column."""
    fewest = parts = _parts(columns, width)
    while len(parts) == len(fewest) and width > 0:
        fewest, width = parts, width - 1
        parts = _parts(columns, width)
    return fewest


def _left_out(
    parts: Sequence[Sequence[Column]], with_intervals: int, whole: int, width: int
) -> list[str]:
    """What a terminal of ``width`` characters does not show as one of the other two widths would."""
    found = []
    if len(parts) > 1:
        found.append(f"In {len(parts)} parts, for {width} columns: in {whole} it is one table.")
    if width < with_intervals:
        found.append(
            f"Left out: each number's interval, which {with_intervals} columns show, and --json."
        )
    return found


def _whole(columns: Sequence[Column]) -> int:
    return sum(map(_width, columns)) - GAP


def _width(column: Column) -> int:
    return GAP + max(text.cell_len for text in column)


def _text(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(text, style)


def _table(columns: Sequence[Column], width: int, drawn: bool) -> Table:
    """A table that keeps its width where the terminal is narrower: a broken name would be another one."""
    from rich import box
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD if drawn else None,
        show_edge=False,
        padding=(0, 1 if drawn else GAP, 0, 0),  # the box has a space between columns
        pad_edge=False,
        width=width,
    )
    for number, (header, *_) in enumerate(columns):
        table.add_column(header, justify="right" if number else "left", no_wrap=True)
    for row in zip(*(cells for _, *cells in columns), strict=True):
        table.add_row(*row)
    return table
