"""A change of a project's rows: drawn up, checked as a whole, shown, and only then made."""

from __future__ import annotations

import copy
import difflib
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from deepcustom.base.errors import ParamsError, TrackingError
from deepcustom.base.files import replace_file
from deepcustom.base.params import read_params
from deepcustom.base.rows import SUBJECTS, row
from deepcustom.pipeline.change import forecast
from deepcustom.pipeline.change.draft import Draft, NewRow
from deepcustom.pipeline.change.items import rows_of
from deepcustom.pipeline.change.leftovers import (
    Leftovers,
    leftovers,
    refuse_while_busy,
    workspaces,
)
from deepcustom.pipeline.change.text import with_row, without_row
from deepcustom.pipeline.check import check
from deepcustom.pipeline.folders import keep_folders
from deepcustom.pipeline.profile import laid_over
from deepcustom.pipeline.workspace import Workspace
from deepcustom.tracking.store import forget


@dataclass(frozen=True)
class Change:
    """What :func:`adding` or :func:`removing` drew up.

    Attributes:
        ws: the project.
        tree: the whole of its params, after the change.
        texts: settings file → what it is to hold; ``params.yaml`` is the last.
        rows: the rows that come or go, as ``section.name``.
        expected: which stages will run.
        gone: what is removed with the rows.
    """

    ws: Workspace
    tree: dict[str, Any]
    texts: dict[Path, str]
    rows: list[str]
    expected: list[forecast.Expected]
    gone: list[Leftovers] = field(default_factory=list)

    def make(self) -> None:
        """Make it: leftovers first and ``params.yaml`` last, so that a call that was stopped can be repeated.

        Raises:
            InputError: DVC is at work in the project or a workspace of it; nothing was changed.
        """
        for ws in workspaces(self.ws):
            refuse_while_busy(ws)
        for left in self.gone:
            try:
                forget(left.ws.root, left.networks)
            except TrackingError as error:
                print(f"warning: {error}", file=sys.stderr)
            left.clear()
        for path, text in self.texts.items():
            if path.name == self.ws.params.name:
                keep_folders(path.parent, yaml.safe_load(text))
            replace_file(path, text.encode())

    def differences(self) -> Iterator[str]:
        """The lines that change in the settings, as ``diff`` shows them."""
        for path, text in self.texts.items():
            name = path.relative_to(self.ws.root).as_posix()
            before = _text(path).splitlines(keepends=True)
            after = text.splitlines(keepends=True)
            for line in difflib.unified_diff(before, after, name, name):
                yield line.rstrip("\r\n")

    def removed(self) -> Iterator[str]:
        """What goes next to the rows, in words."""
        for left in self.gone:
            where = "" if left.ws.root == self.ws.root else f"{_below(self.ws, left.ws.root)}/"
            yield from (f"{where}{path}" for path in left.paths)
            if left.stages:
                yield f"{where}dvc.lock: {', '.join(left.stages)}"


def adding(ws: Workspace, draw: Callable[[Draft], None]) -> Change:
    """Draw up rows to be added.

    Args:
        ws: the project.
        draw: draws them up: one of the functions ``add_...`` of :mod:`~deepcustom.pipeline.change.items`.

    Raises:
        UserError: in one line: what is wrong with them; nothing was changed.
    """
    tree = read_params(ws.params)
    draft = Draft(ws.root, copy.deepcopy(tree))
    draw(draft)
    texts = _texts(ws, lambda path, text: _with_rows(text, draft.new, path == ws.params))
    _check(ws, texts)
    new = [
        (row(draft.tree, one.section, one.name), one.sibling)
        for one in draft.new
        if one.section != SUBJECTS
    ]
    runs = forecast.expected(ws, draft.tree, new, added=True)
    return Change(ws, draft.tree, texts, [f"{n.section}.{n.name}" for n in draft.new], runs)


