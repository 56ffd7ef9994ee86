"""Checks that every row names the files that it runs and reads, so that DVC sees all of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

from deepcustom.attacks.losses.base import find_loss
from deepcustom.base.errors import ParamsError
from deepcustom.base.image_settings import BuiltInParams, prepare_model
from deepcustom.base.params import section, validate
from deepcustom.base.rows import HARDENING, LAYOUTS, Row, adversarial_sets, rows
from deepcustom.hardening.ways import way_of
from deepcustom.pipeline import workspace
from deepcustom.pipeline.code import OWN, PREFIX, below, closure, closure_of, loaded_package
from deepcustom.pipeline.code_lock import LOCK, has_sources, may_run
from deepcustom.pipeline.starts import check_start
from deepcustom.pipeline.template import own_code

ONLINE = f"{PREFIX}hardening/online.py"
OWN_DATA = f"{OWN}/data"
TAKEN = (
    *("src", OWN_DATA, f"{OWN}/nets", f"{OWN}/losses", "models", "reports", "workspaces"),
    *("data/prepared", "data/analysis", "data/adversarial", "data/raw"),
)
"""The folders of a project that hold no images of the user's own."""


def check_files(root: Path, tree: Mapping[str, Any]) -> None:
    """Check ``code``, ``reads`` and ``start`` of every row that has them.

    Args:
        root: the project's folder, which is also the current one.
        tree: its whole ``params.yaml``, whose other keys are checked already.

    Raises:
        ParamsError: a row names the wrong file. The message is one line: the key, what it names, what it
            should name.
    """
    more_of = cache(partial(extra_code, root))  # many rows have the same stage and code
    for stage, layout in LAYOUTS.items():
        for one in rows(tree, stage) if layout.files else ():
            if one.stage in HARDENING:
                check_start(root, tree, one)
            wanted = wanted_files(root, tree, one)
            for key, (path, reason) in wanted.items():
                if one.about[key] not in stand_ins(root, one, path):
                    must_be(one, key, path, reason)
            if "code" in layout.files and stage != "prepare":
                free = () if "reads" in wanted else (one.about["reads"],)
                _no_more(root, one, free, more_of)


def wanted_files(root: Path, tree: Mapping[str, Any], one: Row) -> dict[str, tuple[str, str]]:
    """The files that a row must name as ``code`` and ``reads``, each with the reason.

    A way of hardening that reads no adversarial set leaves ``reads`` free: see :func:`extra_code`.

    Args:
        root: the project's folder, which is also the current one.
        tree: its whole ``params.yaml``.
        one: a row of a section whose rows name files; its own ``code`` and ``reads`` do not matter.

    Raises:
        ParamsError: the row needs an analysis or an adversarial set that no other row makes.
    """
    if one.stage == "prepare":
        return {"reads": _source(one)}
    if one.stage == "train_target":
        weights = one.settings.get("weights")
        if weights is not None:
            return {"reads": (str(weights), "the weights that the network starts from")}
        return {"reads": (workspace.split(one.dataset, "train"), "since it names no weights")}
    if one.stage == "adversarial_train":
        return _files_of_way(root, tree, one)
    train = workspace.split(one.dataset, "train")
    loss = one.settings["loss"]
    if loss is None:
        return {
            "code": (ONLINE, "which trains without a loss of its own"),
            "reads": (train, "since no loss reads an analysis"),
        }
    otherwise = workspace.target(one.subject) if one.stage == "train_dgn" else train
    return _files_of_loss(root, tree, one, str(loss), otherwise)


def _source(one: Row) -> tuple[str, str]:
    """What a row of ``prepare`` reads: the file of a built-in data set, or the images.

    Raises:
        ParamsError: the images lie outside the project, or where it keeps something else.
    """
    params = validate(prepare_model(one.settings, one.place), one.settings, one.place)
    if isinstance(params, BuiltInParams):
        return f"{PREFIX}data/{one.name}.py", "the file of the data set"
    if params.path is None:
        return OWN_DATA, "since it names no path, and its function lies there"
    path = PurePosixPath(params.path)
    problem = ""
    if path.is_absolute() or ".." in path.parts or path.as_posix() != params.path:
        problem = "must lie in the project, as a path such as data/images"
    elif any(path.is_relative_to(one) or PurePosixPath(one).is_relative_to(path) for one in TAKEN):
        problem = f"must lie beside these, which hold something else: {', '.join(TAKEN)}"
    if problem:
        raise ParamsError(f"params.yaml: {one.place}.path {problem}; found {params.path}")
    return params.path, "the path of its images"


