"""Which rows are removed with a bank, an attack, a network or a subject."""

from __future__ import annotations

from collections.abc import Iterator

from deepcustom.base.errors import UnknownNameError
from deepcustom.base.params import section
from deepcustom.base.rows import HARDENING, LAYOUTS, SETS, SUBJECTS, Row, rows
from deepcustom.pipeline import workspace
from deepcustom.pipeline.change.analyses import only_for
from deepcustom.pipeline.change.draft import Tree


def rows_of(tree: Tree, kind: str, subject: str, name: str = "") -> list[Row]:
    """The rows that are removed with an item.

    Args:
        tree: the whole of the params.
        kind: ``bank``, ``attack``, ``network`` or ``subject``.
        subject: whose.
        name: of the item; a subject needs none.

    Raises:
        UnknownNameError: there is no such item.
    """
    known_subject(tree, subject)
    if kind == "subject":
        stages = (stage for stage in LAYOUTS if stage != "prepare")
        return [one for stage in stages for one in rows(tree, stage, subject)]
    known = names_of(tree, kind, subject)
    if name not in known:
        raise UnknownNameError(f"{kind} of {subject}", name, known)
    find = {"bank": _rows_of_bank, "attack": _rows_of_attack, "network": _rows_of_network}[kind]
    found = list(find(tree, subject, name))
    return [*only_for(tree, subject, found), *found]


def _rows_of_bank(tree: Tree, subject: str, name: str) -> Iterator[Row]:
    for stage in ("train_dgn", "generate"):
        yield from (one for one in rows(tree, stage, subject) if one.about["bank"] == name)
    yield from _learned_from(tree, subject, name)


def _rows_of_attack(tree: Tree, subject: str, name: str) -> Iterator[Row]:
    yield from (one for one in rows(tree, "attack", subject) if one.about["attack"] == name)
    yield from _learned_from(tree, subject, name)


def _rows_of_network(tree: Tree, subject: str, name: str) -> Iterator[Row]:
    mine = [r for s in HARDENING for r in rows(tree, s, subject) if r.about["network"] == name]
    learned = list(_learned_from(tree, subject, name))
    for stage, key in SETS.items():
        for one in rows(tree, stage, subject):
            online = stage == "generate" and any(r.stage == "train_online" for r in mine)
            only_train = bool(learned) and one.about["split"] == "train"
            if one.about[key] == name and (online or only_train):
                yield one
    yield from mine


def _learned_from(tree: Tree, subject: str, name: str) -> Iterator[Row]:
    """The network that learned from the set of train of this name."""
    read = workspace.adversarial(subject, "train", name)
    for one in rows(tree, "adversarial_train", subject):
        if one.about["reads"] == read:
            yield one


def names_of(tree: Tree, kind: str, subject: str) -> list[str]:
    """The names of a subject's items of one kind."""
    stages = {"bank": ("train_dgn",), "attack": ("attack",), "network": HARDENING}.get(kind, ())
    return list(dict.fromkeys(r.about[kind] for s in stages for r in rows(tree, s, subject)))


def known_subject(tree: Tree, subject: str) -> None:
    """Check that there is such a subject.

    Raises:
        UnknownNameError: there is none; the message lists those there are.
    """
    if subject not in section(tree, SUBJECTS):
        raise UnknownNameError("subject", subject, section(tree, SUBJECTS))
