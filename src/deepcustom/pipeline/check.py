"""The whole of ``params.yaml`` at once, before any stage starts: sections, names, settings, files."""

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
    EvaluateParams,
    GenerateParams,
    PrepareParams,
    RelevanceParams,
    ReportParams,
    SubjectParams,
    SuspiciousnessParams,
    TrainDgnParams,
    TrainingParams,
)
from deepcustom.data.datasets import load_spec
from deepcustom.data.sources import find_source, source_names
from deepcustom.hardening.online import OnlineSettings
from deepcustom.hardening.ways import way_of
from deepcustom.pipeline import workspace
from deepcustom.pipeline.check_files import check_files, must_be
from deepcustom.pipeline.code import NAME as PACKAGE
from deepcustom.training.nets.base import Classifier, Conditional

MODELS: dict[str, type[Params]] = {
    "prepare": PrepareParams,
    "train_target": TrainingParams,
    "relevance": RelevanceParams,
    "suspiciousness": SuspiciousnessParams,
    "train_dgn": TrainDgnParams,
    "generate": GenerateParams,
    "attack": AttackSetParams,
    "evaluate": EvaluateParams,
    "report": ReportParams,
}
"""Of the sections whose rows all have settings of one kind."""


def check(root: Path, tree: Mapping[str, Any]) -> None:
    """Check every setting, so that a mistake shows before any stage starts.

    Args:
        root: the project's folder, from which the user's own losses and networks are imported.
        tree: the whole of its params.

    Raises:
        ParamsError: in one line: the key, what it holds, and what is allowed.
    """
    _check_sections(tree)
    subjects = _subjects(tree)
    for stage in LAYOUTS:
        for one in rows(tree, stage):
            _check_place(one, subjects)
    for subject in subjects:
        _check_names(tree, subject)
    with contextlib.chdir(root):
        for name, given in subjects.items():
            _check_networks(name, given)
        for stage in LAYOUTS:
            for one in rows(tree, stage):
                _check_settings(one)
        check_files(root, tree)


def _check_sections(tree: Mapping[str, Any]) -> None:
    allowed = ["seed", "compute", SUBJECTS, RECIPES, *LAYOUTS]
    for name in tree:
        if name not in allowed:
            raise ParamsError(
                f"params.yaml: {name} is no known section; allowed: {', '.join(allowed)}"
            )
    seed(tree)
    validate(ComputeParams, section(tree, "compute"), "compute")
    for name in allowed[2:]:
        below = section(tree, name)
        if not isinstance(below, Mapping):
            raise ParamsError(f"params.yaml: {name} must be a mapping{found_value(below)}")
        for key in below:
            _check_name(name, key)


def _check_name(place: str, name: Any) -> None:
    """Whether ``name``, a key or a value at ``place``, may become the name of a file."""
    if not isinstance(name, str):
        raise ParamsError(f"params.yaml: {place}.{name} must be text: quote it")
    if not NAME.fullmatch(name) or "." in name:  # to DVC a dot is a step down
        raise ParamsError(
            f"params.yaml: {place}.{name!r} names files: it must begin with a letter or digit and hold only "
            "these, '-' and '_'"
        )


def _subjects(tree: Mapping[str, Any]) -> dict[str, SubjectParams]:
    """Name → subject, each with the rows that everything else of it builds on."""
    found = {}
    for name, values in section(tree, SUBJECTS).items():
        found[name] = validate(SubjectParams, values, f"{SUBJECTS}.{name}")
        section(tree, "prepare", found[name].dataset)
        section(tree, "train_target", name)
    return found


def _check_networks(name: str, subject: SubjectParams) -> None:
    """Whether a subject's classes are there, and are what they are named as."""
    wanted = {"network": Classifier, "generator": Module, "conditional": Conditional}
    for key, kind in wanted.items():
        place = f"params.yaml: {SUBJECTS}.{name}.{key}"
        found = load_object(getattr(subject, key), f"{place}:", ParamsError)
        if not (isinstance(found, type) and issubclass(found, kind)):
            raise ParamsError(f"{place} must be a subclass of {kind.__module__}.{kind.__name__}")
        if found.__module__.partition(".")[0] != PACKAGE:
            raise ParamsError(
                f"{place} must be a class of {PACKAGE}, since DVC sees no other; "
                "`deepcustom evaluate --network FILE` scores any network"
            )


