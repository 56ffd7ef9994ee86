"""Which rows belong to a bank, a network, an attack or a subject, when it is added or removed.

A new row resembles a *sibling*: a row that is there already, for the same subject and of the same kind (a
bank's loss, a network's way of hardening, an attack's method). It takes over the sibling's recipe and
settings, and what the user sets wins. A set of the train split serves hardening alone, so it is added and
removed with the hardened network.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from deepcustom.attacks.losses.base import find_loss
from deepcustom.base.errors import InputError, ParamsError, UnknownNameError
from deepcustom.base.params import section
from deepcustom.base.rows import HARDENING, LAYOUTS, SETS, SUBJECTS, Row, overlay, rows
from deepcustom.hardening.ways import way, way_of
from deepcustom.pipeline import workspace
from deepcustom.pipeline.change.draft import Draft, NewRow, Tree

ITEMS = ("bank", "attack", "network")
"""The kinds that a subject has several of. Under one of these keys a row names the one it is for."""


# Added


def add_bank(
    draft: Draft, subject: str, name: str, loss: str, recipe: str | None, given: Mapping[str, Any]
) -> None:
    """A bank of DGNs and its set of test."""
    _known_subject(draft.tree, subject)
    banks = list(rows(draft.tree, "train_dgn", subject))
    twin = next((one for one in banks if one.settings.get("loss") == loss), None)
    sibling = twin or next(iter(banks), None)
    own = _own(draft.tree, twin) if twin else {"options": _defaults(draft, loss)}
    settings = overlay({"loss": loss, **own}, given)
    names = _names(subject, bank=name)
    draft.put_run("train_dgn", names, sibling, settings, recipe, twin=twin is not None)
    _add_set(draft, "generate", subject, name, "test")


def add_attack(
    draft: Draft, subject: str, name: str, method: str, recipe: str | None, given: Mapping[str, Any]
) -> None:
    """An attack of ART, and its set of test."""
    _known_subject(draft.tree, subject)
    known = list(rows(draft.tree, "attack", subject)) or list(rows(draft.tree, "attack"))
    twins = [one for one in known if one.settings.get("method") == method]
    twin = next((one for one in twins if one.about["split"] == "test"), next(iter(twins), None))
    if twin is None and recipe is None:
        methods = sorted({str(one.settings.get("method")) for one in known})
        raise InputError(
            f"--method {method!r}: no row of attack is of this method; there are: {', '.join(methods)}; "
            "or name a recipe of it with --recipe"
        )
    names = _names(subject, attack=name, split="test")
    settings = overlay(_own(draft.tree, twin) if twin else {}, given)
    draft.put_run("attack", names, twin, settings, recipe)


def add_network(
    draft: Draft, subject: str, name: str, kind: str, recipe: str | None, given: Mapping[str, Any]
) -> None:
    """A hardened network, and the set of train that it learns from, where its way reads one."""
    _known_subject(draft.tree, subject)
    found = way(kind)
    known = [*rows(draft.tree, found.stage, subject), *rows(draft.tree, found.stage)]
    twin = next((one for one in known if way_of(one.settings, one.place, one.stage) is found), None)
    if found.reads_set:
        stage, there = _maker(draft.tree, subject, name)
        if not there:
            _add_set(draft, stage, subject, name, "train")
    settings = overlay(_own(draft.tree, twin) if twin else {}, given)
    if twin is None and recipe is None:
        raise InputError(
            f"no network of type {kind} is there to be like: name a recipe with --recipe"
        )
    draft.put_run(found.stage, _names(subject, network=name), twin, settings, recipe)


def add_subject(
    draft: Draft, name: str, like: str, given: Mapping[str, Any], only: Collection[str] = ()
) -> None:
    """A subject with a row for each row of another one; lengths of steps follow the ball's radius.

    Args:
        draft: where the rows go.
        name: its name.
        like: the other one.
        given: keys of its row below ``subjects``; they win over the other's.
        only: the banks, attacks and networks that it gets; none: all of them.
    """
    _known_subject(draft.tree, like)
    items = [n for kind in ITEMS for n in _known(draft.tree, kind, like)]
    for wanted in only:
        if wanted not in items:
            raise UnknownNameError(f"bank, attack or network of {like}", wanted, items)
    before = section(draft.tree, SUBJECTS, like)
    after = overlay(before, given)
    draft.put(NewRow(SUBJECTS, name, after, like, twin=True))
    known = section(draft.tree, "prepare")
    if after["dataset"] not in known:
        raise UnknownNameError("data set", after["dataset"], known)
    scale = _radius(after) / _radius(before)
    for stage in LAYOUTS:
        for one in rows(draft.tree, stage, like) if stage != "prepare" else ():
            if only and any(one.about[key] not in only for key in ITEMS if key in one.about):
                continue
            own = _own(draft.tree, one)
            if scale != 1:
                own = overlay(own, _scaled(one.settings, scale))
            keys = LAYOUTS[stage].names
            names = {key: one.about[key] for key in keys} if keys else {"subject": like}
            draft.put_run(stage, {**names, "subject": name}, one, own)


def _radius(subject: Mapping[str, Any]) -> float:
    try:
        return float(subject["threat"]["eps"])
    except (KeyError, TypeError, ValueError):
        raise ParamsError("params.yaml: subjects: threat.eps must be a number") from None


def _scaled(settings: Mapping[str, Any], scale: float) -> dict[str, Any]:
    """Every ``eps_step`` in ``settings``, times ``scale``."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            below = _scaled(value, scale)
            found |= {key: below} if below else {}
        elif key == "eps_step" and value is not None:
            found[key] = float(f"{value * scale:.6g}")
    return found


