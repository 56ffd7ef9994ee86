"""Scores the published networks again, on test sets made anew, and compares with the committed tables."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from deepcustom.base.errors import DeepCustomError, InputError, OutputError, TrackingError
from deepcustom.base.hashes import dvc_md5
from deepcustom.base.rows import TRAINING
from deepcustom.evaluation.comparison import Comparison, compare, comparison_lines
from deepcustom.evaluation.results import Result, parse_csv
from deepcustom.evaluation.scoring import quick_rows
from deepcustom.pipeline import dvc, profile, provenance, workspace
from deepcustom.pipeline.check import check
from deepcustom.pipeline.remake import PREPARE, RunCommand, remake
from deepcustom.pipeline.workspace import Workspace
from deepcustom.tracking.record import RUN_FILE
from deepcustom.tracking.store import send_kept

SCORING = (PREPARE, "generate", "attack")
"""The stages that lead from trained networks to what they are scored on, in the order to run them."""

BACK = "`git checkout reports` brings the committed records back"
SHOWN = 4  # warnings of one kind


def rescore(
    ws: Workspace, run: RunCommand, say: Callable[[str], None] = print
) -> tuple[list[Result], list[Comparison]]:
    """Pull the models that are missing, and compute the tables' numbers again; train nothing.

    Only what takes minutes runs: see :func:`deepcustom.evaluation.scoring.quick_rows`. This writes
    the test sets, the records of how they were made, and the store of scores, and nothing else. Meanwhile
    DVC is kept out of the project.

    Args:
        ws: a git checkout with ``dvc.lock``.
        run: runs a command of ``dvc.lock``.
        say: receives each line for the user.

    Returns:
        The new results of all data sets, and how they compare with those of the last commit.

    Raises:
        ParamsError: ``params.yaml`` has a mistake.
        InputError: ``dvc.lock`` or the last commit lacks a table, or a model is neither here nor in
            a remote.
        DeepCustomError: DVC or a stage failed.
    """
    check(ws.root, profile.settings(ws, "default"))
    # What dvc.lock and the last commit hold.
    there = dvc.stage_names(ws.root)
    lock = {name: entry for name, entry in dvc.read_lock(ws.root).items() if name in there}
    evaluated = [name for name in there if name.split("@")[0] == "evaluate"]
    lacking = [name for name in evaluated if name not in lock]
    if lacking or not evaluated:  # without a target DVC would run the whole pipeline
        raise InputError(
            f"dvc.lock has no {', '.join(lacking) or 'evaluate'}: `make repro` trains and scores"
        )
    names = [str(_option(lock[name], "--subject")) for name in evaluated]
    committed = {name: _committed(ws, name) for name in names}
    # Models, with a warning for each that dvc.lock or the code no longer matches.
    _fetch(ws, lock)
    for lines in (foreign(ws, lock), outdated(ws, lock)):
        for line in lines[:SHOWN]:
            say(f"warning: {line}")
        if lines[SHOWN:]:
            say(f"warning: and {len(lines) - SHOWN} more like this")
    # Test sets, scores, comparison.
    begun = time.time()
    stages = {name: lock[name]["cmd"] for name in scoring_stages(lock)}
    with dvc.kept_out(ws.root):
        found = remake(ws, stages, names, run)
        try:
            dvc.keep_outputs(ws.root, stages)
        except OutputError as error:  # what was measured is to be shown all the same
            say(f"warning: {error}")
    _send(ws, begun)
    compared = [compare(committed[name], found[name], name) for name in names]
    return [result for results in found.values() for result in results], compared


def scoring_stages(lock: Mapping[str, Any]) -> list[str]:
    """The stages in ``dvc.lock`` that make the test sets, in the order to run them."""
    found: list[tuple[int, str]] = []
    for name, entry in lock.items():
        stage, split = name.split("@")[0], _option(entry, "--split")
        if stage in SCORING and split in (None, "test"):
            found.append((SCORING.index(stage), name))
    return [name for _, name in sorted(found, key=lambda one: one[0])]


def foreign(ws: Workspace, lock: Mapping[str, Any]) -> list[str]:
    """A line for each model that differs from the one in ``dvc.lock``."""
    return [
        f"{path} is not the one of dvc.lock (`dvc checkout --force {path}` brings that back)"
        for path, md5 in _models(lock).items()
        if dvc_md5(ws.root / path) != md5
    ]


def outdated(ws: Workspace, lock: Mapping[str, Any]) -> list[str]:
    """A line for each stage that leads to the models and has changed code, settings or inputs."""
    leading = _leading(lock)
    lines = []
    for name, reasons in dvc.status(ws.root).items() if leading else []:
        if name not in leading:
            continue
        changed = [what for reason in reasons for what in _changes(reason)]
        if changed:
            what = ", ".join(dict.fromkeys(changed))
            lines.append(f"{name} would run anew, and the models be others: {what} changed")
    return lines


def say_differences(found: Sequence[Comparison], say: Callable[[str], None]) -> None:
    """Say for each data set whether its numbers equal the committed ones, or what differs.

    Raises:
        DeepCustomError: a number is missing, new, measured on other images, or outside the committed 95 %
            interval.
    """
    for one in found:
        for line in comparison_lines(one):
            say(line)
    unlike = [one.dataset for one in found if not one.alike]
    if unlike:
        names = ", ".join(unlike)
        raise DeepCustomError(f"{names}: other results than the committed ones, see above; {BACK}")


def _fetch(ws: Workspace, lock: Mapping[str, Any]) -> None:
    """Pull the models if any is missing."""
    models = _models(lock)

    def absent() -> list[str]:
        return [path for path in models if not (ws.root / path).is_file()]

    if absent():
        trained = dict.fromkeys(name.split("@")[0] for name in lock)
        # DVC prints why it fails, and the error below names what is still missing.
        dvc.run_dvc(ws.root, ["pull", *(s for s in TRAINING if s in trained)], check=False)
    missing = absent()
    if missing:
        raise InputError(
            f"{missing[0]} is neither here nor in the remote storage ({len(missing)} of "
            f"{len(models)} models): `make repro` trains what is missing"
        )


def _send(ws: Workspace, begun: float) -> None:
    """Send the records that were written since then to MLflow, all at once."""
    made = [file for file in ws.runs.rglob(RUN_FILE) if file.stat().st_mtime >= begun]
    try:
        send_kept([file.parent for file in sorted(made)], ws.root)
    except TrackingError as error:
        print(f"warning: {error}", file=sys.stderr)


def _changes(reason: Any) -> list[str]:
    """What changed, without files that merely have not been fetched or made."""
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


def _models(lock: Mapping[str, Any]) -> dict[str, str]:
    """Path → md5 of every model."""
    outs = [out for entry in lock.values() for out in entry.get("outs", [])]
    return {out["path"]: out["md5"] for out in outs if out["path"].startswith("models/")}


def _leading(lock: Mapping[str, Any]) -> set[str]:
    """The stages that train networks, and those that make what they read, and so on."""
    maker = {out["path"]: name for name, entry in lock.items() for out in entry.get("outs", [])}
    found: set[str] = set()
    new = {name for name in lock if name.split("@")[0] in TRAINING}
    while new:
        found |= new
        read = {dep["path"] for name in new for dep in lock[name].get("deps", [])}
        new = {maker[path] for path in read if path in maker} - found
    return found


def _option(entry: Mapping[str, Any], name: str) -> str | None:
    words = str(entry.get("cmd", "")).split()
    return words[words.index(name) + 1] if name in words[:-1] else None


def _committed(ws: Workspace, dataset: str) -> list[Result]:
    path = workspace.results(dataset)
    content = provenance.file_at(ws.root, "HEAD", f"./{path}")
    if content is None and (why := provenance.trouble(ws.root)):
        raise InputError(f"the last commit, which {path} is compared with, cannot be read: {why}")
    if content is None:
        raise InputError(f"the last commit has no {path} to compare with")
    return quick_rows(parse_csv(content, f"{path} of the last commit"))
