"""The MLflow run that is made from a stage's ``run.json``.

The files are the truth and MLflow is a view of them: everything a run shows can be made anew from
its ``run.json`` (see ``sync``). This is the only module that imports MLflow, and it does so inside
functions, for that costs two seconds.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import posixpath
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from deepcustom.errors import TrackingError
from deepcustom.record import RUN_FILE, RunRecord

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

T = TypeVar("T")

KEY_TAG = "deepcustom.run_key"
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
LOCK_SECONDS = 60
LONGEST_KEY, LONGEST_PARAM, LONGEST_TAG = 250, 6000, 8000  # characters, MLflow's limits
METRICS_PER_BATCH, PAIRS_PER_BATCH = 1000, 100

# MLflow's own defaults wait for minutes; what the user has set wins over these.
PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class Sent(NamedTuple):
    """What ``sync`` did with one ``run.json``; ``new`` is false where MLflow had the run."""

    name: str
    run_id: str
    new: bool


def tracking_uri(root: Path) -> str:
    """Where runs are sent: ``MLFLOW_TRACKING_URI``, else an SQLite file in ``root``."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root.resolve()}/mlflow.db"


def shown(uri: str) -> str:
    """The address without user, password and query, fit for a message."""
    return re.sub(r"://.*@", "://", uri.split("?")[0], flags=re.DOTALL)


def artifact_root(uri: str) -> str | None:
    """Where a new experiment of an SQLite store keeps its files; None: the server decides."""
    database = _sqlite_file(uri)
    return (database.parent / "mlartifacts").as_uri() if database else None


def send(folder: Path, root: Path, *, restored: bool = False) -> str:
    """Makes a finished MLflow run from ``folder/run.json``, unless there is one already.

    Args:
        folder: Holds ``run.json`` and the figures it names.
        root: The repository's root, where the default store lies.
        restored: Tags the run as made afterwards from the file.

    Returns:
        The MLflow run's id.

    Raises:
        InputError: ``run.json`` is missing or broken.
        TrackingError: MLflow could not take the run; the message says how to send it later.
    """
    return _send(folder, root, restored).run_id


def sync(runs_dir: Path, root: Path) -> list[Sent]:
    """Sends every run below ``runs_dir`` that MLflow lacks; raises as ``send`` does.

    A broken ``run.json`` is reported before anything is sent.
    """
    folders = sorted(path.parent for path in runs_dir.rglob(RUN_FILE))
    for folder in folders:
        RunRecord.read(folder)
    return [_send(folder, root, restored=True) for folder in folders]


def experiment_id(root: Path) -> str:
    """Id of the experiment that holds the runs; makes the store and the experiment if need be.

    Raises:
        TrackingError: The store cannot be reached.
    """
    with _connection(root, "no runs can be shown") as client:
        return _experiment(client, root)


def run_ids(root: Path, run_keys: Iterable[str]) -> dict[str, str]:
    """Run key → id of its finished MLflow run, as far as the store has one; makes no store.

    Raises:
        TrackingError: The store cannot be reached.
    """
    database = _sqlite_file(tracking_uri(root))
    if database and not database.is_file():
        return {}
    with _connection(root, "no MLflow run can be named") as client:
        experiment = _experiment(client, root)
        found = [
            (key, run)
            for key in run_keys
            for run in client.search_runs([experiment], f"tags.`{KEY_TAG}` = '{key}'")
        ]
    return {key: str(run.info.run_id) for key, run in found if run.info.status == "FINISHED"}


def _send(folder: Path, root: Path, restored: bool) -> Sent:
    record = RunRecord.read(folder)
    kept = f"the run is kept in {folder} and 'deepcustom runs sync' sends it later"
    with _connection(root, kept) as client:
        experiment = _experiment(client, root)
        found = client.search_runs([experiment], f"tags.`{KEY_TAG}` = '{record.run_key}'")
        for run in found:
            if run.info.status == "FINISHED":
                return Sent(record.name, run.info.run_id, new=False)
        for run in found:  # what a broken-off send left
            client.delete_run(run.info.run_id)
        return Sent(record.name, _make_run(client, experiment, record, folder, restored), new=True)


@contextmanager
def _connection(root: Path, otherwise: str) -> Iterator[MlflowClient]:
    """A client of the store; whatever fails inside becomes one line that ends in ``otherwise``.

    An SQLite store is held by one process at a time: two that create it at once would crash, and
    two that send one run would make it twice.
    """
    for variable, value in PATIENCE.items():
        os.environ.setdefault(variable, value)
    from alembic.util import CommandError
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    expected = (MlflowException, SQLAlchemyError, CommandError, OSError, ImportError, ValueError)
    uri = tracking_uri(root)
    try:
        with _quiet(), _lock(uri):
            _probe(uri)
            yield MlflowClient(tracking_uri=uri)
    except expected as error:
        cause = _cause(error, uri)
        raise TrackingError(f"MLflow at {shown(uri)}: {cause}; {otherwise}") from error


def _experiment(client: MlflowClient, root: Path) -> str:
    from mlflow.exceptions import MlflowException

    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "deepcustom"
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name, artifact_root(tracking_uri(root)))
        except MlflowException:  # on a server another process may have been quicker
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


def _probe(uri: str) -> None:
    """Connects to a database once, for MLflow itself would try for 100 seconds."""
    if not uri.startswith(DATABASES):
        return
    import sqlalchemy

    wait = {"connect_timeout": 5} if uri.startswith(("postgresql", "mysql")) else {}
    engine = sqlalchemy.create_engine(uri, connect_args=wait)
    try:
        sqlalchemy.inspect(engine).get_table_names()
    finally:
        engine.dispose()


def _sqlite_file(uri: str) -> Path | None:
    name = uri.removeprefix("sqlite:///").split("?")[0]
    is_file = uri.startswith("sqlite:///") and name not in ("", ":memory:")
    return Path(name).absolute() if is_file else None


@contextmanager
def _lock(uri: str) -> Iterator[None]:
    from filelock import FileLock

    database = _sqlite_file(uri)
    if database:
        database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{database}.lock", timeout=LOCK_SECONDS) if database else nullcontext():
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps MLflow's, alembic's and urllib3's chatter off stderr, unless the user asked for it."""
    names = [] if "MLFLOW_LOGGING_LEVEL" in os.environ else ["mlflow", "alembic", "urllib3"]
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _cause(error: BaseException, uri: str) -> str:
    """One short line without a password: the system's own error if there is one below ``error``."""
    inner: BaseException | None = error
    while inner is not None:
        error = inner if isinstance(inner, OSError) else error
        inner = inner.__cause__ or (None if inner.__suppress_context__ else inner.__context__)
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    first = re.sub(r"://\S*@", "://", first)
    secret = uri.rpartition("@")[0].partition("://")[2]
    for part in filter(None, (*re.split(r"[/?#]", secret), secret.partition(":")[2])):
        first = first.replace(part, "***")
    return first[:200]
