"""Tables of robust accuracies in Markdown, and sentences about them; protocols are never mixed.

Every statement is computed from the results; nothing about any network is written here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from deepcustom.evaluation.results import (
    PROTOCOLS,
    LabelLeak,
    Result,
    percent,
    pivot,
)

_MARKED = re.compile(r"(<!-- results:([\w-]+):(\w+) -->).*?(<!-- /results -->)", re.DOTALL)

NAMES = {
    "transfer": "Transfer protocol",
    "whitebox": "White-box protocol",
    "blackbox": "Black-box protocol",
    "adaptive": "Adaptive protocol",
    "autoattack": "AutoAttack",
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


def reading(protocol: str, networks: Iterable[str]) -> str:
    """What else the reader of the table of ``protocol`` has to know; empty if nothing."""
    if protocol == "worst":
        return HEADLINE
    return TARGET_ROW.strip() if protocol == "transfer" and "target" in networks else ""


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
