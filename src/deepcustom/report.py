"""The page of a data set: its results in words, tables and pictures.

Every statement is computed from the results; nothing about any network is written here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from deepcustom.results import (
    CLEAN,
    PROTOCOLS,
    Result,
    label_leaks,
    own_attacks,
    percent,
    pivot,
    trained_on,
    weak_whitebox,
)
from deepcustom.tables import (
    NAMES,
    TARGET_ROW,
    escape,
    footnote,
    leak_line,
    markdown_table,
    weak_line,
)

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
    parts = [f"# {escape(dataset_title)}: robust accuracy\n", _facts(facts), _reading()]
    for protocol in PROTOCOLS:
        link = (heatmaps or {}).get(protocol)
        parts.append(_protocol_section(results, dataset, protocol, link))
    parts += [_side_by_side(results, dataset), _leak_section(results, dataset)]
    parts += [_pictures("Images", grids), _pictures("Training curves", curves)]
    return "\n".join(part for part in parts if part)


def _facts(facts: Mapping[str, str | int | float]) -> str:
    rows = [f"| {escape(str(name))} | {escape(str(value))} |" for name, value in facts.items()]
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
    parts = [head, markdown_table(results, dataset, protocol), footnote(cells.values()) + "\n"]
    if heatmap:
        parts.append(f"![{NAMES[protocol]}, accuracy in %]({heatmap})\n")
    parts.append(_whitebox_remarks(results, dataset) if protocol == "whitebox" else TARGET_ROW)
    return "\n".join(parts)


def _whitebox_remarks(results: Sequence[Result], dataset: str) -> str:
    weak = weak_whitebox(results, dataset)
    if not weak:
        return UPPER_BOUND
    lines = "\n".join(f"* {weak_line(own, other)}" for own, other in weak)
    return f"""{UPPER_BOUND}
An attack that knows the network should not do worse than one that does not. Here it does, which
points to masked gradients or to too few steps, so these cells overstate the robustness:

{lines}
"""


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
    lines = "\n".join(f"* {leak_line(leak)}" for leak in leaks)
    return f"{LEAK_HEAD}\nOf the {len(checked)} networks checked:\n\n{lines}\n\n{LEAK_REASON}"


def _pictures(title: str, links: Mapping[str, str]) -> str:
    blocks = [f"**{escape(name)}**\n\n![{escape(name)}]({link})\n" for name, link in links.items()]
    return "\n".join([f"## {title}\n", *blocks]) if blocks else ""
