"""The page of a subject: its results in words, tables and pictures.

Every statement is computed from the results; nothing about any network is written here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deepcustom.evaluation.check_table import FAILED
from deepcustom.evaluation.results import (
    ALL,
    CLEAN,
    PROTOCOLS,
    HardenedWith,
    Result,
    label_leaks,
    own_attacks,
    percent,
    pivot,
    weak_whitebox,
)
from deepcustom.report.classes import class_section
from deepcustom.report.headline import RULE, TARGET, sentences
from deepcustom.report.tables import (
    NAMES,
    ORDER,
    escape,
    footnote,
    leak_line,
    markdown_table,
    reading,
    weak_line,
)

if TYPE_CHECKING:
    from deepcustom.evaluation.by_class import ClassAccuracy
    from deepcustom.evaluation.checks import Check
    from deepcustom.evaluation.statistics import PairedTest

APART = """\
Protocols are never mixed: no table or picture below shows more than one, and no average mixes them.
"""
MIXED = f"""{APART}
The one exception is the headline: each of its columns is the worst case of one protocol, and `all` is
the worst case over everything, on the same images.
"""

UPPER_BOUND = """\
The lowest number of a row is an upper bound on that network's robust accuracy: all attacks taken
together, image by image, or a stronger attack, can only lower it.
"""
LEAK_HEAD = """## Label leak

