"""The MLflow run of a stage, and the parent run that groups one ``dvc repro``."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from deepcustom.base.hashes import file_md5
from deepcustom.tracking.record import RUN_FILE, RunRecord

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

T = TypeVar("T")

KEY_TAG = "deepcustom.run_key"
REPRO_TAG = "deepcustom.repro"
LIVE_TAG = "deepcustom.live"
"""On a run that was begun before its record was written, see ``live``."""
SYSTEM = "system/"  # how the names of metrics of the machine begin; no record has them
LONGEST_KEY, LONGEST_PARAM, LONGEST_TAG = 250, 6000, 8000  # characters, MLflow's limits
PAGE = ".html"  # how the path of a page ends, which goes to MLflow as a file of its run
METRICS_PER_BATCH, PAIRS_PER_BATCH = 1000, 100
RACES = ("RESOURCE_ALREADY_EXISTS", "BAD_REQUEST")  # error codes if another process was quicker
TRIES = 3


def make_run(
    client: MlflowClient,
    experiment: str,
    record: RunRecord,
    folder: Path,
    root: Path,
    restored: bool,
) -> tuple[str, bool]:
    """Makes the finished run of ``record``: its id, and whether it was sent just now.

    Args:
        client: the store's client.
        experiment: its id.
        record: of the run.
        folder: holds the record and the figures that it names.
        root: the project, which holds the page that the run made, if it made one.
        restored: whether the run is sent afterwards, from the record.
    """

    def fill(run_id: str) -> None:
        _fill(client, run_id, record, folder, restored)
        for path in _pages(record, root):
            client.log_artifact(run_id, str(root / path))
        client.set_terminated(run_id, "FINISHED", span(record)[1])

    tags = {KEY_TAG: record.run_key}
    _drop_what_differs(client, experiment, record)
    return _one_run(
        client, experiment, tags, span(record)[0], run_name(record.name, record.dvc_exp), fill
    )


def run_name(stage: str, experiment: str | None) -> str:
    """What a run is called: its stage, such as ``train_dgn@mnist-lrp``, and its experiment, if it has one."""
    return f"{stage} {experiment}" if experiment else stage


def _one_run(
    client: MlflowClient,
    experiment: str,
    tags: dict[str, str],
    begin: int,
    name: str,
    fill: Callable[[str], None],
) -> tuple[str, bool]:
    """The one finished run with ``tags``: its id, and whether it was finished here.

    MLflow has no lock. Two processes may make a run at the same moment, and a request whose answer was
    lost is sent again. So each process searches again after every step, all of them take the run with
    the lowest id, and a process that made another run removes it. An unfinished run may belong to
    another process or be left over. Either way it is filled, which changes nothing already there.
    """
    from mlflow.exceptions import MlflowException

    query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    found = _found(client, experiment, query)
    # If a finished run exists, keep it and remove the others.
    finished = [run_id for run_id, status in found.items() if status == "FINISHED"]
    if finished:
        kept = min(finished)
        for other in found.keys() - {kept}:
            client.delete_run(other)
        return kept, False
    # Otherwise make one, or fill an unfinished one, until a search shows that it is finished.
    mine = ""
    while True:
        if not found:
            run = client.create_run(experiment, begin, {**tags, **sender()}, name)
            mine = str(run.info.run_id)
            found = {mine: "RUNNING", **_found(client, experiment, query)}
        first = min(found)
        if mine and mine != first:
            client.delete_run(mine)
            mine = ""
        if found[first] == "FINISHED":
            return first, True
        failure = None
        try:
            once_more(partial(fill, first))
        except MlflowException as error:
            failure = error
        found = _found(client, experiment, query)
        if failure and first in found:  # otherwise another process removed it in favour of its own
            raise failure


def _drop_what_differs(client: MlflowClient, experiment: str, record: RunRecord) -> None:
    """Remove a live run of this record that shows a point which the record does not have.

    So another run is made from the record alone. It happens if two processes ran the stage at once, and one
    showed what the other measured.
    """
    wanted = {_point(metric) for metric in _metrics(record)}
    query = f"tags.`{KEY_TAG}` = '{record.run_key}' and tags.`{LIVE_TAG}` = 'true'"
    for run in client.search_runs([experiment], query):
        if run.info.status == "RUNNING" and _live_points(client, run.info.run_id) - wanted:
            client.delete_run(run.info.run_id)


def _live_points(client: MlflowClient, run_id: str) -> set[tuple[str, int, str]]:
    """The points that a live run has, without those of the machine; none of any other run."""
    data = client.get_run(run_id).data
    if LIVE_TAG not in data.tags:
        return set()
    names = [name for name in data.metrics if not name.startswith(SYSTEM)]
    return {_point(metric) for name in names for metric in client.get_metric_history(run_id, name)}


def _point(metric: Metric) -> tuple[str, int, str]:
    """What tells a point from others, whenever it was sent."""
    return metric.key, metric.step, repr(float(metric.value))


def _found(client: MlflowClient, experiment: str, query: str) -> dict[str, str]:
    """Id of each run → its status."""
    runs = client.search_runs([experiment], query)
    return {str(run.info.run_id): str(run.info.status) for run in runs}


def sender() -> dict[str, str]:
    """The sender's name if the server has accounts; the user name on this machine stays private."""
    from mlflow.utils.credentials import read_mlflow_creds

    name = read_mlflow_creds().username
    return {"mlflow.user": name} if name else {}


