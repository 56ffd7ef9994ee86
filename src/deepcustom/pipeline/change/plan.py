"""A change of a project's rows: drawn up, checked as a whole, shown, and only then made."""

from __future__ import annotations

import copy
import difflib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from deepcustom.base.errors import InputError, ParamsError, TrackingError
from deepcustom.base.files import replace_file
from deepcustom.base.once import read_yaml
from deepcustom.base.params import read_params
from deepcustom.base.rows import SUBJECTS, row
from deepcustom.pipeline import dvc
from deepcustom.pipeline.change import forecast
from deepcustom.pipeline.change.draft import Draft, NewRow
from deepcustom.pipeline.change.leftovers import Leftovers, leftovers, workspaces
from deepcustom.pipeline.change.removed import rows_of
from deepcustom.pipeline.change.text import with_row, without_row
from deepcustom.pipeline.check import check
from deepcustom.pipeline.outputs import keep_folders
from deepcustom.pipeline.profile import laid_over
from deepcustom.pipeline.workspace import Workspace
from deepcustom.tracking.store import drop_current


@dataclass(frozen=True)
class Change:
    """What :func:`adding` or :func:`removing` drew up.

    Attributes:
        ws: the project.
        tree: the whole of its params, after the change.
        texts: settings file → what it is to hold; ``params.yaml`` is the last.
        rows: the rows that come or go, as ``section.name``, in words.
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
            InputError: DVC is at work in the project or a workspace of it, or a file cannot be written;
                nothing was changed.
        """
        for ws in workspaces(self.ws):
            if dvc.is_at_work(ws.root):
                raise InputError(f"DVC is at work in {ws.root.name}: wait until it ends")
        for path in self.texts:
            if not os.access(path, os.W_OK) or not os.access(path.resolve().parent, os.W_OK):
                raise InputError(f"{_below(self.ws, path)} cannot be written")
        for left in self.gone:
            try:
                drop_current(left.ws.root, left.networks)
            except TrackingError as error:
                print(f"warning: {error}", file=sys.stderr)
            left.clear()
        keep_folders(self.ws.root, self.tree)
        for path, text in self.texts.items():
            _write(path, text)

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
        draw: draws them up: one of the functions ``add_...`` of :mod:`~deepcustom.pipeline.change.added`.

    Raises:
        UserError: in one line: what is wrong with them; nothing was changed.
    """
    tree = read_params(ws.params)
    check(ws.root, tree)
    draft = Draft(ws.root, copy.deepcopy(tree))
    draw(draft)
    check(ws.root, draft.tree)
    texts = _texts(ws, lambda path, text: _with_rows(ws, path, text, draft.new))
    _check_profiles(ws, draft.tree, texts)
    new = [
        (row(draft.tree, one.section, one.name), one.sibling)
        for one in draft.new
        if one.section != SUBJECTS
    ]
    runs = forecast.expected(ws, draft.tree, new, added=True)
    names = [_named(one) for one in draft.new]
    return Change(ws, draft.tree, texts, names, runs)


def _named(new: NewRow) -> str:
    """A new row, and the one whose settings it took over."""
    place = f"{new.section}.{new.name}"
    return f"{place}, like {new.section}.{new.sibling}" if new.twin and new.sibling else place


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
    if whole and len(tree[SUBJECTS]) == 1:
        raise InputError(f"{subject} is the last subject: a project needs one")
    keys = [(one.stage, one.name) for one in gone] + ([(SUBJECTS, subject)] if whole else [])
    rest = {
        section: {key: one for key, one in below.items() if (section, key) not in keys}
        if isinstance(below, dict)
        else below
        for section, below in tree.items()
    }
    check(ws.root, rest)
    texts = dict(_of_workspaces(ws, keys))  # first, since params.yaml is to be the last
    texts |= _texts(ws, lambda path, text: _without_rows(text, keys))
    _check_profiles(ws, rest, texts)
    left = [leftovers(one, gone, whole) for one in workspaces(ws)]
    runs = forecast.expected(ws, rest, [(one, None) for one in gone], added=False)
    return Change(ws, rest, texts, [f"{section}.{key}" for section, key in keys], runs, left)


def _texts(ws: Workspace, change: Callable[[Path, str], str]) -> dict[Path, str]:
    """Each file of settings that changes → what it will hold; ``params.yaml`` is the last."""
    found = {}
    for path in [*_profiles(ws), ws.params]:
        before = _text(path)
        try:
            after = change(path, before)
        except ParamsError as error:
            raise _of_file(ws, path, error) from None
        if after != before:
            found[path] = after
    return found


def _profiles(ws: Workspace) -> list[Path]:
    return [path for path in sorted((ws.root / "profiles").glob("*.yaml")) if path.is_file()]


def _of_file(ws: Workspace, path: Path, error: ParamsError) -> ParamsError:
    """An error about a file of settings that is not ``params.yaml``."""
    return ParamsError(str(error).replace("params.yaml", _below(ws, path), 1))


def _of_workspaces(ws: Workspace, keys: list[tuple[str, str]]) -> Iterator[tuple[Path, str]]:
    """What the workspaces' own params will hold; the next run makes those anew that cannot be read."""
    for one in workspaces(ws)[1:]:
        if one.params.is_file():
            try:
                before = _text(one.params)
                after = _without_rows(before, keys)
            except ParamsError:
                continue
            if after != before:
                yield one.params, after


