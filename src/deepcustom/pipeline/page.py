"""Gathers what the page of a project shows; what is not there is said to be missing, with its command."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from deepcustom.attacks.threat import ThreatModel
from deepcustom.base import params as settings
from deepcustom.base.errors import InputError
from deepcustom.base.rows import SETS, SUBJECTS, networks, row, rows
from deepcustom.base.settings import PageParams, SubjectParams
from deepcustom.evaluation.files import read_checks, read_pairs, read_points
from deepcustom.evaluation.results import read_csv
from deepcustom.pipeline import workspace
from deepcustom.pipeline.gallery import read_gallery
from deepcustom.pipeline.hardened import hardened_with
from deepcustom.pipeline.histories import read_history
from deepcustom.pipeline.page_trace import subject_trace
from deepcustom.pipeline.workspace import Workspace
from deepcustom.report.web.page import page
from deepcustom.report.web.subject import Missing, Relevance, Subject, Suspiciousness
from deepcustom.tracking.record import RUN_FILE, RunRecord

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")

BUILT_IN = {"mnist": "MNIST", "cifar10": "CIFAR-10"}
"""Titles of data sets, for where no gallery tells them."""
PER = 1000  # images that the price of a stored set is for


def page_text(ws: Workspace, name: str) -> str:
    """The page of a project that the row ``name`` of ``page`` describes, from what is there.

    Raises:
        ParamsError: a setting is wrong.
        InputError: a file is there and cannot be read.
    """
    tree = settings.read_params(ws.params)
    one = row(tree, "page", name)
    params = settings.validate(PageParams, one.settings, one.place)
    subjects = [gather(ws, tree, subject) for subject in tree.get(SUBJECTS, {})]
    return page(params.title, subjects, most_classes=params.classes)


def gather(ws: Workspace, tree: Mapping[str, Any], name: str) -> Subject:
    """All that there is of one subject.

    Args:
        ws: the project.
        tree: the whole of its params.
        name: of the subject.
    """
    subject = settings.validate(SubjectParams, tree[SUBJECTS][name], f"{SUBJECTS}.{name}")
    threat = ThreatModel.of(subject.threat)
    there = _There(ws)
    scored = f"dvc repro evaluate@{name}"
    results = there.read(workspace.results(name), read_csv, "the numbers", scored) or []
    checks = there.read(workspace.checks(name), read_checks, "the checks", scored)
    points = there.read(
        workspace.curves(name), read_points, "the curves against eps and steps", scored
    )
    pairs = there.read(workspace.pairs(name), read_pairs, "the pairs of networks", scored)
    gallery = None
    if any(rows(tree, "gallery", name)):
        hint = f"dvc pull, or dvc repro gallery@{name}"
        gallery = there.read(workspace.gallery(name), read_gallery, "the images", hint)
    if gallery and threat.norm != "linf":  # no pixel may change by as much as eps
        gallery = replace(gallery, eps=gallery.largest() or threat.eps)
    dataset = row(tree, "train_target", name).dataset
    relevance, suspicious = _analyses(there, tree, name)
    classes = list(gallery.classes) if gallery else _numbered(relevance, suspicious)
    return Subject(
        name=name,
        title=gallery.title if gallery else BUILT_IN.get(dataset, dataset),
        threat=f"An attacker may {threat.ball.allows.format(eps=threat.eps)}",
        bounded=threat.ball.bounded,
        eps=threat.eps,
        networks=networks(tree, name),
        classes=classes,
        banks=[one.about["bank"] for one in rows(tree, "train_dgn", name)],
        results=results,
        hardened_with=hardened_with(tree, name),
        checks=checks,
        points=points or [],
        pairs=pairs or [],
        histories=_histories(there, name),
        seconds=_seconds(ws, name),
        made=_made(ws, tree, name),
        gallery=gallery,
        relevance=relevance,
        suspiciousness=suspicious,
        missing=there.missing,
        trace=subject_trace(ws, name, results) if results else None,
    )


class _There:
    """Reads files where they are there, and notes those that are not."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws
        self.missing: list[Missing] = []

    def read(self, path: str, how: Callable[[Path], T], what: str, command: str) -> T | None:
        full = self.ws.path(path)
        if full.exists():
            return how(full)
        if not any(one.command == command for one in self.missing):
            self.missing.append(Missing(what, command))
        return None


def _analyses(
    there: _There, tree: Mapping[str, Any], name: str
) -> tuple[Relevance | None, Suspiciousness | None]:
    """What the analyses found that the settings ask for."""
    found: dict[str, Any] = {}
    words = {"relevance": "the relevant pixels", "suspiciousness": "the suspicious units"}
    for stage, what in words.items():
        if any(rows(tree, stage, name)):
            hint = f"dvc pull, or dvc repro {stage}@{name}"
            found[stage] = there.read(workspace.analysis(name, stage), _arrays, what, hint)
    relevance, units = found.get("relevance"), found.get("suspiciousness")
    return (
        Relevance(relevance["relevance"], relevance["pixels"]) if relevance else None,
        Suspiciousness(_below(units, "scores."), _below(units, "suspicious."), units["failures"])
        if units
        else None,
    )


def _arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    from deepcustom.training.weights import load_tensors

    return {name: tensor.numpy() for name, tensor in load_tensors(path)[0].items()}


def _below(arrays: Mapping[str, Any], begin: str) -> dict[str, Any]:
    return {key.removeprefix(begin): one for key, one in arrays.items() if key.startswith(begin)}


def _numbered(relevance: Relevance | None, units: Suspiciousness | None) -> list[str]:
    """Names for classes that nothing names: their numbers."""
    if relevance:
        return [str(label) for label in range(len(relevance.relevance))]
    return [str(label) for label in range(len(units.failures))] if units else []


def _histories(there: _There, name: str) -> dict[str, dict[str, list[float]]]:
    """Every training's curves, as they come about: the target, banks, hardened networks."""
    folder = there.ws.root / workspace.training_folder(name)
    order = ("train_target", "train_dgn", "adversarial_train", "train_online")
    words = {
        "train_target": "undefended network",
        "train_dgn": "bank {}",
        "adversarial_train": "hardened network {}",
        "train_online": "hardened network {} and its generator",
    }
    found = {}
    for stage in order:
        alone = folder / f"{stage}.csv"
        for file in [alone] if alone.is_file() else sorted((folder / stage).glob("*.csv")):
            found[words[stage].format(file.stem)] = read_history(file)
    if not found:
        there.missing.append(Missing("the trainings", f"dvc repro evaluate@{name}"))
    return found


def _seconds(ws: Workspace, name: str) -> dict[str, float]:
    """``network/protocol/attack`` → seconds, from the record of the scoring."""
    record = _record(ws, workspace.record(name, "evaluate"))
    return dict(record.timings) if record else {}


def _made(ws: Workspace, tree: Mapping[str, Any], name: str) -> dict[str, float]:
    """Attack → seconds that 1,000 images of its test set took, from the records of those runs."""
    found = {}
    for stage, key in SETS.items():
        for one in rows(tree, stage, name):
            if one.about["split"] != "test":
                continue
            record = _record(ws, workspace.record(name, stage, one.about[key], "test"))
            if record and record.metrics.get("images"):
                found[one.about[key]] = PER * record.seconds / record.metrics["images"]
    return found


def _record(ws: Workspace, folder: str) -> RunRecord | None:
    """A run's record, if it is there and can be read."""
    if not (ws.root / folder / RUN_FILE).is_file():
        return None
    try:
        return RunRecord.read(ws.root / folder)
    except InputError:
        return None
