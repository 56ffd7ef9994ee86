"""The published networks scored again: test sets made anew, tables held against the committed ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from deepcustom.comparison import Comparison, compare, comparison_lines
from deepcustom.errors import DeepCustomError, InputError
from deepcustom.pipeline import dvc, provenance, workspace
from deepcustom.pipeline.workspace import Workspace
from deepcustom.results import Result, parse_csv, read_csv

SCORING = ("prepare", "generate", "attack", "evaluate")
"""The stages that lead from trained networks to the tables, in the order to run them."""
TRAINING = ("train_target", "train_dgn", "adversarial_train")


def rescore(ws: Workspace, say: Callable[[str], None] = print) -> list[Result]:
    """Pull the models that are not here, and make every number of the tables again; train nothing.

    Args:
        ws: a git checkout with ``dvc.lock``.
        say: takes what is to be told.

    Returns:
        The new results of all data sets.

    Raises:
        InputError: there is no ``dvc.lock``, or a model is neither here nor in a remote.
        DeepCustomError: DVC or a stage failed.
    """
    lock = dvc.read_lock(ws.root)
    if not _datasets(lock):  # without a target DVC would run the whole pipeline
        raise InputError(
            "no dvc.lock here with tables to make again: `make repro` trains the networks"
        )
    models = sorted(out["path"] for entry in lock.values() for out in _outs(entry, "models/"))
    if not all((ws.root / path).is_file() for path in models):
        dvc.run_dvc(ws.root, ["pull", *TRAINING], check=False)  # what is absent is said below
    absent = [path for path in models if not (ws.root / path).is_file()]
    if absent:
        raise InputError(
            f"{absent[0]} is neither here nor in the remote storage ({len(absent)} of "
            f"{len(models)} models): `make repro` trains what is missing"
        )
    for line in outdated(ws, lock):
        say(f"warning: {line}")
    dvc.run_dvc(ws.root, ["repro", "--force", "--single-item", *scoring_stages(lock)])
    return [result for dataset in _datasets(lock) for result in _results(ws, dataset)]


def scoring_stages(lock: Mapping[str, Any]) -> list[str]:
    """Of the stages in ``dvc.lock`` those that make the test sets and score, in order."""
    found: list[tuple[int, str]] = []
    for name, entry in lock.items():
        stage, split = name.split("@")[0], _option(entry, "--split")
        if stage in SCORING and split in (None, "test"):
            found.append((SCORING.index(stage), name))
    return [name for _, name in sorted(found, key=lambda one: one[0])]


def outdated(ws: Workspace, lock: Mapping[str, Any]) -> list[str]:
    """A line for each model whose code, settings or inputs have changed since it was trained."""
    stages = [name for name in lock if name.split("@")[0] in TRAINING]
    lines = []
    for name, reasons in dvc.status(ws.root, stages).items():
        changed = [what for reason in reasons for what in _changes(reason)]
        if changed:
            lines.append(f"{name} would be trained anew: {', '.join(changed)} changed")
    return lines


def against_committed(ws: Workspace, results: list[Result]) -> list[Comparison]:
    """``results`` held against those of the checkout's last commit, a comparison per data set.

    Raises:
        InputError: the commit has no results of a data set.
    """
    return [
        compare(_committed(ws, dataset), results, dataset)
        for dataset in dict.fromkeys(result.dataset for result in results)
    ]


def report_differences(ws: Workspace, results: list[Result], say: Callable[[str], None]) -> None:
    """Say for each data set whether its numbers equal the committed ones, or what differs.

    Raises:
        DeepCustomError: a number is missing, new, or outside the committed 95 % interval.
    """
    found = against_committed(ws, results)
    for one in found:
        for line in comparison_lines(one):
            say(line)
    unlike = [one.dataset for one in found if not one.alike]
    if unlike:
        raise DeepCustomError(
            f"{', '.join(unlike)}: other results than the committed ones, see above; "
            "`git checkout dvc.lock reports` brings those back"
        )


def _changes(reason: Any) -> list[str]:
    """What changed; not what merely was not fetched or made."""
    if not isinstance(reason, Mapping):
        return ["its command"] if reason == "changed command" else []
    changed = reason.get("changed deps", {}) | reason.get("changed outs", {})
    found = []
    for path, how in changed.items():
        if isinstance(how, Mapping):  # keys of params.yaml
            found += list(how)
        elif how == "modified":
            found.append(path)
    return found


def _outs(entry: Mapping[str, Any], folder: str) -> list[Mapping[str, Any]]:
    return [out for out in entry.get("outs", []) if out["path"].startswith(folder)]


def _option(entry: Mapping[str, Any], name: str) -> str | None:
    words = str(entry.get("cmd", "")).split()
    return words[words.index(name) + 1] if name in words[:-1] else None


def _datasets(lock: Mapping[str, Any]) -> list[str]:
    found = [_option(entry, "--dataset") for n, entry in lock.items() if n.startswith("evaluate")]
    return [name for name in found if name]


def _results(ws: Workspace, dataset: str) -> list[Result]:
    return read_csv(ws.root / workspace.results(dataset))


def _committed(ws: Workspace, dataset: str) -> list[Result]:
    path = workspace.results(dataset)
    content = provenance.file_at(ws.root, "HEAD", f"./{path}")
    if content is None:
        raise InputError(f"the last commit has no {path} to compare with")
    return parse_csv(content, f"{path} of the last commit")