def _check_place(one: Row, subjects: Mapping[str, SubjectParams]) -> None:
    """Whether a row is called after what it says of itself, and says what is true of its subject."""
    names = LAYOUTS[one.stage].names
    for key in names:
        _check_name(f"{one.place}.{key}", one.about[key])
    called = "-".join(one.about[key] for key in names) or one.name
    if called != one.name:
        raise ParamsError(
            f"params.yaml: {one.place} should be called {called}, after its {', '.join(names)}"
        )
    if one.stage == "prepare":
        return
    if one.subject not in subjects:
        raise ParamsError(
            f"params.yaml: {one.place} is for the subject {one.subject!r}, which is not there; "
            f"{SUBJECTS} has: {', '.join(subjects)}"
        )
    must_be(one, "dataset", subjects[one.subject].dataset, f"the data set of {one.subject}")
    if "split" in names and one.about["split"] not in workspace.SPLITS:
        allowed = ", ".join(workspace.SPLITS)
        raise ParamsError(
            f"params.yaml: {one.place}.split: {one.about['split']!r} is no split; allowed: {allowed}"
        )


def _check_names(tree: Mapping[str, Any], subject: str) -> None:
    """What names a bank or a set must name one that is there, and no two things have one file."""
    banks = [r.about["bank"] for r in rows(tree, "train_dgn", subject)]
    online = [r.about["network"] for r in rows(tree, "train_online", subject)]
    robust = [r.about["network"] for r in rows(tree, "adversarial_train", subject)]
    made = {r.about[key] for stage, key in SETS.items() for r in rows(tree, stage, subject)}
    for name in online:
        if name in {*banks, *robust} or name in {
            r.about["attack"] for r in rows(tree, "attack", subject)
        }:
            raise ParamsError(
                f"params.yaml: train_online.{subject}-{name} trains a network and a generator of this name, "
                "which a bank, an attack or another network has already"
            )
    for one in rows(tree, "attack", subject):
        if one.about["attack"] in banks:
            raise ParamsError(f"params.yaml: {one.place}: a bank is called so already")
    for one in rows(tree, "generate", subject):
        _there(one, "bank", one.about["bank"], [*banks, *online])
    for one in rows(tree, "evaluate", subject):
        adaptive = one.settings.get("adaptive")
        if isinstance(adaptive, Mapping) and "bank" in adaptive:
            _there(one, "adaptive.bank", adaptive["bank"], banks)
    if "target" in {*robust, *online} or "clean" in made:
        raise ParamsError(
            f"params.yaml: of {subject}, a network may not be called target, nor a set clean"
        )


def _there(one: Row, key: str, name: Any, allowed: Collection[str]) -> None:
    if name not in allowed:
        raise ParamsError(
            f"params.yaml: {one.place}.{key}: {name!r} is not there; allowed: {', '.join(allowed)}"
        )


def _check_settings(one: Row) -> None:
    """Whether a row's settings are of the right kind; losses and ways of hardening bring their own."""
    if one.stage in HARDENING:
        hardening(one)
        return
    settings = validate(MODELS[one.stage], one.settings, one.place)
    if isinstance(settings, TrainDgnParams):
        check_loss(settings.loss, settings.options, one.place)
    if isinstance(settings, RelevanceParams):
        _check_k(one, settings.k)


def _check_k(one: Row, k: int) -> None:
    """Whether an image has so many pixels; of a data set that is prepared, or built in."""
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
    """The settings of a robust network's row, by its way of hardening.

    Raises:
        ParamsError: in one line.
    """
    kind = way_of(one.settings, one.place, one.stage)
    settings = validate(kind.Settings, one.settings, one.place)
    if isinstance(settings, OnlineSettings) and settings.loss is not None:
        check_loss(settings.loss, settings.options, one.place)
    return settings


def check_loss(loss: str, given: Mapping[str, Any], where: str) -> None:
    """Whether there is such a loss, and whether it takes these options.

    Raises:
        ParamsError: in one line.
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
