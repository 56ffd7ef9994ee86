"""Marks of live runs on disk, so that the runs of killed processes do not stay under way in MLflow for ever.

A process holds a lock on its mark as long as it lives. The system gives the lock free when the process ends,
in whichever way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepcustom.base.files import replace_file
from deepcustom.tracking.runs import KEY_TAG, PAIRS_PER_BATCH, chunks

if TYPE_CHECKING:
    from mlflow import MlflowClient

FOLDER = ".checkpoints/live"
ERROR_TAG = "deepcustom.error"
KILLED = "the process ended without a word"


class Mark:
    """The mark of one run.

    Args:
        root: the project.
        store: the store's address; only its hash is written, since it may hold a password.
        run_id: MLflow's.
        params: what the run is to show if it never gets a record.
    """

    def __init__(self, root: Path, store: str, run_id: str, params: Mapping[str, str]) -> None:
        from filelock import FileLock

        self._path = root / FOLDER / f"{run_id}.json"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # One thread takes the lock, and another gives it free.
        self._lock = FileLock(_lock_of(self._path), thread_local=False)
        self._lock.acquire(timeout=0)
        self._said = {"store": _digest(store), "run": run_id, "params": dict(params), "key": None}
        self._write()

    def touch(self) -> None:
        """Note that the run is alive at this moment."""
        self._path.touch()

    def keyed(self, run_key: str) -> None:
        """Note the key of the record that the run belongs to."""
        self._said["key"] = run_key
        self._write()

    def remove(self) -> None:
        """The run has ended, and MLflow knows."""
        self._path.unlink(missing_ok=True)
        self.leave()

    def leave(self) -> None:
        """Leave the mark to whoever comes next, since MLflow could not be told."""
        self._lock.release()
        if not self._path.exists():
            Path(_lock_of(self._path)).unlink(missing_ok=True)

    def _write(self) -> None:
        replace_file(self._path, json.dumps(self._said).encode())


def any_mark(root: Path) -> bool:
    """Whether there is a mark, of a living process or of a dead one."""
    return next((root / FOLDER).glob("*.json"), None) is not None


def end_dead_runs(client: MlflowClient, root: Path, store: str) -> None:
    """End in MLflow the runs of processes that have ended.

    A run whose record was written gets the record's key, so that sending the record completes the run. Any
    other becomes KILLED, at the moment when it last said something.
    """
    for path in _dead(root):
        said = _read(path)
        if said.get("store", "") not in (_digest(store), ""):  # of another store
            continue
        if said.get("key"):
            _tell(client, said["run"], {KEY_TAG: said["key"]})
        elif said:
            end_run(client, said["run"], "KILLED", KILLED, said["params"], path.stat().st_mtime)
        path.unlink(missing_ok=True)
        Path(_lock_of(path)).unlink(missing_ok=True)


def end_run(
    client: MlflowClient,
    run_id: str,
    status: str,
    why: str,
    params: Mapping[str, str],
    moment: float,
) -> None:
    """End a run that gets no record, if it is still under way.

    Args:
        client: the store's.
        run_id: MLflow's.
        status: ``FAILED`` or ``KILLED``.
        why: one line.
        params: its settings.
        moment: seconds since 1970.
    """
    if _tell(client, run_id, {ERROR_TAG: why}, params):
        client.set_terminated(run_id, status, round(moment * 1000))


def _tell(
    client: MlflowClient,
    run_id: str,
    tags: Mapping[str, str],
    params: Mapping[str, str] | None = None,
) -> bool:
    """Send tags and params to a run that is under way; False if it has ended, or was removed."""
    from mlflow.entities import Param, RunTag
    from mlflow.exceptions import MlflowException

    try:
        info = client.get_run(run_id).info
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
    if info.status != "RUNNING" or info.lifecycle_stage != "active":
        return False
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])
    pairs = [Param(name, value) for name, value in (params or {}).items()]
    for some in chunks(pairs, PAIRS_PER_BATCH):
        client.log_batch(run_id, params=some)
    return True


def _dead(root: Path) -> Iterator[Path]:
    """The marks that no living process holds, one at a time, held meanwhile."""
    from filelock import FileLock, Timeout

    for path in sorted((root / FOLDER).glob("*.json")):
        lock = FileLock(_lock_of(path))
        with suppress(Timeout):
            lock.acquire(timeout=0)
            try:
                if path.is_file():
                    yield path
            finally:
                lock.release()


def _read(path: Path) -> dict[str, Any]:
    """What a mark says; nothing if it was damaged."""
    try:
        said = json.loads(path.read_text())
    except ValueError:
        return {}
    return said if isinstance(said, dict) and {"store", "run", "params", "key"} <= set(said) else {}


def _lock_of(path: Path) -> str:
    return f"{path}.lock"


def _digest(store: str) -> Any:
    return hashlib.sha256(store.encode()).hexdigest()[:16]