def removing(ws: Workspace, kind: str, subject: str, name: str = "") -> Change:
    """Draw up the removal of an item, with all that its runs left.

    Args:
        ws: the project.
        kind: ``bank``, ``attack``, ``network`` or ``subject``.
        subject: whose.
        name: of the item; none for a subject.

    Raises:
        UserError: in one line: there is no such item, or the rest would not stand without it; nothing was
            changed.
    """
    tree = read_params(ws.params)
    gone = rows_of(tree, kind, subject, name)
    whole = subject if kind == "subject" else None
    keys = [(one.stage, one.name) for one in gone] + ([(SUBJECTS, subject)] if whole else [])
    rest = {
        section: {key: one for key, one in below.items() if (section, key) not in keys}
        if isinstance(below, dict)
        else below
        for section, below in tree.items()
    }
    texts = _texts(ws, lambda path, text: _without_rows(text, keys))
    texts = dict(_of_workspaces(ws, keys)) | texts
    _check(ws, texts)
    left = [leftovers(one, gone, whole) for one in workspaces(ws)]
    runs = forecast.expected(ws, rest, [(one, None) for one in gone], added=False)
    names = [f"{section}.{key}" for section, key in keys]
    return Change(ws, rest, texts, names, runs, [one for one in left if one.any or one.networks])


def _texts(ws: Workspace, change: Callable[[Path, str], str]) -> dict[Path, str]:
    """Each file of settings that changes → what it will hold; ``params.yaml`` is the last."""
    found = {}
    for path in [*sorted((ws.root / "profiles").glob("*.yaml")), ws.params]:
        before = _text(path)
        try:
            after = change(path, before)
        except ParamsError as error:
            if path == ws.params:
                raise
            raise ParamsError(str(error).replace("params.yaml", _below(ws, path), 1)) from None
        if after != before:
            found[path] = after
    return found


def _of_workspaces(ws: Workspace, keys: list[tuple[str, str]]) -> Iterator[tuple[Path, str]]:
    for one in workspaces(ws)[1:]:
        before = _text(one.params)
        after = _without_rows(before, keys)
        if after != before:
            yield one.params, after


def _with_rows(text: str, new: Iterable[NewRow], whole: bool) -> str:
    """A file of settings with new rows; in a profile, what it says of a row's twin."""
    for one in new:
        if whole:
            like = _last_of_subject(text, one)
            text = with_row(text, one.section, one.name, one.values, like=like)
        elif one.twin:
            there = (yaml.safe_load(text) or {}).get(one.section) or {}
            if one.sibling in there:
                said = there[one.sibling]
                text = with_row(text, one.section, one.name, said, like=one.sibling)
    return text


def _last_of_subject(text: str, new: NewRow) -> str | None:
    """The last row of a section that is for the subject of a new one."""
    below = yaml.safe_load(text)[new.section]
    subject = new.values.get("subject")
    mine = [key for key, v in below.items() if subject and v.get("subject") == subject]
    return mine[-1] if mine else None


def _without_rows(text: str, keys: Iterable[tuple[str, str]]) -> str:
    for section, key in keys:
        tree = yaml.safe_load(text)
        if isinstance(tree, dict) and key in (tree.get(section) or {}):
            text = without_row(text, section, key)
    return text


def _check(ws: Workspace, texts: dict[Path, str]) -> None:
    """Check the project's settings as they will be, and those of each profile that is right today."""
    tree = yaml.safe_load(texts.get(ws.params, _text(ws.params)))
    check(ws.root, tree)
    for path in sorted((ws.root / "profiles").glob("*.yaml")):
        over = yaml.safe_load(texts.get(path, _text(path)))
        try:
            check(ws.root, laid_over(tree, over))
        except ParamsError as error:
            if _is_right(ws, path):
                raise ParamsError(f"under profile {path.stem}: {error}") from None


def _is_right(ws: Workspace, profile: Path) -> bool:
    try:
        check(ws.root, laid_over(read_params(ws.params), read_params(profile)))
    except ParamsError:
        return False
    return True


def _text(path: Path) -> str:
    """With its line ends as they are."""
    return path.read_bytes().decode()


def _below(ws: Workspace, path: Path) -> str:
    return path.relative_to(ws.root).as_posix()
