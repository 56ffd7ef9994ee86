"""Which rows a new bank, attack, network or subject needs.

A new row resembles a *sibling*: a row that is there already, for the same subject and of the same kind (a
bank's loss, a network's way of hardening, an attack's method). It takes over the sibling's recipe and
settings, and what the user sets wins. A set of the train split serves hardening alone, so it is added and
removed with the hardened network. An analysis serves losses alone, so it is added with the first bank or
network whose loss requires it, and removed with the last.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_jsonable_python

from deepcustom.attacks.losses.base import find_loss
from deepcustom.base.errors import InputError, UnknownNameError
from deepcustom.base.params import radius, section, validate
from deepcustom.base.rows import LAYOUTS, SETS, START, SUBJECTS, Row, overlay, rows
from deepcustom.base.settings import SubjectParams
from deepcustom.data.datasets import load_spec
from deepcustom.hardening.ways import way, way_of
from deepcustom.library.starting import MANY_CLASSES, OPTIONS
from deepcustom.pipeline import workspace
from deepcustom.pipeline.change.analyses import add_analyses
from deepcustom.pipeline.change.draft import Draft, NewRow, Tree
from deepcustom.pipeline.change.removed import known_subject, names_of
from deepcustom.pipeline.starts import ANEW, TARGET, anew

ITEMS = ("bank", "attack", "network")
"""The kinds that a subject has several of. Under one of these keys a row names the one it is for."""


def add_bank(
    draft: Draft, subject: str, name: str, loss: str, recipe: str | None, given: Mapping[str, Any]
) -> None:
    """A bank of DGNs and its set of test, and the analyses that its loss requires and nobody made yet."""
    known_subject(draft.tree, subject)
    banks = list(rows(draft.tree, "train_dgn", subject))
    twin = next((one for one in banks if one.settings.get("loss") == loss), None)
    sibling = twin or next(iter(banks), None)
    own = (
        _own(draft.tree, twin)
        if twin
        else {"options": {**_defaults(draft, loss), **OPTIONS.get(loss, {})}}
    )
    if sibling is None:
        own |= _by_classes(draft, section(draft.tree, SUBJECTS, subject, "dataset"))
    settings = overlay({"loss": loss, **own}, given)
    add_analyses(draft, subject, loss)
    names = _names(subject, bank=name)
    draft.put_run("train_dgn", names, sibling, settings, recipe, twin=twin is not None)
    _add_set(draft, "generate", subject, name, "test")


def add_attack(
    draft: Draft, subject: str, name: str, method: str, recipe: str | None, given: Mapping[str, Any]
) -> None:
    """An attack of ART, and its set of test."""
    known_subject(draft.tree, subject)
    known = [*rows(draft.tree, "attack", subject), *rows(draft.tree, "attack")]
    twins = [one for one in known if one.settings.get("method") == method]
    own = [one for one in twins if one.subject == subject] or twins
    twin = next((one for one in own if one.about["split"] == "test"), next(iter(own), None))
    if twin is None and recipe is None:
        methods = sorted({str(one.settings.get("method")) for one in known})
        raise InputError(
            f"--method {method!r}: no row of attack has this method; there are: "
            f"{', '.join(methods) or 'none'}; or name a recipe that has it with --recipe"
        )
    names = _names(subject, attack=name, split="test")
    settings = overlay(_taken(draft.tree, twin, subject), given)
    new = draft.put_run("attack", names, twin, settings, recipe)
    _same(new, "method", method, recipe)


def add_network(
    draft: Draft,
    subject: str,
    name: str,
    kind: str,
    recipe: str | None,
    given: Mapping[str, Any],
    start: str | None = None,
) -> None:
    """A hardened network, and the set of train that it learns from, where its way reads one."""
    known_subject(draft.tree, subject)
    found = way(kind)
    known = [*rows(draft.tree, found.stage, subject), *rows(draft.tree, found.stage)]
    twin = next((one for one in known if way_of(one.settings, one.place, one.stage) is found), None)
    if found.reads_set:
        stage, there = _maker(draft.tree, subject, name)
        if not there:
            _add_set(draft, stage, subject, name, "train")
    settings = overlay(_taken(draft.tree, twin, subject), given)
    if settings.get("loss") is not None:
        add_analyses(draft, subject, str(settings["loss"]))
    names = _names(subject, network=name)
    new = draft.put_run(found.stage, names, twin, settings, recipe, start=start)
    if new.settings.get("type") not in (None, kind) and way(new.settings["type"]) is not found:
        _same(new, "type", kind, recipe)


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
    known_subject(draft.tree, like)
    items = list(dict.fromkeys(n for kind in ITEMS for n in names_of(draft.tree, kind, like)))
    for wanted in only:
        if wanted not in items:
            raise UnknownNameError(f"bank, attack or network of {like}", wanted, items)
    before = section(draft.tree, SUBJECTS, like)
    after = overlay(before, given)
    validate(SubjectParams, after, f"{SUBJECTS}.{name}")
    draft.put(NewRow(SUBJECTS, name, after, like, twin=True))
    known = section(draft.tree, "prepare")
    if after["dataset"] not in known:
        raise UnknownNameError("data set", after["dataset"], known)
    for stage in LAYOUTS:
        for one in rows(draft.tree, stage, like) if stage != "prepare" else ():
            if only and any(one.about[key] not in only for key in ITEMS if key in one.about):
                continue
            names = {key: one.about[key] for key in LAYOUTS[stage].names}
            own = _taken(draft.tree, one, name)
            if stage == "train_dgn" and after["dataset"] != before["dataset"]:
                own |= _by_classes(draft, after["dataset"])
            draft.put_run(stage, {**names, "subject": name}, one, own, start=_start(one))


def _start(one: Row) -> str | None:
    """What the row of another subject starts from, as a word where that subject's own files are meant."""
    words = {anew(one): ANEW, workspace.target(one.subject): TARGET}
    start = one.about.get(START)
    return words.get(start, start) if start else None


