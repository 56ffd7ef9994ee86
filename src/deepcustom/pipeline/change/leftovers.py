"""What the runs of some rows left in a project: outputs, records, entries of ``dvc.lock``, kept scores."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from deepcustom.base.files import remove, replace_file
from deepcustom.base.rows import HARDENING, LAYOUTS, Row
from deepcustom.evaluation.score_store import forget as forget_scores
from deepcustom.pipeline import workspace
from deepcustom.pipeline.change.text import without_rows
from deepcustom.pipeline.dvc import read_lock
from deepcustom.pipeline.outputs import MARKER, outputs, whole_folders
from deepcustom.pipeline.workspace import Workspace


@dataclass(frozen=True)
class Leftovers:
    """What is to be removed from a project, or from a workspace of it.

    Attributes:
        ws: the project or the workspace.
        stages: the stages whose entries in ``dvc.lock`` go.
        paths: the files and folders that go, relative to ``ws``.
        networks: the paths of weights; MLflow's registry may know the networks.
        scored: subject and name of each hardened network; its kept scores go.
    """

    ws: Workspace
    stages: list[str]
    paths: list[str]
    networks: list[str]
    scored: list[tuple[str, str]]

    def clear(self) -> None:
        """Remove all of it. What is missing already is no error, so an interrupted call can be repeated."""
        for path in self.paths:
            remove(self.ws.path(path))
            _unlist(self.ws.path(path))
        if self.stages:
            lock = self.ws.root / "dvc.lock"
            text = lock.read_bytes().decode()
            replace_file(lock, without_rows(text, "stages", self.stages).encode())
        for path in self.paths:
            _prune(self.ws.path(path).parent, self.ws.root)
        for subject, network in self.scored:
            forget_scores(self.ws.scores(subject), network)


def leftovers(ws: Workspace, gone: Iterable[Row], subject: str | None = None) -> Leftovers:
    """Find what rows left in a project.

    Args:
        ws: the project, or a workspace of it.
        gone: the rows.
        subject: the subject, if all of it goes: what is kept for all of its rows then goes too.

    Raises:
        InputError: ``dvc.lock`` cannot be read.
    """
    gone = list(gone)
    lock = read_lock(ws.root)
    made: list[str] = []
    for one in gone:
        made += outputs(one)
        parts = [one.about[key] for key in LAYOUTS[one.stage].names[1:]]
        made.append(workspace.record(one.subject, one.stage, *parts))
        made.append(str(ws.checkpoint(one.stage, one.name).relative_to(ws.root)))
    networks = [path for path in made if path.startswith("models/")]
    if subject:
        made.append(str(ws.scores(subject).relative_to(ws.root)))
        made.append(str(Path(workspace.own_scores(subject, "any")).parent))
        made += [f"{folder}/{MARKER}" for folder in whole_folders(subject)]
    return Leftovers(
        ws,
        [name for name in (f"{one.stage}@{one.name}" for one in gone) if name in lock],
        [path for path in made if os.path.lexists(ws.path(path))],
        networks,
        [(one.subject, one.about["network"]) for one in gone if one.stage in HARDENING],
    )


def _unlist(path: Path) -> None:
    """Take an output out of the ``.gitignore`` that DVC wrote it into."""
    listed = path.with_name(MARKER)
    if not listed.is_file():
        return
    lines = listed.read_bytes().splitlines(keepends=True)
    rest = [line for line in lines if line.strip() != f"/{path.name}".encode()]
    if rest != lines:
        replace_file(listed, b"".join(rest))


def _prune(folder: Path, root: Path) -> None:
    """Remove folders that hold nothing more, up to those right below the project's."""
    while folder.is_relative_to(root) and len(folder.relative_to(root).parts) > 1:
        if folder.is_dir():
            inside = list(folder.iterdir())
            marked = [file.name for file in inside] == [MARKER]
            if inside and not (marked and not inside[0].read_bytes().strip()):
                return
            remove(folder)
        folder = folder.parent


def workspaces(ws: Workspace) -> list[Workspace]:
    """The project, and the workspaces of its profiles."""
    below = sorted((ws.root / "workspaces").glob("*/dvc.yaml"))
    return [ws, *(Workspace(file.parent) for file in below)]
