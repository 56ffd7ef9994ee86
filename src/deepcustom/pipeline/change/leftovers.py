"""What the runs of some rows left in a project: outputs, records, entries of ``dvc.lock``, parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepcustom.base.errors import InputError
from deepcustom.base.files import remove, replace_file
from deepcustom.base.rows import HARDENING, LAYOUTS, Row, rows
from deepcustom.evaluation.score_store import forget
from deepcustom.pipeline import workspace
from deepcustom.pipeline.change.text import without_row
from deepcustom.pipeline.dvc import read_lock
from deepcustom.pipeline.workspace import Workspace
from deepcustom.tracking.record import RUN_FILE, RunRecord

IGNORED = ".gitignore"


@dataclass(frozen=True)
class Leftovers:
    """What is to go from one folder, a project or a workspace of it.

    Attributes:
        ws: the folder.
        stages: entries of ``dvc.lock``.
        paths: files and folders, relative to it.
        networks: the weights among them, which MLflow's registry may know.
        scored: hardened networks, each as its subject and name, whose kept scores go.
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
        """Remove all of it; what is gone already is no error, so that an interrupted call can be repeated."""
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
    """What rows left in a project.

    Args:
        ws: the project, or a workspace of it.
        gone: the rows.
        subject: a whole subject that goes, with what is kept for all of its rows.

    Raises:
        InputError: ``dvc.lock`` or a record cannot be read.
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
    paths = [path for path in dict.fromkeys(made) if ws.path(path).exists()]
    networks = [path for path in dict.fromkeys(made) if path.startswith("models/")]
    scored = [(one.subject, one.about["network"]) for one in gone if one.stage in HARDENING]
    return Leftovers(ws, stages, paths, networks, scored)


def _recorded(ws: Workspace, folder: str) -> list[str]:
    """The outputs that a record names: DVC may have been stopped before it wrote them down."""
    if not (ws.path(folder) / RUN_FILE).is_file():
        return []
    return list(RunRecord.read(ws.path(folder)).outputs)


def keep_folders(root: Path, tree: Mapping[str, Any]) -> None:
    """Make the folders that stages read as a whole, which DVC wants to be there, if empty.

    Args:
        root: the project.
        tree: the whole of its params.
    """
    wanted = [
        folder
        for stage, folders in READ_WHOLE.items()
        for one in rows(tree, stage)
        for folder in (form.format(one.subject) for form in folders)
    ]
    for folder in dict.fromkeys(wanted):
        path = root / folder
        if not path.is_dir() or not any(path.iterdir()):
            replace_file(path / IGNORED, b"")


READ_WHOLE = {
    "evaluate": ("data/adversarial/{}/test", "models/dgn/{}", "models/robust/{}"),
    "report": (
        "reports/metrics/{}/train_dgn",
        "reports/metrics/{}/adversarial_train",
        "reports/metrics/{}/train_online",
    ),
}
"""Stage → the folders that it depends on and no stage makes whole; a test holds them against ``dvc.yaml``."""


def _unlist(path: Path) -> None:
    """Take an output out of the ``.gitignore`` that DVC wrote it into."""
    listed = path.with_name(IGNORED)
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
            if [file.name for file in inside] == [IGNORED] and not inside[0].read_text().strip():
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
