"""What went wrong with the store of runs, in one line that ends in what to do about it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from deepcustom.tracking.address import ADDRESS, shown, sqlite_file

LONGEST = 2000
"""Characters of a cause. MLflow's own lines are shorter, and end in the remedy."""
VERSIONS = re.compile(r"found version (\w+), but expected (\w+)")


class DeletedError(ValueError):
    """The experiment was deleted, and MLflow takes no run into it."""

    def __init__(self, name: str, number: str, uri: str) -> None:
        restore = f"{ADDRESS}={shlex.quote(shown(uri))} mlflow experiments restore -x {number}"
        super().__init__(
            f"the experiment {name!r} was deleted there: `{restore}` brings it back, or "
            "MLFLOW_EXPERIMENT_NAME=NAME begins another"
        )


def cause(error: BaseException, uri: str) -> str:
    """One line without a password: the cause, and the remedy where one is known.

    Args:
        error: What MLflow, or a package below it, raised.
        uri: The store's address.
    """
    text = _without_secrets(_first_line(error), uri)
    return _with_remedy(text, uri)


def _first_line(error: BaseException) -> str:
    """The first line of ``error``, or of the system's own error, if one caused it."""
    inner: BaseException | None = error
    while inner is not None:
        error = inner if isinstance(inner, OSError) else error
        inner = inner.__cause__ or (None if inner.__suppress_context__ else inner.__context__)
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)


def _without_secrets(text: str, uri: str) -> str:
    text = re.sub(r"://\S*@", "://", text)
    secret = uri.rpartition("@")[0].partition("://")[2]
    for part in filter(None, (*re.split(r"[/?#]", secret), secret.partition(":")[2])):
        text = text.replace(part, "***")
    return text if len(text) <= LONGEST else text[:LONGEST].rpartition(" ")[0] + " ..."


def _with_remedy(text: str, uri: str) -> str:
    where = sqlite_file(uri) or "the store"
    if versions := VERSIONS.search(text):
        return _other_version(versions[1], versions[2], uri)
    if "readonly database" in text:
        return f"{text}: make {where} and its folder writable, or set {ADDRESS} to another store"
    if "database is locked" in text:
        return f"{text}: another program is writing to {where}; end it, or wait for it"
    if text.startswith("The file lock"):
        return f"another process of DeepCustom has held the store too long: {text}"
    if text.startswith("No such file or directory"):
        return f"{text} ({ADDRESS} names a place that is not there)"
    return text


def _other_version(found: str, expected: str, uri: str) -> str:
    """What to do with a store that another version of MLflow made, by the steps that this one knows."""
    from mlflow import __version__

    if not _is_known(found):
        return (
            f"a newer MLflow than the one here ({__version__}) made the store (its schema is {found}, and "
            f"this one knows {expected}): install that MLflow, or set {ADDRESS} to another store"
        )
    upgrade = f"mlflow db upgrade {shlex.quote(shown(uri))}"
    return (
        f"an older MLflow than the one here ({__version__}) made the store (its schema is {found}, and this "
        f"one wants {expected}): copy the store, then `{upgrade}` brings it up to date"
    )


def _is_known(revision: str) -> bool:
    """Whether this MLflow has the step of a schema's history."""
    import mlflow.store.db_migrations as migrations

    steps = (Path(folder) / "versions" for folder in migrations.__path__)
    return any(file.name.startswith(f"{revision}_") for step in steps for file in step.glob("*.py"))
