"""What is set up in a project, and what is missing there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deepcustom.base.errors import DeepCustomError, some_of
from deepcustom.base.params import read_params
from deepcustom.base.rows import rows
from deepcustom.data.sources import FOLDER_VARIABLE
from deepcustom.pipeline import dvc, provenance, workspace
from deepcustom.pipeline.code_lock import LOCK, check_lock, has_sources
from deepcustom.pipeline.doctor.finding import Finding
from deepcustom.pipeline.doctor.locked import absent, stale
from deepcustom.pipeline.this_machine import check_machine
from deepcustom.pipeline.watch.plan import plan
from deepcustom.pipeline.watch.quantities import counted

PATIENCE = 5.0  # seconds that a remote has to answer
FEW = 3


def git(root: Path) -> Finding:
    """Whether git is there, and reads the project's repository."""
    if shutil.which("git") is None:
        return Finding("git", "missing", "no program git: DVC and records want it", "", True)
    if why := provenance.trouble(root):
        mend = f"git config --global --add safe.directory {shlex.quote(str(root))}"
        ours = mend if "safe.directory" in why else ""
        return Finding("git", "cannot", re.sub(r" To add an exception.*", "", why), ours, True)
    if provenance.repository(root) is None:
        return Finding("git", "missing", "no repository: records name no commit", "git init")
    return Finding("git", "ok", "the repository can be read")


def dvc_folder(root: Path) -> Finding:
    """Whether the project is one of DVC."""
    if (root / ".dvc").is_dir():
        return Finding("dvc", "ok", "set up")
    top = provenance.repository(root)
    way = "" if top == root.resolve() else " --subdir" if top else " --no-scm"
    return Finding("dvc", "missing", "no folder .dvc: stages cannot run", f"dvc init{way}", True)


def params(root: Path) -> Finding:
    """Whether ``params.yaml`` passes the checks that ``deepcustom repro`` makes."""
    from deepcustom.pipeline.check import check

    try:
        tree = read_params(root / "params.yaml")
        check(root, tree)
        check_machine(tree)
    except DeepCustomError as error:
        return Finding("params", "cannot", str(error), "", True)
    return Finding("params", "ok", "params.yaml passes every check")


def pipeline(root: Path) -> Finding:
    """Whether ``dvc.yaml`` and ``deepcustom.lock`` are those of the code of now."""
    from deepcustom.pipeline.code import stages_of
    from deepcustom.pipeline.template import TEMPLATE, render

    mend = "deepcustom upgrade"
    try:
        if (root / "dvc.yaml").read_text() != render(root):
            return Finding("dvc.yaml", "cannot", "for other code than that of now", mend, True)
        if not has_sources(root):
            for stage in stages_of(TEMPLATE.parents[1]):
                check_lock(root, stage)
    except DeepCustomError as error:
        return Finding(LOCK, "cannot", str(error).partition(": `")[0], mend, True)
    return Finding("dvc.yaml", "ok", "that of the code of now")


def remote(root: Path) -> Finding:
    """Whether there is a remote of DVC, and whether it answers."""
    add = "dvc remote add --default NAME URL"
    try:
        name, url = dvc.remote(root)
    except DeepCustomError as error:
        if "no default remote" in str(error):
            return Finding("remote", "missing", "none: models lie on this machine alone", add)
        return Finding("remote", "cannot", str(error), "", True)
    why = _within(PATIENCE, lambda: _trouble_of_remote(root, name, url))
    if why is not None:
        mend = f"dvc remote modify {name} url URL"
        return Finding("remote", "cannot", f"{name} ({_shown(url)}): {why}", mend)
    return Finding("remote", "ok", f"{name} answers")


def models(root: Path, lock: Mapping[str, Any]) -> Finding:
    """Whether the trained networks that ``dvc.lock`` names are here."""
    named = [
        out["path"]
        for entry in lock.values()
        for out in entry.get("outs", ())
        if out["path"].startswith("models/")
    ]
    gone = [path for path in absent(root, lock) if path in named]
    if not named:
        return Finding("models", "missing", "none is trained yet", "dvc repro")
    if gone:
        says = f"{len(gone)} of {len(named)} are not here, such as {gone[0]}"
        return Finding("models", "missing", says, _fetch(root))
    return Finding("models", "ok", f"all {len(named)} are here")


