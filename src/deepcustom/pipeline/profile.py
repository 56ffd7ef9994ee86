"""Profiles: whole sets of settings, each run in a folder of its own.

``default`` is ``params.yaml`` in the project's folder. Any other profile is a file in ``profiles/`` that
is laid over it; it runs in a workspace with its own params, models, data and DVC cache, so that it never
touches the results of the default profile.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from deepcustom.base.errors import (
    InputError,
    LossError,
    ParamsError,
    UnknownNameError,
)
from deepcustom.base.params import (
    RelevanceParams,
    TrainDgnParams,
    online_names,
    read_params,
    validate,
)
from deepcustom.base.params_check import check
from deepcustom.data.datasets import SPECS, spec
from deepcustom.pipeline.dvc import run_dvc
from deepcustom.pipeline.provenance import CHECKOUT
from deepcustom.pipeline.workspace import Workspace

COPIED = ("src", "examples", "dvc.yaml")


def names(ws: Workspace) -> list[str]:
    """The profiles there are, ``default`` first."""
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
    return _overlay(base, read_params(ws.root / "profiles" / f"{profile}.yaml"))


def _overlay(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the values of ``over``; mappings are merged, everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = _overlay(below, value) if both else value  # type: ignore[arg-type]
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
    """The folder that ``profile`` runs in, made or brought up to date.

    Args:
        ws: the project.
        profile: a name of :func:`names`.
        folder: where; by default the project itself for ``default``, else ``workspaces/<profile>``.

    Returns:
        A workspace with the profile's params and a copy of the code as it now stands.

    Raises:
        UnknownNameError, ParamsError: as :func:`settings` and :func:`check_all`.
        InputError: the folder holds something else, which a workspace would overwrite.
    """
    tree = settings(ws, profile)
    check_all(ws, tree)
    root = folder_of(ws, profile, folder)
    if root == ws.root and profile == "default":
        return ws
    _refuse_foreign(ws, root)
    root.mkdir(parents=True, exist_ok=True)
    if not (root / ".dvc").exists():
        run_dvc(root, ["init", "--quiet", "--no-scm"])
    for name in COPIED:
        _copy(ws.root / name, root / name)
    (root / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    raw = root / "data/raw"
    if not raw.exists():
        (ws.root / "data/raw").mkdir(parents=True, exist_ok=True)
        raw.parent.mkdir(parents=True, exist_ok=True)
        raw.symlink_to(ws.root / "data/raw", target_is_directory=True)
    return Workspace(root)


def check_all(ws: Workspace, tree: Mapping[str, Any]) -> None:
    """Check every setting before any work starts; losses come last, since they import torch.

    Raises:
        UnknownNameError: ``dvc.yaml`` lists a data set that there is not.
        ParamsError: in one line: the key, what it holds, and what is allowed.
    """
    from deepcustom.hardening.ways import way_of

    used = check(tree, way_of, _datasets(ws), SPECS)
    for dataset in used:
        most = math.prod(SPECS[dataset].shape)
        k = validate(RelevanceParams, tree["relevance"][dataset], f"relevance.{dataset}").k
        if k > most:
            raise ParamsError(
                f"params.yaml: relevance.{dataset}.k must be at most {most}, found {k}"
            )
    with contextlib.chdir(ws.root):  # where a user's own loss is imported from
        for dataset in used:
            for name, values in tree["train_dgn"][dataset].items():
                where = f"train_dgn.{dataset}.{name}"
                bank = validate(TrainDgnParams, values, where)
                _check_loss(bank.loss, bank.options, where)
            for name in online_names(tree, dataset):
                from deepcustom.hardening.online import OnlineSettings

                where = f"adversarial_train.{dataset}.{name}"
                online = validate(OnlineSettings, tree["adversarial_train"][dataset][name], where)
                if online.loss is not None:
                    _check_loss(online.loss, online.options, where)


def _datasets(ws: Workspace) -> list[str] | None:
    """The data sets that ``dvc.yaml`` lists; None where it has no such list.

    Raises:
        UnknownNameError: there is no such data set.
    """
    parts = read_params(ws.root / "dvc.yaml").get("vars")
    for part in parts if isinstance(parts, list) else []:
        if isinstance(part, Mapping) and isinstance(part.get("datasets"), list):
            return [spec(str(name)).name for name in part["datasets"]]
    return None


def _check_loss(loss: str, given: Mapping[str, Any], where: str) -> None:
    """Whether there is such a loss, and whether it takes these options.

    Raises:
        ParamsError: in one line.
    """
    from deepcustom.attacks.losses import find_loss

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


def _refuse_foreign(ws: Workspace, root: Path) -> None:
    """A workspace's ``src`` is replaced, so its folder must be new, empty, or a workspace already.

    Raises:
        InputError: it is none of these, or lies in the code.
    """
    if any(root.is_relative_to(ws.root / name) for name in COPIED):
        raise InputError(f"{root} lies in the project's code: name a folder elsewhere")
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return
    project = any((root / name).exists() for name in (".git", "profiles"))
    if project or not (root / ".dvc").is_dir():
        raise InputError(f"{root} holds something else: name a new folder or a workspace")


def _copy(source: Path, copy: Path) -> None:
    """Make ``copy`` the same as ``source``, or nothing where there is no ``source``."""
    if copy.is_dir():
        shutil.rmtree(copy)
    if source.is_file():
        shutil.copy2(source, copy)
    elif source.is_dir():
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(source, copy, ignore=ignore)


def reproduce(ws: Workspace, targets: Sequence[str], project: Workspace) -> int:
    """``dvc repro`` in a workspace of ``project``, with that workspace's code; returns its exit code."""
    own: dict[str, str] = {}
    if ws.root != project.root:
        paths = [str(ws.root / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
        own = {"PYTHONPATH": os.pathsep.join(paths), CHECKOUT: str(project.root)}
    return run_dvc(ws.root, ["repro", *targets], check=False, env=own)
