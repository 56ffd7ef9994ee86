"""Results in words and tables: on the terminal, and as a page. The two protocols are never mixed.

Every statement is computed from the results; nothing about any network is written here.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from deepcustom.results import (
    CLEAN,
    PROTOCOLS,
    LabelLeak,
    Result,
    datasets_of,
    label_leaks,
    own_attacks,
    percent,
    pivot,
    trained_on,
    weak_whitebox,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

_MARKED = re.compile(r"(<!-- results:(\w+):(\w+) -->).*?(<!-- /results -->)", re.DOTALL)

WIDTH = 100  # of tables that go to no terminal

NAMES = {"transfer": "Transfer protocol", "whitebox": "White-box protocol"}

TARGET_ROW = """The target network's own row is the exception: those images were made against it.
"""
UPPER_BOUND = """\
The lowest number of a row is an upper bound on that network's robust accuracy: the attacks taken
together, image by image, can only leave less, and so can a stronger attack.
"""
LEAK_HEAD = """## Label leak

An attack should make images harder, never easier. Does a network do better on the attack it was
hardened with than on clean images?
"""
LEAK_REASON = """\
Where the true label chooses what is done to an image (which DGN makes it, or for FGSM and PGD the
direction of the step), the network can learn to recognise the label's watermark. An attacker has no
reason to stamp the right answer on an image, so such a number is no evidence of robustness (label
leaking: Kurakin, Goodfellow and Bengio 2017, [arXiv:1611.01236](https://arxiv.org/abs/1611.01236)).
"""


# --- tables -------------------------------------------------------------------------------------


def rich_tables(results: Sequence[Result], dataset: str, width: int = WIDTH) -> list[Table]:
    """Terminal tables for each protocol under which ``dataset`` has results; none holds both.

    With the 95 % interval in each cell where that fits ``width`` characters, else without; a
    protocol with too many attacks for one table is continued in the next. Bold: the attack that
    the network was hardened with.
    """
    return [
        table
        for protocol in PROTOCOLS
        for table in _protocol_tables(results, dataset, protocol, width)
    ]


def _protocol_tables(
    results: Iterable[Result], dataset: str, protocol: str, width: int
) -> list[Table]:
    networks, attacks, cells = pivot(results, dataset, protocol)
    if not cells:
        return []
    names = [_text(name) for name in ("network", *networks)]
    for interval in (True, False):
        columns = [
            [
                _text(a.replace("-", "-\n")),
                *(_rich_cell(cells.get((n, a)), interval) for n in networks),
            ]
            for a in attacks
        ]
        groups = _groups(columns, width - _width(names))
        if len(groups) == 1:
            break
    title = f"{dataset}: {NAMES[protocol].lower()}, accuracy in %"
    tables = [
        _rich_table([names, *group], title + (", continued" if number else ""))
        for number, group in enumerate(groups)
    ]
    own_row = TARGET_ROW.strip() + " " if protocol == "transfer" else ""
    caption = f"{PROTOCOLS[protocol]} {own_row}{_footnote(cells.values())}"
    tables[0].caption = _text(caption, "dim")
    return tables


def _text(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(text, style)


def _rich_cell(result: Result | None, interval: bool) -> Text:
    if result is None or result.empty:
        return _text(percent(result), "dim")
    own = trained_on(result.network) == result.attack
    share = f"{100 * result.accuracy:.{1 if interval else 2}f}"
    cell = _text("").append(share, "bold" if own else "")
    if interval:
        cell.append(f" [{100 * result.ci_low:.1f}, {100 * result.ci_high:.1f}]", "dim")
    return cell


def _groups(columns: Sequence[list[Text]], room: int) -> list[list[list[Text]]]:
    """The columns in as few runs as fit side by side into ``room`` characters."""
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


def print_tables(results: Sequence[Result], console: Console | None = None) -> None:
    """Print the tables of every data set, and below them what is suspicious about the numbers."""
    from rich.console import Console

    if console is None:
        console = Console(width=None if sys.stdout.isatty() else WIDTH)
    for dataset in datasets_of(results):
        for table in rich_tables(results, dataset, console.width):
            console.print(table, "")
        lines = [f"label leak: {_leak_line(leak)}" for leak in label_leaks(results, dataset)]
        lines += [f"weak attack: {_weak_line(*pair)}" for pair in weak_whitebox(results, dataset)]
        for line in lines:
            console.print(_text(f"{dataset}, {line.replace('**', '').replace('`', '')}"))


def markdown_table(results: Iterable[Result], dataset: str, protocol: str) -> str:
    """The table of one protocol in GitHub's Markdown, accuracy in % with two decimals.

    A set that was empty reads ``empty``, a pair that was not measured ``-``.
    """
    networks, attacks, cells = pivot(results, dataset, protocol)
    rows = [["network", *attacks]]
    rows += [[n, *(percent(cells.get((n, attack))) for attack in attacks)] for n in networks]
    lines = ["| " + " | ".join(map(_escape, row)) + " |" for row in rows]
    lines.insert(1, "| --- |" + " ---: |" * len(attacks))
    return "\n".join(lines) + "\n"


def fill_tables(text: str, results: Sequence[Result]) -> str:
    """``text`` with a fresh table between each pair of its markers.

    A table stands between ``<!-- results:DATASET:PROTOCOL -->`` and ``<!-- /results -->``.
    """

    def fresh(block: re.Match[str]) -> str:
        return f"{block[1]}\n{markdown_table(results, block[2], block[3])}\n{block[4]}"

    return _MARKED.sub(fresh, text)


def _footnote(cells: Iterable[Result]) -> str:
    """How many images, and how far the intervals reach."""
    cells = list(cells)
    sizes = sorted({cell.n for cell in cells})
    known = [cell for cell in cells if not cell.empty]
    if len(sizes) == 1:
        text = f"n = {sizes[0]:,} images in each cell"
    else:
        text = f"n = {sizes[0]:,} to {sizes[-1]:,} images, so not every cell is over the same ones"
    if known:
        reach = max(max(c.ci_high - c.accuracy, c.accuracy - c.ci_low) for c in known)
        text += f"; the 95 % Wilson interval reaches at most {100 * reach:.2f} points to a side"
    return text + "."


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


# --- page ---------------------------------------------------------------------------------------


def page(
    dataset_title: str,
    results: Sequence[Result],
    dataset: str,
    *,
    curves: Mapping[str, str],
    grids: Mapping[str, str],
    facts: Mapping[str, str | int | float],
    heatmaps: Mapping[str, str] | None = None,
) -> str:
    """The report of one data set as Markdown.

    Args:
        dataset_title: name of the data set for people.
        results: all results; those of other data sets are left out.
        dataset: name of the data set in ``results``.
        curves: caption -> link of the picture of training curves.
        grids: caption -> link of the grid of images.
        facts: what else the reader should know, name -> value.
        heatmaps: protocol -> link of its heat map.
    """
    parts = [f"# {_escape(dataset_title)}: robust accuracy\n", _facts(facts), _reading()]
    for protocol in PROTOCOLS:
        link = (heatmaps or {}).get(protocol)
        parts.append(_protocol_section(results, dataset, protocol, link))
    parts += [_side_by_side(results, dataset), _leak_section(results, dataset)]
    parts += [_pictures("Images", grids), _pictures("Training curves", curves)]
    return "\n".join(part for part in parts if part)


def _facts(facts: Mapping[str, str | int | float]) -> str:
    rows = [f"| {_escape(str(name))} | {_escape(str(value))} |" for name, value in facts.items()]
    return "\n".join(["| fact | value |", "| --- | --- |", *rows, ""]) if rows else ""


def _reading() -> str:
    protocols = "\n".join(f"* **{NAMES[name]}.** {text}" for name, text in PROTOCOLS.items())
    return f"""## How to read this

Every number is the share of images classified correctly, in %. There are two protocols, and they
answer different questions:

{protocols}

Both facts belong side by side, and they are never mixed: no table or picture below holds both,
and no average runs over both.
"""


def _protocol_section(
    results: Iterable[Result], dataset: str, protocol: str, heatmap: str | None
) -> str:
    results = list(results)
    head = f"## {NAMES[protocol]}\n\n{PROTOCOLS[protocol]}\n"
    cells = pivot(results, dataset, protocol)[2]
    if not cells:
        return f"{head}\nNothing was measured under this protocol.\n"
    parts = [head, markdown_table(results, dataset, protocol), _footnote(cells.values()) + "\n"]
    if heatmap:
        parts.append(f"![{NAMES[protocol]}, accuracy in %]({heatmap})\n")
    parts.append(_whitebox_remarks(results, dataset) if protocol == "whitebox" else TARGET_ROW)
    return "\n".join(parts)


def _whitebox_remarks(results: Sequence[Result], dataset: str) -> str:
    weak = weak_whitebox(results, dataset)
    if not weak:
        return UPPER_BOUND
    lines = "\n".join(f"* {_weak_line(own, other)}" for own, other in weak)
    return f"""{UPPER_BOUND}
An attack that knows the network should not do worse than one that does not. Here it does, which
points to masked gradients or to too few steps, so these cells overstate the robustness:

{lines}
"""


def _weak_line(own: Result, other: Result) -> str:
    return (
        f"network **{own.network}** keeps {percent(own)} % when `{own.attack}` attacks it itself, "
        f"but {percent(other)} % on `{other.attack}` images made against the target network."
    )


def _side_by_side(results: Sequence[Result], dataset: str) -> str:
    """One line per network that has a number under both protocols."""
    networks, _, transfer = pivot(results, dataset, "transfer")
    _, _, whitebox = pivot(results, dataset, "whitebox")
    lines = []
    for network in networks:
        own = transfer.get((network, trained_on(network)))
        if own is None or own.empty:
            own = _lowest(transfer.values(), network)
        worst = _lowest(whitebox.values(), network)
        if own and worst:
            kind = "it was hardened with" if trained_on(network) == own.attack else "hardest for it"
            lines.append(
                f"* network **{network}**: {percent(own)} % on transferred `{own.attack}` images "
                f"(the attack {kind}); {percent(worst)} % when `{worst.attack}` attacks it itself."
            )
    return "\n".join(["## Both facts, side by side\n", *lines, ""]) if lines else ""


def _lowest(cells: Iterable[Result], network: str) -> Result | None:
    """The attack that hurts ``network`` most."""
    own = [c for c in cells if c.network == network and c.attack != CLEAN and not c.empty]
    return min(own, key=lambda cell: cell.accuracy, default=None)


def _leak_section(results: Sequence[Result], dataset: str) -> str:
    checked = own_attacks(results, dataset)
    leaks = label_leaks(results, dataset)
    if not checked:
        return f"{LEAK_HEAD}\nNo network was scored on its own attack, so nothing was checked.\n"
    if not leaks:
        names = ", ".join(own.network for _, own in checked)
        return f"{LEAK_HEAD}\nNone of the networks checked ({names}) does.\n"
    lines = "\n".join(f"* {_leak_line(leak)}" for leak in leaks)
    return f"{LEAK_HEAD}\nOf the {len(checked)} networks checked:\n\n{lines}\n\n{LEAK_REASON}"


def _leak_line(leak: LabelLeak) -> str:
    certainty = (
        "the 95 % intervals lie apart"
        if leak.clear
        else "the 95 % intervals overlap, so it may be chance"
    )
    return (
        f"network **{leak.own.network}**: {percent(leak.own)} % on `{leak.own.attack}`, "
        f"{percent(leak.clean)} % on clean images ({certainty})."
    )


def _pictures(title: str, links: Mapping[str, str]) -> str:
    blocks = [
        f"**{_escape(name)}**\n\n![{_escape(name)}]({link})\n" for name, link in links.items()
    ]
    return "\n".join([f"## {title}\n", *blocks]) if blocks else ""