def _files_of_loss(
    root: Path, tree: Mapping[str, Any], one: Row, loss: str, otherwise: str
) -> dict[str, tuple[str, str]]:
    """The loss's file, and the analyses that it requires."""
    found = find_loss(loss)
    code = _path(root, found), f"the file of the loss {loss}"
    for name in found.requires:
        section(tree, name, one.subject)  # raises if no row makes the analysis
    made = [workspace.analysis(one.subject, name) for name in found.requires]
    if len(made) == 1:
        reads = made[0], f"which the loss {loss} requires"
    elif made:
        reads = str(Path(made[0]).parent), f"the folder of all that the loss {loss} requires"
    else:
        reads = otherwise, f"since the loss {loss} requires no analysis"
    return {"code": code, "reads": reads}


def _files_of_way(root: Path, tree: Mapping[str, Any], one: Row) -> dict[str, tuple[str, str]]:
    """The file of a way of hardening, and the adversarial set that it reads, if it reads one."""
    kind = way_of(one.settings, one.place, one.stage)
    code = _path(root, kind), f"the file of type {one.settings['type']}"
    if not kind.reads_set:
        return {"code": code}
    network, sets = one.about["network"], adversarial_sets(tree, one.subject, "train")
    if network not in sets:
        raise ParamsError(
            f"params.yaml: {one.place}: type {one.settings['type']} trains on the set of its own name, "
            f"and no row of generate or attack makes {network} of train; there are: {', '.join(sets)}"
        )
    reads = workspace.adversarial(one.subject, "train", network), "the set that it trains on"
    return {"code": code, "reads": reads}


def extra_code(root: Path, stage: str, code: str) -> list[str]:
    """The code that ``code`` imports beyond what every row of ``stage`` runs.

    A row can name one such file as ``reads``, so that DVC hashes it too.
    """
    ours = closure(stage) if has_sources(root) else may_run(stage)
    known = {code, *(PREFIX + path for path in ours)}
    return [path for path in closure_of(code, root) if path not in known]


def _no_more(
    root: Path, one: Row, reads: tuple[str, ...], more_of: Callable[[str, str], list[str]]
) -> None:
    """Refuse a row that runs code which neither the row nor its stage in ``dvc.yaml`` names."""
    code = one.about["code"]
    if code in stand_ins(root, one, ONLINE):  # the lock covers all code of the package
        return
    folders = own_code(root, one.stage)
    more = [
        path
        for path in more_of(one.stage, code)
        if path not in reads and not any(path.startswith(f"{folder}/") for folder in folders)
    ]
    if more:
        raise ParamsError(
            f"params.yaml: {one.place}: {code} imports {more[0]}, which DVC would not see: "
            "move what it needs into that file"
            + (", or name it as reads" if one.stage == "adversarial_train" else "")
        )


def stand_ins(root: Path, one: Row, wanted: str) -> tuple[str, ...]:
    """What a row may name in place of a file of the package, where the project lacks the package's sources.

    There every stage depends on its own line of ``deepcustom.lock``, so the row needs no more. It names a
    file that it depends on anyway: the description of the data set, or for ``prepare``, which makes that, the
    lock. A row may also name the lock as a whole; then it runs again after a change of any stage's code.

    Args:
        root: the project.
        one: the row.
        wanted: the file in whose place it stands.

    Returns:
        The paths, the one to be chosen first; none where the file itself has to be named.
    """
    if not wanted.startswith(PREFIX) or has_sources(root):
        return ()
    return (LOCK,) if one.stage == "prepare" else (workspace.dataset(one.dataset), LOCK)


def _path(root: Path, thing: type) -> str:
    """The file of a class, as a path relative to the project."""
    file = Path(inspect.getfile(thing))
    package = loaded_package().resolve()
    if file.resolve().is_relative_to(package):
        return PREFIX + file.resolve().relative_to(package).as_posix()
    path = below(file, root)
    if path is None:
        raise ParamsError(
            f"params.yaml: {thing.__module__}:{thing.__qualname__} lies outside the project, where DVC does "
            f"not see it: {file.name}"
        )
    return path.as_posix()


def must_be(one: Row, key: str, wanted: str, reason: str) -> None:
    """Check that a row has the ``wanted`` value at ``key``.

    Raises:
        ParamsError: it has another; the message is one line.
    """
    if one.about[key] != wanted:
        raise ParamsError(
            f"params.yaml: {one.place}.{key} must be {wanted}, {reason}; found {one.about[key]}"
        )