def _with_rows(ws: Workspace, path: Path, text: str, new: Iterable[NewRow]) -> str:
    """A file of settings with new rows; in a profile, what it says of a row's twin."""
    for one in new:
        below = _sections(text).get(one.section)
        below = below if isinstance(below, dict) else {}
        if path == ws.params:
            text = with_row(text, one.section, one.name, one.values, like=_last_of(below, one))
        elif one.twin and isinstance(below.get(one.sibling), dict):
            said = below[one.sibling]
            if one.name not in below:
                text = with_row(text, one.section, one.name, said, like=one.sibling)
            elif below[one.name] != said:
                raise InputError(
                    f"{_below(ws, path)} has {one.section}.{one.name} already: take it out, or choose "
                    "another name"
                )
    return text


def _last_of(below: Mapping[str, Any], new: NewRow) -> str | None:
    """The last row of a section that is for the subject of a new one."""
    subject = new.values.get("subject")
    mine = [key for key, value in below.items() if subject and value.get("subject") == subject]
    return mine[-1] if mine else None


def _without_rows(text: str, keys: Iterable[tuple[str, str]]) -> str:
    for section, key in keys:
        below = _sections(text).get(section)
        if isinstance(below, dict) and key in below:
            text = without_row(text, section, key)
    return text


def _sections(text: str) -> dict[str, Any]:
    """A file of settings as plain data; one without any is empty.

    Raises:
        ParamsError: it is not a YAML mapping.
    """
    try:
        tree = read_yaml(text)
    except yaml.YAMLError as error:
        why = " ".join(str(error).split())
        raise ParamsError(f"params.yaml is not valid YAML: {why}") from None
    if not isinstance(tree, dict | None):
        raise ParamsError(f"params.yaml must be a mapping of sections, found {type(tree).__name__}")
    return tree or {}


def _check_profiles(ws: Workspace, tree: dict[str, Any], texts: Mapping[Path, str]) -> None:
    """Check what each profile makes of the new settings, if it is right today."""
    for path in _profiles(ws):
        try:
            check(ws.root, laid_over(tree, _sections(texts.get(path, _text(path)))))
        except ParamsError as error:
            if _is_right(ws, path):
                raise ParamsError(f"under profile {path.stem}: {error}") from None


def _is_right(ws: Workspace, profile: Path) -> bool:
    try:
        check(ws.root, laid_over(read_params(ws.params), _sections(_text(profile))))
    except ParamsError:
        return False
    return True


def _text(path: Path) -> str:
    """With its line ends as they are.

    Raises:
        ParamsError: it is not UTF-8.
    """
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError:
        raise ParamsError("params.yaml is not UTF-8") from None


def _write(path: Path, text: str) -> None:
    """Replace a file's content, and keep its mode; a link goes on pointing to the file."""
    real = path.resolve()
    mode = real.stat().st_mode
    replace_file(real, text.encode())
    real.chmod(mode)


def _below(ws: Workspace, path: Path) -> str:
    return path.relative_to(ws.root).as_posix()
