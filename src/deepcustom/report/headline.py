"""What a network does and does not withstand, in one sentence computed from its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum

from deepcustom.evaluation.results import ALL, CLEAN, Result, percent, pivot

WITHSTOOD = 0.9
"""The least share of its clean accuracy that a network has to keep to withstand an attack."""

FALLEN = 0.01
"""A network that keeps this share of its clean accuracy or less does not withstand at all."""

FEW_RIGHT = 0.2
"""Below this clean accuracy a network has too little to lose for withstanding to mean much."""

RULE = (
    f"A network withstands an attack if it keeps {100 * WITHSTOOD:g} % or more of its clean accuracy; "
    f"it does not withstand it at all if it keeps {100 * FALLEN:g} % or less; in between, it withstands it "
    "in part."
)
"""What the sentences mean by withstanding."""

TARGET = "target"

_WHERE = {
    "transfer": "on images made against the target network",
    "whitebox": "under white-box attacks",
    "blackbox": "under black-box attacks",
    "adaptive": "under attack by DGNs adapted to it",
    "autoattack": "under AutoAttack",
}
_WHAT = {
    "transfer": "transferred images",
    "whitebox": "white-box attacks",
    "blackbox": "black-box attacks",
    "adaptive": "adapted DGNs",
    "autoattack": "AutoAttack",
}
# The transferred images were made against the target network, so to it they are not transferred.
_WHERE_TARGET = _WHERE | {"transfer": "on the stored images made against it"}
_WHAT_TARGET = _WHAT | {"transfer": "the stored images made against it"}


class Grade(IntEnum):
    """How much of its clean accuracy a network keeps."""

    NONE = 0
    PART = 1
    FULL = 2


def grade(accuracy: float, clean: float) -> Grade:
    """Grade ``accuracy`` under attack against ``clean`` accuracy, which is above 0; both 0 to 1."""
    if accuracy >= WITHSTOOD * clean:
        return Grade.FULL
    return Grade.NONE if accuracy <= FALLEN * clean else Grade.PART


def sentences(results: Sequence[Result], dataset: str) -> dict[str, str]:
    """Network → its sentence, from the protocol ``worst``; a network without a row there has none."""
    networks, _, cells = pivot(results, dataset, "worst")
    return {
        network: sentence(network, {a: cell for (n, a), cell in cells.items() if n == network})
        for network in networks
    }


def sentence(network: str, cells: Mapping[str, Result]) -> str:
    """What ``network`` does and does not withstand.

    Args:
        network: its name.
        cells: name of a protocol, ``clean`` or ``all`` → the worst case there; any may be missing.
    """
    known = {attack: cell for attack, cell in cells.items() if not cell.empty}
    if not known:
        return f"network **{network}**: no image was scored, so nothing is known about it."
    where = _WHERE_TARGET if network == TARGET else _WHERE
    clean = known.get(CLEAN)
    figures = [f"{percent(clean)} % on clean images"] if clean else []
    for protocol, words in where.items():
        if protocol in known:
            figures.append(f"{percent(known[protocol])} % {words}{_odd(known[protocol], clean)}")
        elif protocol in cells:
            figures.append(f"not scored {words}")
    if ALL in known:
        every = known[ALL]
        ends = f"{100 * every.ci_low:.2f} to {100 * every.ci_high:.2f}"
        figures.append(
            f"{percent(every)} % against everything that was tried (95 % interval {ends})"
        )
    return f"network **{network}**: {_list(figures, 'and')}: {_verdict(network, known)}."


def _odd(cell: Result, clean: Result | None) -> str:
    if clean is None or cell.accuracy <= clean.accuracy:
        return ""
    return " (higher than on clean images, which is not evidence of robustness)"


def _verdict(network: str, known: Mapping[str, Result]) -> str:
    clean = known.get(CLEAN)
    if clean is None:
        return "its clean accuracy is unknown, so what it withstands cannot be judged"
    if clean.accuracy == 0:
        return "it gets no clean image right, so there is nothing to attack"
    what = _WHAT_TARGET if network == TARGET else _WHAT
    grades = {
        words: grade(known[protocol].accuracy, clean.accuracy)
        for protocol, words in what.items()
        if protocol in known
    }
    every = grade(known[ALL].accuracy, clean.accuracy) if ALL in known else None
    if not grades and every is None:
        return "it was not attacked, so what it withstands is not known"
    text = f"it {_withstands(grades, every)}"
    if clean.accuracy < FEW_RIGHT and max([*grades.values(), every or Grade.NONE]) > Grade.NONE:
        text += ", but it gets so few clean images right that it has little to lose"
    return text


def _withstands(grades: Mapping[str, Grade], every: Grade | None) -> str:
    """The verdict in words.

    Args:
        grades: what was tried → the network's grade against it.
        every: the grade against all of them together, image by image; None if that is not known.
    """
    kinds: set[Grade | None] = {*grades.values()} or {every}
    if kinds == {Grade.NONE}:
        return "withstands nothing that was tried"
    if kinds == {every}:
        partly = "partly " if every is Grade.PART else ""
        return f"{partly}withstands everything that was tried"
    full, part, none = (
        [words for words, found in grades.items() if found is kind]
        for kind in (Grade.FULL, Grade.PART, Grade.NONE)
    )
    if full and none and not part:
        return f"withstands {_list(full, 'and')} only"
    parts = [_list(full, "and")] if full else []
    parts += [f"{_list(part, 'and')} in part"] if part else []
    parts += [f"{_list(none, 'and')} not at all"] if none else []
    text = f"withstands {', and '.join([', '.join(parts[:-1]), parts[-1]] if parts[1:] else parts)}"
    if every is not None and every < min(grades.values()):
        together = "all of them together"
        text += f", but {together} {'not at all' if every is Grade.NONE else 'only in part'}"
    return text


def _list(words: Sequence[str], last: str) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return f" {last} ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)
