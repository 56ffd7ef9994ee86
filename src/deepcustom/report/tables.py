"""Tables of robust accuracies, on the terminal and in Markdown; protocols are never mixed.

Every statement is computed from the results; nothing about any network is written here.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from deepcustom.evaluation.results import (
    PROTOCOLS,
    HardenedWith,
    LabelLeak,
    Result,
    datasets_of,
    label_leaks,
    percent,
    pivot,
    weak_whitebox,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

_MARKED = re.compile(r"(<!-- results:([\w-]+):(\w+) -->).*?(<!-- /results -->)", re.DOTALL)

WIDTH = 100  # characters, for tables that are not printed to a terminal

NAMES = {
    "transfer": "Transfer protocol",
    "whitebox": "White-box protocol",
    "blackbox": "Black-box protocol",
    "adaptive": "Adaptive protocol",
    "worst": "Worst case",
}

ORDER = ("worst", *(name for name in PROTOCOLS if name != "worst"))
"""The protocols in the order in which they are shown: the headline first."""

TARGET_ROW = """The target network's own row is the exception: those images were made against it.
"""

HEADLINE = (
    "Each column is the worst case of one protocol; a network is at most as robust as its lowest number, "
    "and a stronger attack can only lower it."
)
"""How to read the table of the protocol ``worst``."""


def rich_tables(
    results: Sequence[Result], dataset: str, hardened_with: HardenedWith, width: int = WIDTH
) -> list[Table]:
    """Terminal tables for each protocol under which ``dataset`` has results, the headline first.

    No table holds two protocols, except the headline, which holds the worst case of each. Cells include
    the 95 % interval if the table then fits ``width`` characters. A protocol with too many attacks for
    one table continues in the next. Bold marks the attack that the network was hardened with.
    """
    return [
        table
        for protocol in ORDER
        for table in _protocol_tables(results, dataset, protocol, hardened_with, width)
    ]


def _protocol_tables(
    results: Iterable[Result],
    dataset: str,
    protocol: str,
    hardened_with: HardenedWith,
    width: int,
) -> list[Table]:
    networks, attacks, cells = pivot(results, dataset, protocol)
    if not cells:
        return []
    names = [_text(name) for name in ("network", *networks)]
    # Show the intervals if all columns then fit in one table.
    for interval in (True, False):
        columns = [
            [
                _text(a.replace("-", "-\n")),
                *(
                    _rich_cell(cells.get((n, a)), interval, hardened_with.get(n) == a)
                    for n in networks
                ),
            ]
            for a in attacks
        ]
        groups = _groups(columns, width - _width(names))
        if len(groups) == 1:
            break
    # One table for each group of columns, and a caption below the first.
    headline = " (headline)" if protocol == "worst" else ""
    title = f"{dataset}: {NAMES[protocol].lower()}{headline}, accuracy in %"
    tables = [
        _rich_table([names, *group], title + (", continued" if number else ""))
        for number, group in enumerate(groups)
    ]
    remark = reading(protocol, networks)
    caption = " ".join(
        [PROTOCOLS[protocol], *([remark] if remark else []), footnote(cells.values())]
    )
    tables[0].caption = _text(caption, "dim")
    return tables


def reading(protocol: str, networks: Iterable[str]) -> str:
    """What else the reader of the table of ``protocol`` has to know; empty if nothing."""
    if protocol == "worst":
        return HEADLINE
    return TARGET_ROW.strip() if protocol == "transfer" and "target" in networks else ""


def _text(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(text, style)


def _rich_cell(result: Result | None, interval: bool, own: bool) -> Text:
    if result is None or result.empty:
        return _text(percent(result), "dim")
    share = f"{100 * result.accuracy:.{1 if interval else 2}f}"
    cell = _text("").append(share, "bold" if own else "")
    if interval:
        cell.append(f" [{100 * result.ci_low:.1f}, {100 * result.ci_high:.1f}]", "dim")
    return cell


def _groups(columns: Sequence[list[Text]], room: int) -> list[list[list[Text]]]:
    """Split the columns into as few groups as possible, each of at most ``room`` characters."""
    groups: list[list[list[Text]]] = [[]]
    left = room
    for column in columns:
        if groups[-1] and left < _width(column):
            groups.append([])
            left = room
        groups[-1].append(column)
        left -= _width(column)
    return groups


def _width(column: Sequence[Text]) -> int:
    return 2 + max(line.cell_len for text in column for line in text.split("\n"))


def _rich_table(columns: Sequence[Sequence[Text]], title: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(
        title=_text(title, "bold"),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    for number, (header, *_) in enumerate(columns):
        table.add_column(header, justify="right" if number else "left", vertical="bottom")
    for row in zip(*(cells for _, *cells in columns), strict=True):
        table.add_row(*row)
    return table


def print_tables(
    results: Sequence[Result],
    hardened_with: Mapping[str, HardenedWith],
    console: Console | None = None,
) -> None:
    """Print the tables of every subject, and below them what is suspicious about the numbers.

    Args:
        results: results of one subject or of several.
        hardened_with: subject → network → the attack it was hardened with.
        console: where to print; None: on the terminal.
    """
    from rich.console import Console

    if console is None:
        console = Console(width=None if sys.stdout.isatty() else WIDTH)
    for dataset in datasets_of(results):
        by = hardened_with.get(dataset, {})
        for table in rich_tables(results, dataset, by, console.width):
            console.print(table, "")
        lines = [f"label leak: {leak_line(leak)}" for leak in label_leaks(results, dataset, by)]
        lines += [f"weak attack: {weak_line(*pair)}" for pair in weak_whitebox(results, dataset)]
        for line in lines:
            console.print(_text(f"{dataset}, {line.replace('**', '').replace('`', '')}"))


def markdown_table(results: Iterable[Result], dataset: str, protocol: str) -> str:
    """The table of one protocol in GitHub's Markdown, accuracy in % with two decimals.

    An empty set shows as ``empty``, a pair that was not measured as ``-``.
    """
    networks, attacks, cells = pivot(results, dataset, protocol)
    rows = [["network", *attacks]]
    rows += [[n, *(percent(cells.get((n, attack))) for attack in attacks)] for n in networks]
    lines = ["| " + " | ".join(map(escape, row)) + " |" for row in rows]
    lines.insert(1, "| --- |" + " ---: |" * len(attacks))
    return "\n".join(lines) + "\n"


def fill_tables(text: str, results: Sequence[Result]) -> str:
    """``text`` with a fresh table between each pair of its markers.

    A table stands between ``<!-- results:DATASET:PROTOCOL -->`` and ``<!-- /results -->``.
    """

    def fresh(block: re.Match[str]) -> str:
        return f"{block[1]}\n{markdown_table(results, block[2], block[3])}\n{block[4]}"

    return _MARKED.sub(fresh, text)


def footnote(cells: Iterable[Result]) -> str:
    """How many images the cells are over, and how far the intervals reach."""
    cells = list(cells)
    sizes = sorted({cell.n for cell in cells})
    known = [cell for cell in cells if not cell.empty]
    if len(sizes) == 1:
        text = f"n = {sizes[0]:,} images in each cell"
    else:
        text = f"n = {sizes[0]:,} to {sizes[-1]:,} images, so not all cells use the same images"
    if known:
        reach = max(max(c.ci_high - c.accuracy, c.accuracy - c.ci_low) for c in known)
        text += (
            f"; the 95 % Wilson interval extends at most {100 * reach:.2f} points to either side"
        )
    return text + "."


def escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def weak_line(own: Result, other: Result) -> str:
    """Say in words that an attack that knows the network does worse than one that does not."""
    return (
        f"network **{own.network}** keeps {percent(own)} % when `{own.attack}` attacks it directly, "
        f"but {percent(other)} % on `{other.attack}` images made against the target network."
    )


def leak_line(leak: LabelLeak) -> str:
    """Say in words that a network does better under its own attack than on clean images."""
    certainty = (
        "the 95 % intervals do not overlap"
        if leak.clear
        else "the 95 % intervals overlap, so it may be chance"
    )
    return (
        f"network **{leak.own.network}**: {percent(leak.own)} % on `{leak.own.attack}`, "
        f"{percent(leak.clean)} % on clean images ({certainty})."
    )
