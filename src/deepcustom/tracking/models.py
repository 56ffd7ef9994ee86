"""Networks in MLflow: models by the md5 of their weights, their accuracies, and the registry.

DVC has the weights; a model's tags ``dvc.md5`` and ``dvc.path`` say which and where. What MLflow loads is
made from them (see ``programs``). These functions look everything up before they make it, so that it is made
once.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from deepcustom.base.errors import InputError
from deepcustom.base.experiment import home
from deepcustom.base.rows import TRAINING
from deepcustom.evaluation.results import CLEAN, Result, read_csv
from deepcustom.tracking.data_sets import CONTEXT_TAG, data_set, read_sets, reads_sets
from deepcustom.tracking.record import RunRecord
from deepcustom.tracking.runs import METRICS_PER_BATCH, chunks, fit, shown_params, span

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Metric
    from mlflow.entities.model_registry import ModelVersion

SCORES = "evaluate"
CARDS = "report"
VIEWED = (*TRAINING, SCORES, CARDS)
"""The stages whose records hold networks, their accuracies or their cards."""

MD5_TAG, PATH_TAG, STARTED_TAG = "dvc.md5", "dvc.path", "deepcustom.started"
VERSIONS_TAG = "mlflow.modelVersions"  # from this a model's page links to the registry
NOTE_TAG = "mlflow.note.content"  # what a model's page shows as its description
ALIAS = "current"
MODEL_FILE = "MLmodel"  # a folder with it is what MLflow can load

_NETWORK = re.compile(r"models/[^/]+/[^/]+(/[^/]+)?\.safetensors")


class SentRun(NamedTuple):
    """A run that MLflow has, and the record it was made from, whose paths begin at ``root``."""

    client: MlflowClient
    experiment: str
    run_id: str
    record: RunRecord
    root: Path


def add_networks(run: SentRun) -> None:
    """Makes a model for each network that the run made, unless one has the same weights."""
    from mlflow.entities import LoggedModelOutput

    client, _, run_id, record, _ = run
    weights = _networks(record)
    outputs = client.get_run(run_id).outputs if weights else None
    known = {output.model_id for output in outputs.model_outputs} if outputs else set()
    for path, md5 in weights.items():
        model = _made_model(run, path, md5)
        if model.model_id not in known:
            client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])


def add_data_sets(run: SentRun) -> None:
    """Sends the sets of images that the run read, as its inputs; ``add_scores`` has those of evaluations."""
    client, _, run_id, record, root = run
    if record.stage == SCORES or not reads_sets(record):
        return
    known = client.get_run(run_id).inputs
    there = {one.dataset.name for one in known.dataset_inputs} if known else set()
    lacking = [one for one in read_sets(record, root) if one.dataset.name not in there]
    if lacking:
        client.log_inputs(run_id, lacking)


def add_scores(run: SentRun) -> None:
    """Sends each accuracy of an evaluation, bound to the network's model and to the set of images.

    A network without a model is left out until ``sync`` finds it with one. The worst accuracy
    comes last, since a run's own page shows one value per name.
    """
    client, experiment, run_id, record, root = run
    results = sorted(_results(record, root), key=lambda result: -result.accuracy)
    steps = dict(zip(results, range(1, 1 + len(results)), strict=True))
    md5s = dict.fromkeys(result.network_md5 for result in results)
    models = [model for md5 in md5s if (model := _model(client, experiment, md5))]
    if not models:
        return
    _add_inputs(run, results, models)
    points = [
        point
        for model in models
        for point in _missing_scores(model, run_id, span(record)[1], steps)
    ]
    for some in chunks(points, METRICS_PER_BATCH):
        client.log_batch(run_id, metrics=some)


def add_versions(run: SentRun) -> None:
    """Makes a version in the registry for each network that the run made, one for each md5.

    The alias ``current`` goes to the version whose weights the newest run made. In an experiment's copy of a
    project it stays where it is, since the project still has other weights; the version gets the experiment's
    name as an alias instead.
    """
    client, experiment, _, record, root = run
    started = record.started.astimezone(UTC).isoformat(timespec="microseconds")
    for path, md5 in _networks(record).items():
        model = _model(client, experiment, md5)
        if model:
            name = network_name(path)
            version = _version(client, name, model, {MD5_TAG: md5, PATH_TAG: path})
            _link(client, model, version)
            if home(root) != root:
                _name_after(client, name, version, record.dvc_exp)
                continue
            if version.tags.get(STARTED_TAG, "") < started:
                client.set_model_version_tag(name, version.version, STARTED_TAG, started)
            _move_alias(client, name)


def add_descriptions(run: SentRun) -> None:
    """Makes each network's card the description of its model; a card of other weights is left out."""
    client, experiment, _, record, root = run
    networks = record.inputs.items() if record.stage == CARDS else ()
    for path, md5 in networks:
        if not path.startswith("models/"):
            continue
        _, kind, *rest = Path(path).with_suffix("").parts
        name = kind if rest == [record.dataset] else f"{kind}-{rest[-1]}"
        card = root / "reports/cards" / record.dataset / f"{name}.md"
        text = card.read_text() if card.is_file() else ""
        model = _model(client, experiment, md5) if md5 in text else None
        if model and model.tags.get(NOTE_TAG) != text:
            client.set_logged_model_tags(model.model_id, {NOTE_TAG: text})