def _taken(tree: Tree, one: Row | None, subject: str) -> dict[str, Any]:
    """The settings that a new row takes over from its twin; steps of another subject follow the radius."""
    if one is None:
        return {}
    own = _own(tree, one)
    radii = [_radius(tree, name) for name in (subject, one.subject)]
    return own if radii[0] == radii[1] else overlay(own, _scaled(one.settings, radii[0] / radii[1]))


def _radius(tree: Tree, subject: str) -> float:
    keys = (SUBJECTS, subject, "threat", "eps")
    return radius(section(tree, *keys), ".".join(keys))


def _by_classes(draft: Draft, dataset: str) -> dict[str, str]:
    """What a bank sets where no row of the same images is there to follow.

    With more than :data:`MANY_CLASSES` classes it is one DGN that is told the label, if the data set is
    prepared, so that their number is known.
    """
    prepared = draft.root / workspace.dataset(dataset)
    if prepared.is_file() and load_spec(prepared).num_classes > MANY_CLASSES:
        return {"generator": "conditional", "output": "perturbation"}
    return {}


def _same(new: Row, key: str, wanted: str, recipe: str | None) -> None:
    """Refuse a recipe that makes something else than was asked for."""
    if new.settings.get(key) != wanted:
        raise InputError(
            f"recipe {recipe} has {key} {new.settings.get(key)!r}, and {wanted!r} was asked for"
        )


def _scaled(settings: Mapping[str, Any], scale: float) -> dict[str, Any]:
    """Every ``eps_step`` in ``settings``, times ``scale``."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            below = _scaled(value, scale)
            found |= {key: below} if below else {}
        elif key == "eps_step" and value is not None:
            found[key] = float(f"{radius(value, key) * scale:.6g}")
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
    twin = sibling is not None and (sibling.subject, sibling.about[key]) == (subject, name)
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
    keys = LAYOUTS[one.stage].whole
    return {k: v for k, v in section(tree, one.stage, one.name).items() if k not in keys}


def _defaults(draft: Draft, loss: str) -> dict[str, Any]:
    """The options of a loss that have a default, written out: no setting is hidden.

    Raises:
        InputError: a default is nothing that YAML holds.
    """
    with contextlib.chdir(draft.root):
        options = find_loss(loss).Options
    if not (isinstance(options, type) and issubclass(options, BaseModel)):
        return {}  # the check of the settings says what is wrong
    found = {}
    for name, one in options.model_fields.items():
        if not one.is_required():
            default = one.get_default(call_default_factory=True, validated_data={})
            try:
                found[name] = to_jsonable_python(default)
            except PydanticSerializationError:
                raise InputError(
                    f"options.{name} of loss {loss!r} has a default that YAML cannot hold: give it with --set"
                ) from None
    return found