An attack should make images harder, never easier. Does a network do better on the attack it was
hardened with than on clean images?
"""
LEAK_REASON = """\
Where the true label decides how an image is changed (which DGN makes it or, for FGSM and PGD, the
direction of the step), the network can learn to read the change as a watermark of the label. An attacker
has no reason to stamp the right answer on an image, so such a number is not evidence of robustness (label
leaking: Kurakin, Goodfellow and Bengio 2017, [arXiv:1611.01236](https://arxiv.org/abs/1611.01236)).
"""

CURVES = """\
PGD from one random start on the first images, so these numbers can be higher than those in the tables.
Accuracy should fall to about 0 as eps grows, and level off as steps are added; otherwise the attack was
misled or stopped too early.
"""
SIGNIFICANT = 0.05
PAIRS = """\
For each pair of networks: how many images only one of the two still gets right under everything that was
tried, and McNemar's exact test, where p is the probability of a split at least as uneven if both were
equally robust. Every network is compared with the target network, and networks with any accuracy left are
also compared with each other.
"""
FAILED_OTHERWISE = "do not trust numbers that depend on it."


@dataclass(frozen=True)
class Pictures:
    """Links to the pictures; for each kind a mapping from protocol or caption to link.

    Attributes:
        heatmaps: protocol → heat map.
        grids: caption → grid of images.
        curves: caption → training curves.
        robustness: caption → accuracy against eps, or against steps.
    """

    heatmaps: Mapping[str, str] = field(default_factory=dict)
    grids: Mapping[str, str] = field(default_factory=dict)
    curves: Mapping[str, str] = field(default_factory=dict)
    robustness: Mapping[str, str] = field(default_factory=dict)


def page(
    dataset_title: str,
    results: Sequence[Result],
    dataset: str,
    *,
    hardened_with: HardenedWith,
    facts: Mapping[str, str | int | float],
    pictures: Pictures,
    checks: Sequence[Check] | None = None,
    pairs: Sequence[PairedTest] = (),
    classes: Sequence[ClassAccuracy] = (),
) -> str:
    """The page of one subject as Markdown.

    Args:
        dataset_title: name of the data set for people.
        results: all results; those of other subjects are left out.
        dataset: name of the subject in ``results``.
        hardened_with: network → the attack it was hardened with.
        facts: what else the reader should know, name → value.
        pictures: the pictures that the page shows.
        checks: the checks of the evaluation; None if they are not known.
        pairs: paired tests of networks on the same images.
        classes: accuracies per class; shown if classes are of very unequal size.
    """
    parts = [f"# {escape(dataset_title)}: robust accuracy\n", _facts(facts)]
    parts.append(_reading(results, dataset))
    for protocol in ORDER:
        link = pictures.heatmaps.get(protocol)
        parts.append(_protocol_section(results, dataset, protocol, link))
    parts.append(class_section(classes))
    parts.append(_side_by_side(results, dataset, hardened_with))
    parts.append(_leak_section(results, dataset, hardened_with))
    parts.append("" if checks is None else _checks_section(checks))
    parts += [_robustness(pictures.robustness), _pairs_section(results, dataset, pairs)]
    parts += [_pictures("Images", pictures.grids), _pictures("Training curves", pictures.curves)]
    return "\n".join(part for part in parts if part)


def _facts(facts: Mapping[str, str | int | float]) -> str:
    rows = [f"| {escape(str(name))} | {escape(str(value))} |" for name, value in facts.items()]
    return "\n".join(["| fact | value |", "| --- | --- |", *rows, ""]) if rows else ""


def _reading(results: Sequence[Result], dataset: str) -> str:
    there = [name for name in ORDER if pivot(results, dataset, name)[2]]
    if not there:
        return "Nothing was measured.\n"
    protocols = "\n".join(f"* **{NAMES[name]}.** {PROTOCOLS[name]}" for name in there)
    return f"""## How to read this

Every number is the share of images classified correctly, in %. A protocol says who attacks what; each
answers its own question:

{protocols}

{MIXED if "worst" in there else APART}"""


def _protocol_section(
    results: Sequence[Result], dataset: str, protocol: str, heatmap: str | None
) -> str:
    networks, _, cells = pivot(results, dataset, protocol)
    if not cells:
        return ""
    title = f"Headline: {NAMES[protocol].lower()}" if protocol == "worst" else NAMES[protocol]
    parts = [f"## {title}\n\n{PROTOCOLS[protocol]}\n", markdown_table(results, dataset, protocol)]
    parts.append(footnote(cells.values()) + "\n")
    if heatmap:
        parts.append(f"![{NAMES[protocol]}, accuracy in %]({heatmap})\n")
    remark = reading(protocol, networks)
    if remark:
        parts.append(f"{remark}\n")
    if protocol == "worst":
        parts.append(_sentences(results, dataset))
    if protocol == "whitebox":
        parts.append(_whitebox_remarks(results, dataset))
    return "\n".join(parts)


def _sentences(results: Sequence[Result], dataset: str) -> str:
    lines = "\n".join(f"* {sentence}" for sentence in sentences(results, dataset).values())
    return f"What each network does and does not withstand. {RULE}\n\n{lines}\n"


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


def _side_by_side(results: Sequence[Result], dataset: str, hardened_with: HardenedWith) -> str:
    """One line per network: its accuracy on transferred images, and when it is attacked directly."""
    networks, _, transfer = pivot(results, dataset, "transfer")
    _, _, whitebox = pivot(results, dataset, "whitebox")
    lines = []
    for network in networks:
        by = hardened_with.get(network, "")
        own = transfer.get((network, by))
        if own is None or own.empty:
            own = _lowest(transfer.values(), network)
        worst = _lowest(whitebox.values(), network)
        if own and worst:
            kind = "it was hardened with" if own.attack == by else "hardest for it"
            lines.append(
                f"* network **{network}**: {percent(own)} % on transferred `{own.attack}` images "
                f"(the attack {kind}); {percent(worst)} % when `{worst.attack}` attacks it directly."
            )
    return (
        "\n".join(["## Transferred and direct attacks, side by side\n", *lines, ""])
        if lines
        else ""
    )


def _lowest(cells: Iterable[Result], network: str) -> Result | None:
    """The attack that hurts ``network`` most."""
    own = [c for c in cells if c.network == network and c.attack != CLEAN and not c.empty]
    return min(own, key=lambda cell: cell.accuracy, default=None)


def _leak_section(results: Sequence[Result], dataset: str, hardened_with: HardenedWith) -> str:
    checked = own_attacks(results, dataset, hardened_with)
    leaks = label_leaks(results, dataset, hardened_with)
    if not checked:
        return f"{LEAK_HEAD}\nNo network was scored on its own attack, so nothing was checked.\n"
    if not leaks:
        names = ", ".join(own.network for _, own in checked)
        return f"{LEAK_HEAD}\nNone of the networks checked ({names}) does.\n"
    lines = "\n".join(f"* {leak_line(leak)}" for leak in leaks)
    return f"{LEAK_HEAD}\nOf the {len(checked)} networks checked:\n\n{lines}\n\n{LEAK_REASON}"


def _checks_section(checks: Sequence[Check]) -> str:
    """How many checks there were, and the findings of those that are not ok."""
    head = "## Checks\n\nEach check could have failed; the checks show whether the numbers can be trusted.\n"
    if not checks:
        return f"{head}\nNo check was made, so this is unknown.\n"
    counts = ", ".join(f"{sum(c.verdict == v for c in checks)} {v}" for v in ("ok", "warn", "fail"))
    shown = [c for verdict in ("fail", "warn") for c in checks if c.verdict == verdict]
    if not shown:
        return f"{head}\nOf {len(checks)} checks: {counts}. None warns, and none fails.\n"
    rows = [f"| {c.verdict} | {c.name} | {escape(c.about)} | {escape(c.text)} |" for c in shown]
    names = dict.fromkeys(check.name for check in shown)
    meanings = [f"* **{name}**: {FAILED.get(name, FAILED_OTHERWISE)}" for name in names]
    table = ["| verdict | check | about | found |", "| --- | --- | --- | --- |", *rows, ""]
    return "\n".join(
        [
            head,
            f"Of {len(checks)} checks: {counts}.\n",
            *table,
            "What a failure of each check means for the numbers (a warning only asks you to look):\n",
            *meanings,
            "",
        ]
    )


def _robustness(links: Mapping[str, str]) -> str:
    pictures = _pictures("Accuracy against eps and steps", links)
    return f"{pictures}\n{CURVES}" if pictures else ""


def _pairs_section(results: Sequence[Result], dataset: str, pairs: Sequence[PairedTest]) -> str:
    """Compare each network with the target network, and those with any accuracy left with each other."""
    cells = pivot(results, dataset, "worst")[2]
    alive = {n for (n, attack), cell in cells.items() if attack == ALL and cell.accuracy > 0}
    shown = [p for p in pairs if TARGET in (p.first, p.second) or {p.first, p.second} <= alive]
    if not shown:
        return ""
    bound = SIGNIFICANT / len(shown)
    rows = [
        f"| {escape(p.first)} | {escape(p.second)} | {p.only_first:,} | {p.only_second:,} | {_p(p.p)} |"
        for p in shown
    ]
    differ = sum(p.p < bound for p in shown)
    return "\n".join(
        [
            f"## Pairwise comparison\n\n{PAIRS}",
            "| first | second | only the first | only the second | p |",
            "| --- | --- | ---: | ---: | ---: |",
            *rows,
            f"\nThe networks differ in {differ} of {len(shown)} comparisons, at a joint significance level "
            f"of {100 * SIGNIFICANT:g} % (Bonferroni: p below {bound:.2g} each).\n",
        ]
    )


def _p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def _pictures(title: str, links: Mapping[str, str]) -> str:
    blocks = [f"**{escape(name)}**\n\n![{escape(name)}]({link})\n" for name, link in links.items()]
    return "\n".join([f"## {title}\n", *blocks]) if blocks else ""
