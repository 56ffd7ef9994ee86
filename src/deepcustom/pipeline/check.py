"""Checks all of ``params.yaml`` before any stage starts: sections, names, settings, files."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from torch.nn import Module

from deepcustom.attacks.losses.base import find_loss
from deepcustom.base.errors import LossError, ParamsError, UnknownNameError
from deepcustom.base.image_settings import prepare_model
from deepcustom.base.names import load_object
from deepcustom.base.params import Params, found_value, section, seed, validate
from deepcustom.base.rows import (
    HARDENING,
    LAYOUTS,
    NAME,
    RECIPES,
    SETS,
    SUBJECTS,
    Row,
    rows,
)
from deepcustom.base.settings import (
    AttackSetParams,
    ComputeParams,
    EngineParams,
    EvaluateParams,
    GalleryParams,
    GenerateParams,
    PageParams,
    RelevanceParams,
    ReportParams,
    SubjectParams,
    SuspiciousnessParams,
    TargetParams,
    TrainDgnParams,
)
from deepcustom.data.datasets import load_spec
from deepcustom.data.sources import find_source, source_names
from deepcustom.evaluation.results import unclipped
from deepcustom.hardening.online import OnlineSettings
from deepcustom.hardening.ways import way_of
from deepcustom.pipeline import workspace
from deepcustom.pipeline.check_files import check_files, must_be
from deepcustom.pipeline.outputs import outputs
from deepcustom.pipeline.own_nets import must_be_seen
from deepcustom.pipeline.workspace import OWN_NETS
from deepcustom.training.nets.base import Conditional
from deepcustom.training.nets.exported import SUFFIX, trainable

MODELS: dict[str, type[Params]] = {
    "train_target": TargetParams,
    "relevance": RelevanceParams,
    "suspiciousness": SuspiciousnessParams,
    "train_dgn": TrainDgnParams,
    "generate": GenerateParams,
    "attack": AttackSetParams,
    "evaluate": EvaluateParams,
    "report": ReportParams,
    "gallery": GalleryParams,
    "page": PageParams,
}
"""Section → class of its rows' settings, where all rows of the section share one class."""


def check(root: Path, tree: Mapping[str, Any]) -> None:
    """Check every setting, so that a mistake shows before any stage starts.

    Args:
        root: the project's folder, from which the user's own losses and networks are imported.
        tree: its whole ``params.yaml``.

    Raises:
        ParamsError: a setting is wrong. The message is one line: the key, what it holds, what is allowed.
    """
    _check_sections(tree)
    subjects = _subjects(tree)
    for stage in LAYOUTS:
        for one in rows(tree, stage):
            _check_place(one, subjects)
    for subject in subjects:
        _check_names(tree, subject)
    _check_places(tree)
    with contextlib.chdir(root):
        for name, given in subjects.items():
            _check_networks(name, given)
        for stage in LAYOUTS:
            for one in rows(tree, stage):
                _check_settings(one)
        check_files(root, tree)


def _check_sections(tree: Mapping[str, Any]) -> None:
    allowed = ["seed", "compute", "engine", SUBJECTS, RECIPES, *LAYOUTS]
    for name in tree:
        if name not in allowed:
            raise ParamsError(
                f"params.yaml: {name} is no known section; allowed: {', '.join(allowed)}"
            )
    seed(tree)
    validate(ComputeParams, section(tree, "compute"), "compute")
    if "engine" in tree:
        validate(EngineParams, section(tree, "engine"), "engine")
    for name in allowed[3:]:
        below = section(tree, name)
        if not isinstance(below, Mapping):
            raise ParamsError(f"params.yaml: {name} must be a mapping{found_value(below)}")
        for key in below:
            _check_name(name, key)