def without_program(run: SentRun) -> dict[str, str]:
    """Path → id of the model, for the networks of the run that MLflow cannot load yet."""
    client, experiment, _, record, _ = run
    found = {path: _model(client, experiment, md5) for path, md5 in _networks(record).items()}
    return {
        path: model.model_id
        for path, model in found.items()
        if model and not _has_program(client, model.model_id)
    }


def _has_program(client: MlflowClient, model_id: str) -> bool:
    files = client.list_logged_model_artifacts(model_id)
    return any(file.path == MODEL_FILE for file in files)


def add_program(client: MlflowClient, model_id: str, folder: Path) -> None:
    """Sends the folder that MLflow loads the model from; the file that makes it one comes last."""
    last = (folder / MODEL_FILE).rename(folder.with_name(MODEL_FILE))
    client.log_model_artifacts(model_id, str(folder))
    client.log_model_artifact(model_id, str(last))


def network_name(path: str) -> str:
    """The name of a network in MLflow, such as ``mnist-robust-pgd``.

    Args:
        path: ``models/KIND/DATASET.safetensors`` or ``models/KIND/DATASET/NAME.safetensors``.
    """
    _, kind, dataset, *rest = PurePosixPath(path).with_suffix("").parts
    return re.sub(r"[^\w-]", "_", "-".join([dataset, kind, *rest]))


def _networks(record: RunRecord) -> dict[str, str]:
    """Path → md5 of each network that the run made."""
    made = record.outputs.items() if record.stage in TRAINING else ()
    return {path: md5 for path, md5 in made if _NETWORK.fullmatch(path)}


def _models(client: MlflowClient, experiment: str, md5: str) -> list[LoggedModel]:
    """The models with these weights, oldest first; more than one only while they are being made."""
    found = client.search_logged_models([experiment], f"tags.`{MD5_TAG}` = '{md5}'")
    return sorted(found, key=lambda model: (model.creation_timestamp, model.model_id))


def _model(client: MlflowClient, experiment: str, md5: str) -> LoggedModel | None:
    return next(iter(_models(client, experiment, md5)), None)


def _made_model(run: SentRun, path: str, md5: str) -> LoggedModel:
    """The model with these weights, made if need be; of several made at once, the first stays."""
    from mlflow.entities import LoggedModelStatus

    client, experiment, run_id, record, _ = run
    mine = ""
    while True:
        first = _model(client, experiment, md5)
        if first is None:
            made = client.create_logged_model(
                experiment,
                network_name(path),
                source_run_id=run_id,
                tags={MD5_TAG: md5, PATH_TAG: path},
                params=shown_params(record),
            )
            mine = made.model_id
            continue
        if mine and mine != first.model_id:
            client.delete_logged_model(mine)
            mine = ""
        if first.status == LoggedModelStatus.READY:
            return first
        client.finalize_logged_model(first.model_id, LoggedModelStatus.READY)


# Accuracies


def _results(record: RunRecord, root: Path) -> list[Result]:
    """The results that the evaluation wrote; none if the file has changed since."""
    paths = record.outputs.items() if record.stage == SCORES else ()
    for path, md5 in paths:
        if path.endswith(".csv") and _md5(root / path) == md5:
            try:
                found = read_csv(root / path)
            except InputError:  # another table of the evaluation, or an older format
                continue
            return [result for result in found if not result.empty]
    return []


def _md5(path: Path) -> str:
    if not path.is_file():
        return ""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def metric_name(result: Result) -> str:
    """The name of an accuracy in MLflow; no two protocols share one."""
    if result.protocol == "transfer":
        return "clean_accuracy" if result.attack == CLEAN else "transfer_accuracy"
    return fit(f"{result.protocol}_accuracy/{result.attack}")


