"""What the MLflow run of a stage shows, and the run that groups one ``dvc repro``."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from deepcustom.record import RUN_FILE, RunRecord

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

T = TypeVar("T")

KEY_TAG = "deepcustom.run_key"
REPRO_TAG = "deepcustom.repro"
LONGEST_KEY, LONGEST_PARAM, LONGEST_TAG = 250, 6000, 8000  # characters, MLflow's limits
METRICS_PER_BATCH, PAIRS_PER_BATCH = 1000, 100


def make_run(
    client: MlflowClient, experiment: str, record: RunRecord, folder: Path, restored: bool
) -> str:
    """Makes the run and returns its id; finished is set last, so that a broken-off one shows."""
    from mlflow.entities import Param, RunTag
    from mlflow.utils.credentials import read_mlflow_creds

    begin, end = span(record)
    # Who sent it, where the server has accounts; the machine's own user is nobody's business.
    user = read_mlflow_creds().username
    own = {KEY_TAG: record.run_key, **({"mlflow.user": user} if user else {})}
    run = client.create_run(experiment, begin, own, record.name)
    run_id = str(run.info.run_id)
    tags = [RunTag(fit(k), v[:LONGEST_TAG]) for k, v in _tags(record, restored).items()]
    params = [Param(name, value) for name, value in shown_params(record).items()]
    for some_tags in chunks(tags, PAIRS_PER_BATCH):
        client.log_batch(run_id, tags=some_tags)
    for some_params in chunks(params, PAIRS_PER_BATCH):
        client.log_batch(run_id, params=some_params)
    for some_metrics in chunks(_metrics(record), METRICS_PER_BATCH):
        client.log_batch(run_id, metrics=some_metrics)
    client.log_artifact(run_id, str(folder / RUN_FILE))
    for figure in record.figures:
        if (folder / figure).is_file():
            client.log_artifact(run_id, str(folder / figure), "figures")
    client.set_terminated(run_id, "FINISHED", end)
    return run_id


def group(
    client: MlflowClient, experiment: str, key: str, run_id: str, begin: int, end: int
) -> None:
    """Puts a run below the one that stands for its ``dvc repro``, which is made if need be.

    Args:
        client: Of the store.
        experiment: Its id.
        key: The record's ``repro``.
        run_id: The run that goes below.
        begin: First moment known of the whole, in milliseconds; names the run that is made.
        end: Last one known: the run ends then, or later.
    """
    found = client.search_runs([experiment], f"tags.`{REPRO_TAG}` = '{key}'", max_results=1)
    if found:
        parent = found[0]
    else:
        name = f"repro {datetime.fromtimestamp(begin / 1000, UTC):%Y-%m-%d %H:%M}"
        parent = client.create_run(experiment, begin, {REPRO_TAG: key}, name)
    if parent.info.status != "FINISHED" or end > (parent.info.end_time or 0):
        client.set_terminated(parent.info.run_id, "FINISHED", end)
    client.set_tag(run_id, "mlflow.parentRunId", parent.info.run_id)


def span(record: RunRecord) -> tuple[int, int]:
    """First and last moment in milliseconds since 1970."""
    begin = round(record.started.timestamp() * 1000)
    return begin, begin + round(record.seconds * 1000)


def _metrics(record: RunRecord) -> list[Metric]:
    """Curves first, then final values at their curve's last step, where they win on the run page.

    A final value that its curve ends with already is not sent twice.
    """
    from mlflow.entities import Metric

    begin, end = span(record)
    points = [
        Metric(fit(name), value, begin + (end - begin) * step // len(curve), step)
        for name, curve in record.history.items()
        for step, value in enumerate(curve, start=1)
    ]
    for name, value in {"seconds": record.seconds, **record.metrics}.items():
        curve = record.history.get(name, [])
        if not curve or repr(curve[-1]) != repr(value):
            points.append(Metric(fit(name), value, end + 1, len(curve)))
    return points


def _tags(record: RunRecord, restored: bool) -> dict[str, str]:
    dirty = None if record.git_dirty is None else json.dumps(record.git_dirty)
    tags = {
        "deepcustom.stage": record.stage,
        "deepcustom.item": record.item,
        "deepcustom.dataset": record.dataset,
        "deepcustom.restored": json.dumps(restored),
        "dvc.stage": record.dvc_stage,
        "dvc.exp": record.dvc_exp,
        "git.commit": record.git_commit,
        "git.dirty": dirty,
        "mlflow.source.git.commit": record.git_commit,
        "mlflow.source.name": f"deepcustom {record.stage}",
        "mlflow.source.type": "LOCAL",
    }
    groups = {
        "input": record.inputs,
        "output": record.outputs,
        "machine": record.machine,
        "package": record.packages,
    }
    for prefix, group in groups.items():
        tags.update({f"{prefix}.{name}": value for name, value in group.items()})
    return {name: value for name, value in tags.items() if value}


def shown_params(record: RunRecord) -> dict[str, str]:
    """The params as MLflow takes them."""
    return {fit(name): value[:LONGEST_PARAM] for name, value in _flat(record.params)}


def _flat(params: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested params as ``a.b.c`` and text; lists, numbers, true, false and null as JSON."""
    for name, value in params.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value)


def fit(name: str) -> str:
    """``name`` where MLflow takes it for a key, else a near one that no other name has."""
    clean = re.sub(r"[^\w.\- :/]", "_", name)
    unique = posixpath.normpath(name) == name and not name.startswith(("/", ".."))
    if clean == name and unique and name != "." and len(name) <= LONGEST_KEY:
        return name
    digest = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
    return f"{clean.replace('/', '_')[: LONGEST_KEY - 9]}-{digest[:8]}"


def chunks(items: list[T], size: int) -> Iterator[list[T]]:
    """``items`` in lists of at most ``size``."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
