"""Whether the files that rows name are the ones that they run and read, so that DVC sees all of them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepcustom.attacks.losses.base import find_loss
from deepcustom.base.errors import ParamsError
from deepcustom.base.params import section
from deepcustom.base.rows import Row, adversarial_sets, rows
from deepcustom.hardening.ways import way_of
from deepcustom.pipeline import workspace
from deepcustom.pipeline.code import PREFIX, closure, closure_of, loaded_package
from deepcustom.pipeline.code_lock import LOCK, has_sources

ONLINE = f"{PREFIX}hardening/online.py"


def check_files(root: Path, tree: Mapping[str, Any]) -> None:
    """Check ``code`` and ``reads`` of every row that has them.

    Args:
        root: the project's folder, which is also the current one.
        tree: the whole of its params, checked but for these.

    Raises:
        ParamsError: in one line: the key, what it names, and what it should.
    """
    for one in rows(tree, "prepare"):
        _code_is(root, one, f"{PREFIX}data/{one.name}.py", "the file of the data set")
    for one in rows(tree, "train_dgn"):
        _check_loss(root, tree, one, str(one.settings["loss"]), workspace.target(one.subject))
    for one in rows(tree, "train_online"):
        loss, train = one.settings["loss"], workspace.split(one.dataset, "train")
        if loss is None:
            _code_is(root, one, ONLINE, "which trains without a loss of its own")
            must_be(one, "reads", train, "since no loss reads an analysis")
        else:
            _check_loss(root, tree, one, str(loss), train)
    for one in rows(tree, "adversarial_train"):
        _check_way(root, tree, one)


def _check_loss(root: Path, tree: Mapping[str, Any], one: Row, loss: str, otherwise: str) -> None:
    """A row that trains on a loss: its file, and the analyses that it requires."""
    found = find_loss(loss)
    _code_is(root, one, _path(root, found), f"the file of the loss {loss}")
    for name in found.requires:
        section(tree, name, one.subject)  # which makes it
    wanted = [workspace.analysis(one.subject, name) for name in found.requires]
    if len(wanted) == 1:
        must_be(one, "reads", wanted[0], f"which the loss {loss} requires")
    elif wanted:
        folder = str(Path(wanted[0]).parent)
        must_be(one, "reads", folder, f"the folder of all that the loss {loss} requires")
    else:
        must_be(one, "reads", otherwise, f"since the loss {loss} requires no analysis")
    _no_more(root, one, ())


def _check_way(root: Path, tree: Mapping[str, Any], one: Row) -> None:
    """A robust network: the file of its way of hardening, and the set or the code that it reads."""
    kind = way_of(one.settings, one.place, one.stage)
    _code_is(root, one, _path(root, kind), f"the file of type {one.settings['type']}")
    network = one.about["network"]
    if kind.reads_set:
        sets = adversarial_sets(tree, one.subject, "train")
        if network not in sets:
            raise ParamsError(
                f"params.yaml: {one.place}: type {one.settings['type']} trains on the set of its own name, "
                f"and no row of generate or attack makes {network} of train; there are: {', '.join(sets)}"
            )
        wanted = workspace.adversarial(one.subject, "train", network)
        must_be(one, "reads", wanted, "the set that it trains on")
        _no_more(root, one, ())
    else:
        _no_more(root, one, (one.about["reads"],))


def _no_more(root: Path, one: Row, reads: tuple[str, ...]) -> None:
    """Whether all code that a row runs is its own, its section's, or named by it."""
    code = one.about["code"]
    if code == LOCK:  # which has all code of the package
        return
    named = {code, *reads, *(PREFIX + path for path in closure(one.stage))}
    more = [path for path in closure_of(code, root) if path not in named]
    if more:
        raise ParamsError(
            f"params.yaml: {one.place}: {code} imports {more[0]}, which DVC would not see: "
            "move what it needs into that file"
            + (", or name it as reads" if one.stage == "adversarial_train" else "")
        )


def _code_is(root: Path, one: Row, wanted: str, reason: str) -> None:
    """``code`` of a row; in a project without the package's sources the lock stands for all of them."""
    if one.about["code"] == LOCK and wanted.startswith(PREFIX) and not has_sources(root):
        return
    must_be(one, "code", wanted, reason)


def _path(root: Path, thing: type) -> str:
    """The file of a class, as it stands in the project."""
    file = Path(inspect.getfile(thing)).resolve()
    package = loaded_package().resolve()
    if file.is_relative_to(package):
        return PREFIX + file.relative_to(package).as_posix()
    try:
        return file.relative_to(root.resolve()).as_posix()
    except ValueError:
        raise ParamsError(
            f"params.yaml: {thing.__module__}:{thing.__qualname__} lies outside the project, where DVC does "
            f"not see it: {file.name}"
        ) from None


def must_be(one: Row, key: str, wanted: str, reason: str) -> None:
    """Hold one of a row's names against what it has to be.

    Raises:
        ParamsError: it is another, in one line.
    """
    if one.about[key] != wanted:
        raise ParamsError(
            f"params.yaml: {one.place}.{key} must be {wanted}, {reason}; found {one.about[key]}"
        )