def set_name(result: Result) -> str:
    """MLflow's name of the images, such as ``mnist/test/pgd``.

    Outside the transfer protocol an attacker starts from the clean images, so these are the set.
    """
    attack = result.attack if result.protocol == "transfer" else CLEAN
    return f"{result.dataset}/test/{attack}"


def _add_inputs(run: SentRun, results: list[Result], models: list[LoggedModel]) -> None:
    """Sends the sets of images, and the networks scored on them, as inputs of the run."""
    from mlflow.entities import DatasetInput, InputTag, LoggedModelInput

    sets = {set_name(result): result.set_md5 for result in results}
    paths = {md5: path for path, md5 in run.record.inputs.items()}
    context = [InputTag(CONTEXT_TAG, "test")]
    datasets = [
        DatasetInput(data_set(name, md5, paths.get(md5, ""), run.record, run.root), context)
        for name, md5 in sorted(sets.items())
    ]
    networks = [LoggedModelInput(model.model_id) for model in models]
    run.client.log_inputs(run.run_id, datasets, networks)


def _missing_scores(
    model: LoggedModel, run_id: str, moment: int, steps: dict[Result, int]
) -> list[Metric]:
    """The accuracies that the model lacks; MLflow tells values of the same name apart by ``step``."""
    from mlflow.entities import Metric

    there = {(m.key, m.dataset_name) for m in model.metrics or [] if m.run_id == run_id}
    return [
        Metric(
            metric_name(result),
            result.accuracy,
            moment,
            step,
            model_id=model.model_id,
            dataset_name=set_name(result),
            dataset_digest=result.set_md5,
        )
        for result, step in steps.items()
        if result.network_md5 == model.tags[MD5_TAG]
        and (metric_name(result), set_name(result)) not in there
    ]


# The registry


def _version(
    client: MlflowClient, name: str, model: LoggedModel, tags: dict[str, str]
) -> ModelVersion:
    """The version with these weights, made if need be; of several made at once, the first stays."""
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    wanted = f"name = '{name}' and tags.`{MD5_TAG}` = '{tags[MD5_TAG]}'"
    mine = None
    while True:
        found = sorted(client.search_model_versions(wanted), key=lambda v: int(v.version))
        if not found:
            mine = client.create_model_version(
                name,
                f"models:/{model.model_id}",
                run_id=model.source_run_id,
                tags=tags,
                model_id=model.model_id,
            )
            continue
        if mine and int(mine.version) != int(found[0].version):
            client.delete_model_version(name, str(mine.version))
        return found[0]


def _link(client: MlflowClient, model: LoggedModel, version: ModelVersion) -> None:
    """Names the version on the model's page, which a server does by itself."""
    tags = client.get_logged_model(model.model_id).tags
    links = json.loads(tags.get(VERSIONS_TAG, "[]"))
    there = {(link["name"], str(link["version"])) for link in links}
    if (version.name, str(version.version)) not in there:
        links.append({"name": version.name, "version": version.version})
        client.set_logged_model_tags(model.model_id, {VERSIONS_TAG: json.dumps(links)})


def _move_alias(client: MlflowClient, name: str) -> None:
    """Moves the alias to the version of the newest run; looks again, as other processes move it too."""
    while True:
        versions = client.search_model_versions(f"name = '{name}'")
        newest = max(versions, key=lambda v: (v.tags.get(STARTED_TAG, ""), int(v.version)))
        if str(client.get_registered_model(name).aliases.get(ALIAS)) == str(newest.version):
            return
        client.set_registered_model_alias(name, ALIAS, str(newest.version))


def _name_after(
    client: MlflowClient, name: str, version: ModelVersion, experiment: str | None
) -> None:
    """Gives a version the alias of an experiment, if MLflow takes its name as one."""
    reserved = experiment in (ALIAS, "latest") or re.fullmatch(r"[vV]\d+", experiment or "")
    if experiment and re.fullmatch(r"[\w-]{1,255}", experiment, re.ASCII) and not reserved:
        client.set_registered_model_alias(name, experiment, str(version.version))


def drop_aliases(client: MlflowClient, names: list[str]) -> list[str]:
    """Takes the alias from the networks of these names; returns the names that had it."""
    found = []
    for name in names:
        for model in client.search_registered_models(f"name = '{name}'"):
            if ALIAS in model.aliases:
                client.delete_registered_model_alias(name, ALIAS)
                found.append(name)
    return found