def once_more(step: Callable[[], None]) -> None:
    """Runs a repeatable step, and again if another process made the same thing meanwhile."""
    from mlflow.exceptions import MlflowException

    for _ in range(TRIES - 1):
        try:
            return step()
        except MlflowException as error:
            if error.error_code not in RACES:
                raise
    return step()


def _fill(
    client: MlflowClient, run_id: str, record: RunRecord, folder: Path, restored: bool
) -> None:
    """Sends what the record has; the caller sets the status FINISHED last, which tells a whole run."""
    from mlflow.entities import Param, RunTag

    tags = [RunTag(fit(k), v[:LONGEST_TAG]) for k, v in _tags(record, restored).items()]
    params = [Param(name, value) for name, value in shown_params(record).items()]
    for some_tags in chunks(tags, PAIRS_PER_BATCH):
        client.log_batch(run_id, tags=some_tags)
    for some_params in chunks(params, PAIRS_PER_BATCH):
        client.log_batch(run_id, params=some_params)
    there = _live_points(client, run_id)
    points = [metric for metric in _metrics(record) if _point(metric) not in there]
    for some_metrics in chunks(points, METRICS_PER_BATCH):
        client.log_batch(run_id, metrics=some_metrics)
    client.log_artifact(run_id, str(folder / RUN_FILE))
    for figure in record.figures:
        if (folder / figure).is_file():
            client.log_artifact(run_id, str(folder / figure), "figures")


def _pages(record: RunRecord, root: Path) -> list[str]:
    """The pages for a browser that the run made, as far as they are still what it made."""
    return [
        path
        for path, md5 in record.outputs.items()
        if path.endswith(PAGE) and (root / path).is_file() and file_md5(root / path) == md5
    ]


def group(
    client: MlflowClient,
    experiment: str,
    repro: str,
    run_id: str,
    span: tuple[int, int],
    exp: Mapping[str, str],
) -> None:
    """Puts a run below the parent run of its ``dvc repro``, and makes that run if need be.

    A new parent is named after the experiment of DVC, or else after the moment when it began.

    Args:
        client: The store's client.
        experiment: The experiment's id.
        repro: What the runs of one ``dvc repro`` have in common.
        run_id: The run that goes below.
        span: Earliest and latest known moment of the ``dvc repro``, in milliseconds; the parent run ends at
            the latter or later.
        exp: Tags of the experiment of DVC, as :func:`experiment_tags` gives them.
    """
    begin, end = span
    name = exp.get("dvc.exp") or f"repro {datetime.fromtimestamp(begin / 1000, UTC):%Y-%m-%d %H:%M}"

    def finish(parent: str) -> None:
        for key, value in exp.items():
            client.set_tag(parent, key, value)
        client.set_terminated(parent, "FINISHED", end)

    tags = {REPRO_TAG: repro}
    parent, _ = _one_run(client, experiment, tags, begin, name, finish)
    if end > (client.get_run(parent).info.end_time or 0):
        finish(parent)
    client.set_tag(run_id, "mlflow.parentRunId", parent)


def span(record: RunRecord) -> tuple[int, int]:
    """First and last moment of a run, in milliseconds since 1970."""
    begin = round(record.started.timestamp() * 1000)
    return begin, begin + round(record.seconds * 1000)


def _metrics(record: RunRecord) -> list[Metric]:
    """The curves, then the final values.

    A final value goes to the last step of its curve, so that the run page shows it and not the curve's
    last value. If the two are equal, it is not sent twice.
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
        **about_the_stage(record.stage, record.item, record.dataset),
        "deepcustom.restored": json.dumps(restored),
        "dvc.stage": record.dvc_stage,
        **experiment_tags(record.dvc_exp, record.dvc_exp_baseline),
        "git.commit": record.git_commit,
        "git.dirty": dirty,
        "mlflow.source.git.commit": record.git_commit,
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


def experiment_tags(name: str | None, baseline: str | None) -> dict[str, str]:
    """The experiment of DVC and the commit that it began from, if there is one."""
    tags = {"dvc.exp": name, "dvc.exp.baseline": baseline}
    return {key: value for key, value in tags.items() if value}


def about_the_stage(stage: str, item: str, dataset: str) -> dict[str, str]:
    """The tags that a run of a stage has from its beginning."""
    return {
        "deepcustom.stage": stage,
        "deepcustom.item": item,
        "deepcustom.dataset": dataset,
        "mlflow.source.name": f"deepcustom {stage}",
        "mlflow.source.type": "LOCAL",
    }


def shown_params(record: RunRecord) -> dict[str, str]:
    """The record's params as MLflow takes them, see :func:`shown`."""
    return shown(record.params)


def shown(sections: Mapping[str, Any]) -> dict[str, str]:
    """Place in ``params.yaml`` → settings, as MLflow takes them.

    A section is named by its stage alone, as in ``train_dgn.output``, so that two runs of a stage have
    the same names and can be compared. If a run has several sections of a stage, each keeps its whole
    name.
    """
    stages = Counter(name.partition(".")[0] for name in sections)
    params = {}
    for name, value in sections.items():
        stage = name.partition(".")[0]
        params[stage if stages[stage] == 1 else name] = value
    return {fit(name): value[:LONGEST_PARAM] for name, value in _flat(params)}


def _flat(params: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested params as ``a.b.c`` and text; lists, numbers, true, false and null as JSON."""
    for name, value in params.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value)


def fit(name: str) -> str:
    """``name`` if MLflow accepts it as a key, else a similar key that no other name gets."""
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