def _check_name(place: str, name: Any) -> None:
    """Refuse a ``name``, a key or a value at ``place``, that cannot be part of a file name."""
    if not isinstance(name, str):
        raise ParamsError(f"params.yaml: {place}.{name} must be text: quote it")
    if not NAME.fullmatch(name) or "." in name:  # DVC takes a dot for a nested key
        raise ParamsError(
            f"params.yaml: {place}.{name!r} names files: it must begin with a letter or digit and hold only "
            "these, '-' and '_'"
        )


def _subjects(tree: Mapping[str, Any]) -> dict[str, SubjectParams]:
    """Name → settings of the subject. Each must have the rows that all its other rows build on."""
    found = {}
    for name, values in section(tree, SUBJECTS).items():
        found[name] = validate(SubjectParams, values, f"{SUBJECTS}.{name}")
        section(tree, "prepare", found[name].dataset)
        section(tree, "train_target", name)
    return found


def _check_networks(name: str, subject: SubjectParams) -> None:
    """Check that a subject's classes exist where DVC sees them, and are of the kind that is asked for."""
    wanted = {"network": Module, "generator": Module, "conditional": Conditional}
    for key, kind in wanted.items():
        place, called = f"params.yaml: {SUBJECTS}.{name}.{key}", getattr(subject, key).name
        must_be_seen(place, called)
        if key == "network" and called.endswith(SUFFIX):
            if not Path(called).is_file():
                raise ParamsError(f"{place}: {called} must be a file in {OWN_NETS}")
            continue
        found = load_object(called, f"{place}:", ParamsError)
        if not (isinstance(found, type) and issubclass(found, kind)):
            wanted_class = (
                "torch.nn.Module" if kind is Module else f"{kind.__module__}.{kind.__name__}"
            )
            raise ParamsError(f"{place} must be a subclass of {wanted_class}")


def _check_place(one: Row, subjects: Mapping[str, SubjectParams]) -> None:
    """Check that a row's name agrees with the row's keys, and the keys with the subject."""
    names = LAYOUTS[one.stage].names
    for key in names:
        _check_name(f"{one.place}.{key}", one.about[key])
    called = "-".join(one.about[key] for key in names) or one.name
    if called != one.name:
        raise ParamsError(
            f"params.yaml: {one.place} should be called {called}, after its {', '.join(names)}"
        )
    if one.stage in ("prepare", "page"):
        return
    if one.subject not in subjects:
        raise ParamsError(
            f"params.yaml: {one.place} is for the subject {one.subject!r}, which is not there; "
            f"{SUBJECTS} has: {', '.join(subjects)}"
        )
    must_be(one, "dataset", subjects[one.subject].dataset, f"the data set of {one.subject}")
    if one.stage in HARDENING:
        trainable(subjects[one.subject].network.name, one.place)
    if "split" in names and one.about["split"] not in workspace.SPLITS:
        allowed = ", ".join(workspace.SPLITS)
        raise ParamsError(
            f"params.yaml: {one.place}.split: {one.about['split']!r} is no split; allowed: {allowed}"
        )


def _check_names(tree: Mapping[str, Any], subject: str) -> None:
    """Check that every bank that a row names exists, and that no two rows write the same file."""
    banks = [r.about["bank"] for r in rows(tree, "train_dgn", subject)]
    online = [r.about["network"] for r in rows(tree, "train_online", subject)]
    robust = [r.about["network"] for r in rows(tree, "adversarial_train", subject)]
    made = {r.about[key] for stage, key in SETS.items() for r in rows(tree, stage, subject)}
    # A row of train_online writes a network and a generator, and generate names a set after the generator.
    for name in online:
        if name in {*banks, *robust} or name in {
            r.about["attack"] for r in rows(tree, "attack", subject)
        }:
            raise ParamsError(
                f"params.yaml: train_online.{subject}-{name} trains a network and a generator of this name, "
                "but a bank, an attack or another network already has it"
            )
    for one in rows(tree, "attack", subject):
        if one.about["attack"] in banks:
            raise ParamsError(f"params.yaml: {one.place}: a bank is called so already")
    # Banks that rows read.
    for one in rows(tree, "generate", subject):
        _there(one, "bank", one.about["bank"], [*banks, *online])
    for one in rows(tree, "evaluate", subject):
        adaptive = one.settings.get("adaptive")
        if isinstance(adaptive, Mapping) and "bank" in adaptive:
            _there(one, "adaptive.bank", adaptive["bank"], banks)
    # The tables call a set that leaves the ball so.
    for name in made:
        if unclipped(name) in made:
            raise ParamsError(
                f"params.yaml: {subject} may have no adversarial set called {unclipped(name)}: the tables "
                f"call {name} so, if its images leave the ball"
            )
    # The tables use these two names themselves.
    if "target" in {*robust, *online} or "clean" in made:
        raise ParamsError(
            f"params.yaml: {subject} may have no network called target and no adversarial set called clean"
        )