def _add_set(draft: Draft, stage: str, subject: str, name: str, split: str) -> None:
    """A set that a bank or an attack makes, like another of its own, or of that split."""
    key = SETS[stage]
    known = [
        *(one for one in rows(draft.tree, stage, subject) if one.about[key] == name),
        *(one for one in rows(draft.tree, stage, subject) if one.about["split"] == split),
        *rows(draft.tree, stage),
    ]
    sibling = next(iter(known), None)
    twin = sibling is not None and sibling.about[key] == name
    own = _own(draft.tree, sibling) if sibling and twin else {}
    draft.put_run(stage, _names(subject, **{key: name}, split=split), sibling, own, twin=twin)


def _maker(tree: Tree, subject: str, name: str) -> tuple[str, bool]:
    """The stage that makes the sets called ``name``, and whether it makes the one of train."""
    banks = [one.about["bank"] for one in rows(tree, "train_dgn", subject)]
    attacks = [one.about["attack"] for one in rows(tree, "attack", subject)]
    if name not in [*banks, *attacks]:
        raise InputError(
            f"a network that learns from a fixed set is called after what made the set: {subject} has no "
            f"bank or attack {name}; there are: {', '.join(dict.fromkeys([*banks, *attacks]))}"
        )
    stage = "generate" if name in banks else "attack"
    made = rows(tree, stage, subject)
    return stage, any(
        (one.about[SETS[stage]], one.about["split"]) == (name, "train") for one in made
    )


def _names(subject: str, **more: str) -> dict[str, str]:
    return {"subject": subject, **more}


def _own(tree: Tree, one: Row) -> dict[str, Any]:
    """The settings that stand in a row itself."""
    keys = LAYOUTS[one.stage].keys
    return {k: v for k, v in section(tree, one.stage, one.name).items() if k not in keys}


def _defaults(draft: Draft, loss: str) -> dict[str, Any]:
    """The options of a loss that have a default, written out: no setting is hidden."""
    with contextlib.chdir(draft.root):
        fields = find_loss(loss).Options.model_fields
    return {name: one.default for name, one in fields.items() if not one.is_required()}


def _known_subject(tree: Tree, subject: str) -> None:
    if subject not in section(tree, SUBJECTS):
        raise UnknownNameError("subject", subject, section(tree, SUBJECTS))


# Removed


def rows_of(tree: Tree, kind: str, subject: str, name: str = "") -> list[Row]:
    """The rows that go with an item.

    Args:
        tree: the whole of the params.
        kind: ``bank``, ``attack``, ``network`` or ``subject``.
        subject: whose.
        name: of the item; none for a subject.

    Raises:
        UnknownNameError: there is no such item.
    """
    _known_subject(tree, subject)
    found = {
        "bank": _rows_of_bank,
        "attack": _rows_of_attack,
        "network": _rows_of_network,
        "subject": _rows_of_subject,
    }[kind](tree, subject, name)
    rest = list(found)
    if not rest:
        raise UnknownNameError(f"{kind} of {subject}", name, _known(tree, kind, subject))
    return rest


def _rows_of_bank(tree: Tree, subject: str, name: str) -> Iterator[Row]:
    yield from (r for r in rows(tree, "train_dgn", subject) if r.about["bank"] == name)
    if name in _known(tree, "bank", subject):
        yield from (r for r in rows(tree, "generate", subject) if r.about["bank"] == name)
        yield from _learned_from(tree, subject, name)


def _rows_of_attack(tree: Tree, subject: str, name: str) -> Iterator[Row]:
    yield from (r for r in rows(tree, "attack", subject) if r.about["attack"] == name)
    if name in _known(tree, "attack", subject):
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


def _rows_of_subject(tree: Tree, subject: str, name: str) -> Iterator[Row]:
    for stage in LAYOUTS:
        if stage != "prepare":
            yield from rows(tree, stage, subject)


def _learned_from(tree: Tree, subject: str, name: str) -> Iterator[Row]:
    """The network that learned from the set of train of this name."""
    read = workspace.adversarial(subject, "train", name)
    for one in rows(tree, "adversarial_train", subject):
        if one.about["reads"] == read:
            yield one


def _known(tree: Tree, kind: str, subject: str) -> list[str]:
    """The names of a subject's items of one kind."""
    stages = {"bank": ("train_dgn",), "attack": ("attack",), "network": HARDENING}.get(kind, ())
    return list(dict.fromkeys(r.about[kind] for s in stages for r in rows(tree, s, subject)))