def _fetch(root: Path) -> str:
    try:
        dvc.remote(root)
    except DeepCustomError:
        return "dvc repro"
    return "deepcustom pull"


def raw(root: Path, tree: Mapping[str, Any]) -> list[Finding]:
    """For each data set, whether its images are here, or where they come from."""
    return [_images(root, one.name, one.settings) for one in rows(tree, "prepare")]


def _images(root: Path, name: str, settings: Mapping[str, Any]) -> Finding:
    what, path = f"images of {name}", settings.get("path")
    if (root / workspace.dataset(name)).is_file():
        return Finding("images", "ok", f"{name}: prepared")
    if settings.get("source") == "built_in":
        folder = root / workspace.RAW / name
        if (folder.is_dir() and any(folder.iterdir())) or os.environ.get(FOLDER_VARIABLE):
            return Finding("images", "ok", f"{name}: downloaded")
        return Finding("images", "missing", f"{what}: not fetched yet", f"dvc repro prepare@{name}")
    if path is None or (root / str(path)).exists():
        return Finding("images", "ok", f"{name}: there")
    kept = f"{path}.dvc"
    if (root / kept).is_file():
        return Finding("images", "missing", f"{what}: {path}", f"dvc pull {kept}", True)
    return Finding("images", "missing", f"{what}: copy them to {path}", "", True)


def stages(root: Path, lock: Mapping[str, Any]) -> Finding:
    """Which stages will run anew."""
    found = plan(root, ["dvc", "repro"])
    if found is None:
        return Finding(
            "stages", "cannot", "dvc.yaml cannot be read", "deepcustom upgrade", hinders=True
        )
    old = stale(root, lock, list(found.stages))
    if old:
        says = f"{counted(len(old), 'stage')} of {len(found.stages)} will run: {some_of(old, FEW)}"
        return Finding("stages", "missing", says, "dvc repro")
    says = f"all {len(found.stages)} ran with these settings and code"
    gone = absent(root, lock).keys()
    lacking = [
        name
        for name in found.stages
        if any(out["path"] in gone for out in lock[name].get("outs", ()))
    ]
    if lacking:
        return Finding(
            "stages", "missing", f"{says}; files of {len(lacking)} are not here", "dvc repro"
        )
    return Finding("stages", "ok", says)


def store(root: Path) -> Finding:
    """Whether the store of runs can be used."""
    from deepcustom.base.errors import TrackingError
    from deepcustom.tracking.store import tried

    try:
        there = tried(root)
    except TrackingError as error:
        commands = re.findall(r"`([^`]+)`", str(error))
        otherwise = "unset MLFLOW_TRACKING_URI" if os.environ.get("MLFLOW_TRACKING_URI") else ""
        mend = commands[0] if commands else otherwise
        return Finding("mlflow", "cannot", str(error).replace("`", ""), mend, True)
    return Finding(
        "mlflow", "ok", "the store answers" if there else "no store yet: a stage makes it"
    )


def _trouble_of_remote(root: Path, name: str, url: str) -> str | None:
    """Why a remote does not answer; None if it does."""
    if "://" not in url:
        return None if Path(url).is_dir() else "no such folder"
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            odb = repo.cloud.get_remote_odb(name)
            odb.fs.exists(odb.path)  # whether anything was pushed yet does not matter
    except Exception as error:  # each kind of storage has errors of its own
        return _shown(" ".join(str(error).split())) or type(error).__name__
    return None


def _shown(text: str) -> str:
    """Without user and password."""
    return re.sub(r"://\S*@", "://", text)


def _within(seconds: float, ask: Callable[[], str | None]) -> str | None:
    """What ``ask`` returns, or that it took too long."""
    found: list[str | None] = []
    thread = threading.Thread(target=lambda: found.append(ask()), daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else f"no answer in {seconds:.0f} seconds"
