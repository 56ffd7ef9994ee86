"""Where the store of runs is, as an address that MLflow and SQLAlchemy read as it was meant."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deepcustom.base.experiment import home

ADDRESS = "MLFLOW_TRACKING_URI"
SQLITE = "sqlite:///"
QUOTED = "sqlite+pysqlite:///"
"""The same with the driver's name. MLflow would take a quoted path in the first form as it is written, and
make a folder of that name; this form it leaves to SQLAlchemy."""
PLAIN = re.compile(r"[\w/ .~-]+", re.ASCII)
"""A path that stands in an address as it is. For others SQLAlchemy is asked: 2.1 quotes, 2.0 does not."""
OTHER_WORK = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_ACTIVE_MODEL_ID")
"""Variables that bind whatever MLflow is asked for to one run, experiment or model of some other work."""
REGISTRY = "MLFLOW_REGISTRY_URI"


def tracking_uri(root: Path) -> str:
    """Where runs are sent: ``MLFLOW_TRACKING_URI``, else an SQLite file in the project.

    An experiment's copy of a project, which DVC removes, sends to the project's store.

    Args:
        root: The top folder of a project, or of an experiment's copy.
    """
    named = os.environ.get(ADDRESS)
    return _lasting(named) if named else sqlite_uri(home(root).resolve() / "mlflow.db")


def sqlite_uri(database: Path) -> str:
    """The address of an SQLite file, whatever characters its path has."""
    if PLAIN.fullmatch(str(database)):
        return f"{SQLITE}{database}"
    from sqlalchemy.engine import URL

    return URL.create("sqlite+pysqlite", database=str(database)).render_as_string()


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite store; None for any other store."""
    name = uri.removeprefix(SQLITE).removeprefix(QUOTED).split("?")[0]
    if not uri.startswith((SQLITE, QUOTED)) or name in ("", ":memory:"):
        return None
    if "%" in name:
        from sqlalchemy.engine import make_url

        name = make_url(uri).database or name
    return Path(name).absolute()


def artifact_root(uri: str) -> str | None:
    """Where a new experiment of an SQLite store keeps its files; None: the server decides."""
    database = sqlite_file(uri)
    return (database.parent / "mlartifacts").as_uri() if database else None


def shown(uri: str) -> str:
    """The address without user, password and query, fit for a message."""
    return re.sub(r"://.*@", "://", uri.split("?")[0], flags=re.DOTALL)


@contextmanager
def default_address(uri: str) -> Iterator[None]:
    """Makes ``uri`` MLflow's default address, and keeps away what the user has set for other work.

    A registry of its own counts only beside an address: alone it belongs to another project. MLflow asks
    what ``mlflow.set_tracking_uri`` was told before it looks at the environment.
    """
    import mlflow

    away = OTHER_WORK if os.environ.get(ADDRESS) else (*OTHER_WORK, REGISTRY)
    before = {name: os.environ.pop(name, None) for name in (ADDRESS, *away)}
    is_told = mlflow.is_tracking_uri_set()  # type: ignore[no-untyped-call]
    told = mlflow.get_tracking_uri() if is_told else None
    if told is not None:
        mlflow.set_tracking_uri(uri)
    os.environ[ADDRESS] = uri
    try:
        yield
    finally:
        if told is not None:
            mlflow.set_tracking_uri(told)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _lasting(uri: str) -> str:
    """A relative path as seen from the project, if this is an experiment's copy of it."""
    here = Path.cwd()
    project = home(here)
    if project == here:
        return uri
    if (database := sqlite_file(uri)) and database.is_relative_to(here):
        query = "".join(uri.partition("?")[1:])
        return sqlite_uri(project / database.relative_to(here)) + query
    if not re.match(r"\w[\w+.-]*:|databricks", uri):  # the folder of a file store
        return str(project / uri)
    return uri
