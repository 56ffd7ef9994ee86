"""What the runs of some rows left in a project: outputs, records, entries of ``dvc.lock``, kept scores."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath

from deepcustom.base.errors import InputError
from deepcustom.base.files import remove, replace_file
from deepcustom.base.rows import HARDENING, LAYOUTS, Row
from deepcustom.evaluation.score_store import forget
from deepcustom.pipeline import workspace
from deepcustom.pipeline.change.text import without_row
from deepcustom.pipeline.code import OUTPUTS
from deepcustom.pipeline.dvc import read_lock
from deepcustom.pipeline.folders import MARKER, whole_folders
from deepcustom.pipeline.workspace import Workspace
from deepcustom.tracking.record import RUN_FILE, RunRecord

REMOVABLE = (*OUTPUTS, ".checkpoints")
"""The folders of a project in which anything may be removed."""


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

    @property
    def any(self) -> bool:
        """Whether there is something to do."""
        return bool(self.stages or self.paths)

    def clear(self) -> None:
        """Remove all of it. What is missing already is no error, so an interrupted call can be repeated."""
        for path in self.paths:
            remove(self.ws.path(path))
            _unlist(self.ws.path(path))
        lock = self.ws.root / "dvc.lock"
        text = lock.read_text() if self.stages else ""
        for stage in self.stages:
            text = without_row(text, "stages", stage)
        if self.stages:
            replace_file(lock, text.encode())
        for path in self.paths:
            _prune(self.ws.path(path).parent, self.ws.root)
        for subject, network in self.scored:
            forget(self.ws.scores(subject), network)


def leftovers(ws: Workspace, gone: Iterable[Row], subject: str | None = None) -> Leftovers:
    """Find what rows left in a project.

    Args:
        ws: the project, or a workspace of it.
        gone: the rows.
        subject: the subject, if all of it goes: what is kept for all of its rows then goes too.

    Raises:
        InputError: ``dvc.lock`` or a record cannot be read, or names as an output what is none.
    """
    gone = list(gone)
    lock = read_lock(ws.root)
    stages, made = [], []
    for one in gone:
        name = f"{one.stage}@{one.name}"
        if name in lock:
            stages.append(name)
            made += [str(out["path"]) for out in lock[name].get("outs", [])]
        parts = [one.about[key] for key in LAYOUTS[one.stage].names[1:]]
        record = workspace.record(one.subject, one.stage, *parts)
        made += _recorded(ws, record)
        made += [record, str(ws.checkpoint(one.stage, one.name).relative_to(ws.root))]
    if subject:
        made.append(str(ws.scores(subject).relative_to(ws.root)))
        made.append(str(Path(workspace.own_scores(subject, "any")).parent))
        made += [f"{folder}/{MARKER}" for folder in whole_folders(subject)]
    for path in made:
        if PurePath(path).parts[0] not in REMOVABLE or len(PurePath(path).parts) < 2:
            raise InputError(f"dvc.lock or a record names {path} as an output: remove it by hand")
    paths = [path for path in dict.fromkeys(made) if ws.path(path).exists()]
    networks = [path for path in dict.fromkeys(made) if path.startswith("models/")]
    scored = [(one.subject, one.about["network"]) for one in gone if one.stage in HARDENING]
    return Leftovers(ws, stages, paths, networks, scored)


def _recorded(ws: Workspace, folder: str) -> list[str]:
    """The outputs that a record names: DVC may have been stopped before it wrote them down."""
    if not (ws.path(folder) / RUN_FILE).is_file():
        return []
    return list(RunRecord.read(ws.path(folder)).outputs)


def _unlist(path: Path) -> None:
    """Take an output out of the ``.gitignore`` that DVC wrote it into."""
    listed = path.with_name(MARKER)
    if not listed.is_file():
        return
    lines = listed.read_text().splitlines(keepends=True)
    rest = [line for line in lines if line.strip() != f"/{path.name}"]
    if rest != lines:
        replace_file(listed, "".join(rest).encode())


def _prune(folder: Path, root: Path) -> None:
    """Remove folders that hold nothing more, up to those right below the project's."""
    while folder.is_relative_to(root) and len(folder.relative_to(root).parts) > 1:
        if folder.is_dir():
            inside = list(folder.iterdir())
            if [file.name for file in inside] == [MARKER] and not inside[0].read_text().strip():
                inside = []
            if inside:
                return
            remove(folder)
        folder = folder.parent


def workspaces(ws: Workspace) -> list[Workspace]:
    """The project, and the workspaces of its profiles."""
    below = sorted((ws.root / "workspaces").glob("*/dvc.yaml"))
    return [ws, *(Workspace(file.parent) for file in below)]


def refuse_while_busy(ws: Workspace) -> None:
    """Refuse to touch a folder in which DVC is at work.

    Raises:
        InputError: it is.
    """
    if (ws.root / ".dvc").is_dir():
        from dvc.lock import LockError
        from dvc.repo import Repo

        try:
            with Repo(str(ws.root)).lock:
                pass
        except LockError:
            raise InputError(f"DVC is at work in {ws.root.name}: wait until it ends") from None