def _check_places(tree: Mapping[str, Any]) -> None:
    """Check that no two rows write the same file, nor two that some file systems take for the same."""
    taken: dict[str, Row] = {}
    for stage in LAYOUTS:
        for one in rows(tree, stage):
            for path in outputs(one):
                other = taken.setdefault(path.casefold(), one)
                if other is not one:
                    alike = other.name != one.name and other.name.casefold() == one.name.casefold()
                    why = (
                        ", where a file system takes capital letters for small ones"
                        if alike
                        else ""
                    )
                    raise ParamsError(
                        f"params.yaml: {one.place} and {other.place} would write the same file, {path}{why}: "
                        "choose another name"
                    )


def _there(one: Row, key: str, name: Any, allowed: Collection[str]) -> None:
    if name not in allowed:
        raise ParamsError(
            f"params.yaml: {one.place}.{key}: {name!r} is not there; allowed: {', '.join(allowed)}"
        )


def _check_settings(one: Row) -> None:
    """Check a row's settings. Losses and ways of hardening bring the classes of their own settings."""
    if one.stage in HARDENING:
        hardening(one)
        return
    if one.stage == "prepare":
        validate(prepare_model(one.settings, one.place), one.settings, one.place)
        return
    settings = validate(MODELS[one.stage], one.settings, one.place)
    if isinstance(settings, TrainDgnParams):
        check_loss(settings.loss, settings.options, one.place)
    if isinstance(settings, RelevanceParams):
        _check_k(one, settings.k)


def _check_k(one: Row, k: int) -> None:
    """Check that an image has at least ``k`` values, if the data set is prepared or built in."""
    prepared = Path(workspace.dataset(one.dataset))
    if prepared.is_file():
        shape = load_spec(prepared).shape
    elif one.dataset in source_names():
        shape = find_source(one.dataset).spec.shape
    else:
        return
    if k > math.prod(shape):
        raise ParamsError(
            f"params.yaml: {one.place}.k must be at most {math.prod(shape)}, found {k}"
        )


def hardening(one: Row) -> Params:
    """The settings of a hardened network's row, checked by its way of hardening.

    Raises:
        ParamsError: a setting is wrong; the message is one line.
    """
    kind = way_of(one.settings, one.place, one.stage)
    settings = validate(kind.Settings, one.settings, one.place)
    if isinstance(settings, OnlineSettings) and settings.loss is not None:
        check_loss(settings.loss, settings.options, one.place)
    return settings


def check_loss(loss: str, given: Mapping[str, Any], where: str) -> None:
    """Check that a loss exists and that it takes these options.

    Raises:
        ParamsError: it does not; the message is one line.
    """
    try:
        options = find_loss(loss).Options
    except (UnknownNameError, LossError) as error:
        why = " ".join(str(error).split())
        raise ParamsError(f"params.yaml: {where}.loss: {why}") from None
    if not (isinstance(options, type) and issubclass(options, BaseModel)):
        raise ParamsError(
            f"params.yaml: {where}.loss: Options of {loss!r} must be a subclass of "
            "deepcustom.base.params.Params"
        )
    validate(options, given, f"{where}.options")
