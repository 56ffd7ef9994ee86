"""Sending runs to MLflow: whatever it lacks is made from each ``run.json``.

The files are the truth, and MLflow is a view of them: runs, networks, accuracies and the registry
can all be made again (see ``sync``). Only the tracking modules import MLflow. They do so inside
functions, since the import takes two seconds.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

from deepcustom.base.errors import DeepCustomError, TrackingError
from deepcustom.base.experiment import home
from deepcustom.base.rows import TRAINING
from deepcustom.tracking.address import artifact_root as artifact_root
from deepcustom.tracking.address import default_address, sqlite_file
from deepcustom.tracking.address import shown as shown
from deepcustom.tracking.address import tracking_uri as tracking_uri
from deepcustom.tracking.data_sets import reads_sets
from deepcustom.tracking.ended import any_mark, end_dead_runs
from deepcustom.tracking.failures import DeletedError, cause
from deepcustom.tracking.models import (
    VIEWED,
    SentRun,
    add_data_sets,
    add_descriptions,
    add_networks,
    add_program,
    add_scores,
    add_versions,
    drop_aliases,
    network_name,
    without_program,
)
from deepcustom.tracking.record import RUN_FILE, RunRecord
from deepcustom.tracking.runs import (
    KEY_TAG,
    experiment_tags,
    group,
    make_run,
    once_more,
    span,
)
from deepcustom.tracking.underway import current

if TYPE_CHECKING:
    from mlflow import MlflowClient

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
LOCK_SECONDS = 60
LATER = "DEEPCUSTOM_SEND_LATER"
"""If it is set, a stage leaves its run to :func:`send_kept` or :func:`sync`: loading MLflow takes seconds."""

# MLflow's own defaults wait for minutes. A value that the user has set wins over these.
PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class Sent(NamedTuple):
    """What ``sync`` did with one ``run.json``.

    Attributes:
        name: Of the run.
        run_id: MLflow's.
        new: False if MLflow had the run.
        absent: Paths of the run's networks that MLflow cannot load, since their files are not here.
    """

    name: str
    run_id: str
    new: bool
    absent: tuple[str, ...] = ()


def send(folder: Path, root: Path, *, restored: bool = False) -> str:
    """Makes a finished MLflow run from ``folder/run.json``, with its networks and accuracies, once.

    Args:
        folder: Holds ``run.json`` and the figures it names.
        root: The repository's root, where the default store lies.
        restored: Tags the run as made afterwards from the file.

    Returns:
        The MLflow run's id; empty if the run is left for later.

    Raises:
        InputError: ``run.json`` is missing or broken.
        TrackingError: MLflow could not take the run; the message says how to send it later.
    """
    if os.environ.get(LATER):
        return ""
    if current.run:
        current.run.hand_over(RunRecord.read(folder).run_key, _kept(folder))
    return _deliver({folder: RunRecord.read(folder)}, root, restored)[0].run_id


def send_kept(folders: Iterable[Path], root: Path) -> None:
    """Sends the runs of several folders, each with a ``run.json``, once; raises as ``send`` does."""
    _deliver({folder: RunRecord.read(folder) for folder in folders}, root, restored=False)


def sync(runs_dir: Path, root: Path) -> list[Sent]:
    """Sends the runs below ``runs_dir`` that MLflow lacks; raises as ``send`` does.

    A broken ``run.json`` is reported before anything is sent.
    """
    folders = sorted(path.parent for path in runs_dir.rglob(RUN_FILE))
    records = {folder: RunRecord.read(folder) for folder in folders}
    return _deliver(records, root, restored=True)


@contextmanager
def opened(root: Path, otherwise: str) -> Iterator[tuple[MlflowClient, str]]:
    """A client of the store, and the id of the experiment, while no other process here uses the store.

    Raises:
        TrackingError: something fails inside; the message ends in ``otherwise``.
    """
    with _connection(root, otherwise) as client:
        yield client, _experiment(client, root)


def experiment_id(root: Path) -> str:
    """Id of the experiment that holds the runs; makes the store and the experiment if need be.

    Raises:
        TrackingError: The store cannot be reached.
    """
    with opened(root, "runs cannot be shown") as (_, experiment):
        return experiment


def tried(root: Path) -> bool:
    """Look whether the store can be used; False if it is not made yet. Makes nothing.

    Raises:
        TrackingError: it cannot; the message says what to do.
    """
    database = sqlite_file(tracking_uri(root))
    if database and not database.is_file() and database.parent.is_dir():
        return False
    with _connection(root, "runs cannot be shown") as client:
        client.search_experiments(max_results=1)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "deepcustom"
        if client.get_experiment_by_name(name) is not None:
            _experiment(client, root)
    return True


def run_ids(root: Path, run_keys: Iterable[str]) -> dict[str, str]:
    """Run key → id of its finished MLflow run, for each key in the store; makes no store.

    Raises:
        TrackingError: The store cannot be reached.
    """
    database = sqlite_file(tracking_uri(root))
    if database and not database.is_file():
        return {}
    with _connection(root, "the MLflow runs cannot be looked up") as client:
        experiment = _experiment(client, root)
        found = [
            (key, run)
            for key in run_keys
            for run in client.search_runs([experiment], f"tags.`{KEY_TAG}` = '{key}'")
        ]
    return {key: str(run.info.run_id) for key, run in found if run.info.status == "FINISHED"}


def drop_current(root: Path, paths: Iterable[str]) -> list[str]:
    """Takes the alias ``current`` from removed networks; runs, models and versions stay as history.

    Args:
        root: The repository's root.
        paths: The paths of their weights, below ``models``.

    Returns:
        The names in the registry that lost the alias.

    Raises:
        TrackingError: The store cannot be reached.
    """
    names = [network_name(path) for path in paths]
    database = sqlite_file(tracking_uri(root))
    if not names or (database and not database.is_file()):
        return []
    with _connection(root, "the registry's aliases were not changed") as client:
        return drop_aliases(client, names)


def _deliver(records: dict[Path, RunRecord], root: Path, restored: bool) -> list[Sent]:
    """Sends all runs first, so that a store that supports runs only still has them.

    All networks come before the first accuracy, which needs them. Runs whose process was killed end first.
    """
    if any_mark(home(root)):
        with opened(root, "'deepcustom runs sync' sends later what is lacking") as (client, _):
            end_dead_runs(client, home(root), tracking_uri(root))
    spans = _spans(records.values())
    sent = [_send(folder, records[folder], root, restored, spans) for folder in records]
    for add in (add_networks, add_data_sets, add_scores, add_descriptions, add_versions):
        for run, (folder, record) in zip(sent, records.items(), strict=True):
            if record.stage in VIEWED or (add is add_data_sets and reads_sets(record)):
                with _connection(root, _kept(folder)) as client:
                    experiment = _experiment(client, root)
                    sent_run = SentRun(client, experiment, run.run_id, record, root)
                    once_more(partial(add, sent_run))
    return [
        run._replace(absent=tuple(_send_programs(run.run_id, folder, record, root)))
        for run, (folder, record) in zip(sent, records.items(), strict=True)
    ]


def _send_programs(run_id: str, folder: Path, record: RunRecord, root: Path) -> Iterator[str]:
    """Sends what MLflow loads the run's networks from; yields the paths of those that are not here.

    A network that torch cannot export is named in one line, and stays without. Exporting takes seconds,
    so other processes may use the store meanwhile.
    """
    if record.stage not in TRAINING:
        return
    with _connection(root, _kept(folder)) as client:
        lacking = without_program(SentRun(client, _experiment(client, root), run_id, record, root))
    if lacking:
        from deepcustom.tracking.programs import AbsentError, write_program
    for path, model_id in lacking.items():
        with TemporaryDirectory() as place:
            made = Path(place) / "model"
            try:
                write_program(record, path, root, made, model_id=model_id, run_id=run_id)
            except AbsentError:
                yield path
                continue
            except DeepCustomError as error:
                print(f"note: {path} cannot be loaded from MLflow: {error}", file=sys.stderr)
                continue
            with _connection(root, _kept(folder)) as client:
                add_program(client, model_id, made)


def _spans(records: Iterable[RunRecord]) -> dict[str, tuple[int, int]]:
    """First and last moment of each ``dvc repro``, as far as ``records`` show."""
    spans: dict[str, tuple[int, int]] = {}
    for record in records:
        begin, end = span(record)
        if record.repro:
            first, last = spans.get(record.repro, (begin, end))
            spans[record.repro] = min(first, begin), max(last, end)
    return spans


def _send(
    folder: Path,
    record: RunRecord,
    root: Path,
    restored: bool,
    spans: dict[str, tuple[int, int]],
) -> Sent:
    with _connection(root, _kept(folder)) as client:
        experiment = _experiment(client, root)
        run_id, new = make_run(client, experiment, record, folder, root, restored)
        if record.repro:
            exp = experiment_tags(record.dvc_exp, record.dvc_exp_baseline)
            below = partial(
                group, client, experiment, record.repro, run_id, spans[record.repro], exp
            )
            once_more(below)
    return Sent(record.name, run_id, new)


def _kept(folder: Path) -> str:
    return f"the run is kept in {folder} and 'deepcustom runs sync' sends it later"


@contextmanager
def _connection(root: Path, otherwise: str) -> Iterator[MlflowClient]:
    """A client of the store; a failure inside becomes one line that ends in ``otherwise``.

    A lock lets one process at a time use an SQLite store: two that create it at once would crash, and
    two that send the same run would make it twice. On a server the lock covers only the processes of
    one project. What two projects make at once is put right afterwards (see ``runs._one_run``).
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
        with _quiet(), _lock(uri, root), default_address(uri):
            _probe(uri)
            yield MlflowClient(tracking_uri=uri)
    except expected as error:
        why = cause(error, uri)
        raise TrackingError(f"MLflow at {shown(uri)}: {why}; {otherwise}") from error


def _experiment(client: MlflowClient, root: Path) -> str:
    from mlflow.exceptions import MlflowException

    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "deepcustom"
    uri = tracking_uri(root)
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name, artifact_root(uri))
        except MlflowException:  # on a server another process may have been quicker
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        raise DeletedError(name, found.experiment_id, uri)
    return str(found.experiment_id)


def _probe(uri: str) -> None:
    """Connects to a database once, since MLflow itself would try for 100 seconds."""
    if not uri.startswith(DATABASES):
        return
    import sqlalchemy

    wait = {"connect_timeout": 5} if uri.startswith(("postgresql", "mysql")) else {}
    engine = sqlalchemy.create_engine(uri, connect_args=wait)
    try:
        sqlalchemy.inspect(engine).get_table_names()
    finally:
        engine.dispose()


@contextmanager
def _lock(uri: str, root: Path) -> Iterator[None]:
    from filelock import FileLock

    held = sqlite_file(uri) or home(root) / "mlflow.db"
    held.parent.stat()  # a folder that is gone is not made anew: it was some other project's
    with FileLock(f"{held}.lock", timeout=LOCK_SECONDS):
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
