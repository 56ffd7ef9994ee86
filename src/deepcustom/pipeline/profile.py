"""Profiles: whole sets of settings, each run in a folder of its own.

``default`` is ``params.yaml`` in the project's folder. Any other profile is a file in ``profiles/`` that
is laid over ``params.yaml`` and may remove rows and subjects. It runs in a workspace with its own params,
models, data, DVC cache and git repository, so that it never touches the results of the default profile.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from deepcustom.base.errors import (
    InputError,
    UnknownNameError,
)
from deepcustom.base.files import remove, replace_file
from deepcustom.base.params import read_params
from deepcustom.base.rows import HARDENING, LAYOUTS, START, SUBJECTS, overlay, rows
from deepcustom.pipeline import repository
from deepcustom.pipeline.code_lock import LOCK
from deepcustom.pipeline.dvc import run_dvc
from deepcustom.pipeline.outputs import keep_folders
from deepcustom.pipeline.provenance import ORIGIN, note_origin
from deepcustom.pipeline.template import CHARTS_HERE
from deepcustom.pipeline.this_machine import check_machine
from deepcustom.pipeline.workspace import OWN_CODE, RAW, Workspace, producer

COPIED = ("src", "examples", *OWN_CODE, "dvc.yaml", LOCK, ".dvcignore", CHARTS_HERE)
"""What a workspace has a copy of, where the project has it."""


def names(ws: Workspace) -> list[str]:
    """The names of all profiles, ``default`` first."""
    return ["default", *sorted(file.stem for file in (ws.root / "profiles").glob("*.yaml"))]


def settings(ws: Workspace, profile: str) -> dict[str, Any]:
    """The whole params of ``profile``.

    Raises:
        UnknownNameError: there is no such profile; the message lists the ones there are.
        ParamsError: a file is not a YAML mapping.
    """
    if profile not in names(ws):
        raise UnknownNameError("profile", profile, names(ws))
    base = read_params(ws.params)
    if profile == "default":
        return base
    return laid_over(base, read_params(ws.root / "profiles" / f"{profile}.yaml"))


def laid_over(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the values of ``over``.

    A row that ``over`` sets to null is removed, and so is a subject, with all of its rows.
    """
    merged = overlay(base, over)
    named = over.get(SUBJECTS)
    gone = (
        [name for name, one in named.items() if one is None] if isinstance(named, Mapping) else []
    )

    def stays(section: str, key: str, one: Any) -> bool:
        subject = one.get("subject", key) if isinstance(one, Mapping) else key
        return one is not None and (section == "prepare" or subject not in gone)

    for name in (SUBJECTS, *LAYOUTS):
        below = merged.get(name)
        if isinstance(below, Mapping):
            merged[name] = {key: one for key, one in below.items() if stays(name, key, one)}
    return merged


def folder_of(ws: Workspace, profile: str, folder: Path | None = None) -> Path:
    """Where ``profile`` runs: ``folder``, or the project for ``default``, or ``workspaces/<profile>``.

    Raises:
        UnknownNameError: there is no such profile.
    """
    if profile not in names(ws):
        raise UnknownNameError("profile", profile, names(ws))
    if folder is not None:
        return folder.resolve()
    return ws.root if profile == "default" else ws.root / "workspaces" / profile


def workspace(ws: Workspace, profile: str, folder: Path | None = None) -> Workspace:
    """Make the folder that ``profile`` runs in, or bring it up to date.

    Args:
        ws: the project.
        profile: a name of :func:`names`.
        folder: where; by default the project itself for ``default``, else ``workspaces/<profile>``.

    Returns:
        A workspace with the profile's params and a copy of the code as it now stands, committed in a git
        repository of its own.

    Raises:
        UnknownNameError, ParamsError: as :func:`settings` and :func:`deepcustom.pipeline.check.check`.
        InputError: the folder holds something else, which a workspace would overwrite; or git failed.
    """
    from deepcustom.pipeline.check import check  # which loads torch

    tree = settings(ws, profile)
    check(ws.root, tree)
    root = folder_of(ws, profile, folder)
    if root == ws.root and profile == "default":
        keep_folders(root, tree)
        return ws
    _refuse_foreign(ws, root)
    root.mkdir(parents=True, exist_ok=True)
    repository.begin(root)
    for name in COPIED:
        _copy(ws.root / name, root / name)
    note_origin(root, ws.root)
    replace_file(root / "params.yaml", yaml.safe_dump(tree, sort_keys=False).encode())
    keep_folders(root, tree)
    (ws.root / RAW).mkdir(parents=True, exist_ok=True)
    shared = (RAW, *brought(tree))
    for path in shared:
        _share(ws.root / path, root / path)
    repository.commit(root, f"The profile {profile}", shared)
    return Workspace(root)


def brought(tree: Mapping[str, Any]) -> list[str]:
    """The images and the weights of the user's own that rows name."""
    named = {"prepare": "path", "train_target": "weights"}
    paths = [one.settings.get(key) for stage, key in named.items() for one in rows(tree, stage)]
    paths += [one.about.get(START) for stage in HARDENING for one in rows(tree, stage)]
    return [path for path in paths if isinstance(path, str) and not producer(path)]


def _share(source: Path, link: Path) -> None:
    """Let a workspace read what no stage changes; a link to where the project lay before is made anew."""
    if link.is_symlink() and link.resolve() != source.resolve():
        link.unlink()
    if source.exists() and not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(source, target_is_directory=source.is_dir())


def _refuse_foreign(ws: Workspace, root: Path) -> None:
    """Refuse a folder that is not new, empty, or a workspace already, since its ``src`` will be replaced.

    Raises:
        InputError: it is none of these, or lies in the code.
    """
    if any(root.is_relative_to(ws.root / name) for name in COPIED):
        raise InputError(f"{root} lies in the project's code: name a folder elsewhere")
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return
    repository_of_another = (root / ".git").exists() and not (root / ORIGIN).is_file()
    if repository_of_another or (root / "profiles").exists() or not (root / ".dvc").is_dir():
        raise InputError(f"{root} holds something else: name a new folder or a workspace")


def _copy(source: Path, copy: Path) -> None:
    """Replace ``copy`` with ``source``; without a ``source``, only remove ``copy``."""
    remove(copy)
    if source.is_file():
        shutil.copy2(source, copy)
    elif source.is_dir():
        shutil.copytree(source, copy, ignore=_left_out)


def _left_out(folder: str, names: list[str]) -> set[str]:
    """What Python writes beside code, and projects of their own, whose images may be many."""
    written = shutil.ignore_patterns("__pycache__", "*.egg-info")(folder, names)
    return written | {name for name in names if (Path(folder) / name / "params.yaml").is_file()}


def reproduce(ws: Workspace, targets: Sequence[str], project: Workspace) -> int:
    """``dvc repro`` in a workspace of ``project``, with that workspace's code; returns its exit code.

    The workspace's repository gets a commit of the results, from which experiments can begin.

    Raises:
        ParamsError, InputError: this machine, or the cluster, is not what the settings ask for.
    """
    check_machine(read_params(ws.params))
    if ws.root == project.root:
        return run_dvc(ws.root, ["repro", *targets], check=False)
    paths = [str(ws.root / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {"PYTHONPATH": os.pathsep.join(paths)}
    code = run_dvc(ws.root, ["repro", *targets], check=False, env=own)
    if code == 0:
        repository.commit(ws.root, "Results")
    return code
