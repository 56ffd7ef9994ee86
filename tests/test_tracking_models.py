"""Networks in MLflow: models by the md5 of their weights, their accuracies, the registry."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pipeline_fixtures import ROOT
from test_record import STARTED
from tracking_fixtures import all_models, all_runs, client, written

from deepcustom.base.errors import TrackingError
from deepcustom.base.hashes import dvc_md5
from deepcustom.evaluation.results import Result, read_csv, write_csv
from deepcustom.tracking import store as tracking
from deepcustom.tracking.models import network_name
from deepcustom.tracking.store import send, sync

pytestmark = pytest.mark.usefixtures("own_store")

TARGET, ROBUST, CLEAN, PGD, LRP = "1" * 32, "2" * 32, *(f"{d}" * 32 + ".dir" for d in "345")
TWO = {"dgn": "a" * 32, "robust": "b" * 32}
TABLE = "reports/results/mnist.csv"
CURVES = "reports/curves/mnist.csv"  # of the same evaluation, and read by no model


def network(root: Path, name: str = "pgd", md5: str = ROBUST, **changes: Any) -> Path:
    """The record of a robust network, or of the target."""
    of_robust = {"stage": "adversarial_train", "item": f"mnist-{name}"}
    place = of_robust if name != "target" else {"stage": "train_target", "item": "mnist"}
    path = f"models/{'target/mnist' if name == 'target' else f'robust/mnist/{name}'}.safetensors"
    fields = {"run_key": md5, "outputs": {path: md5, "reports/metrics/x.json": "9" * 32}}
    return written(root, name, **place | fields | changes)


def scored(
    network: str, attack: str, correct: int, protocol: str = "transfer", n: int = 100
) -> Result:
    sets = {"clean": CLEAN, "pgd": PGD, "lrp": LRP, "lrp-unclipped": LRP}
    return Result.of(
        dataset="mnist",
        network=network,
        protocol=protocol,
        attack=attack,
        correct=correct,
        n=n,
        network_md5=TARGET if network == "target" else ROBUST,
        set_md5=sets[attack] if protocol == "transfer" else CLEAN,
    )


RESULTS = [
    scored("target", "clean", 97),
    scored("pgd", "clean", 96),
    scored("target", "pgd", 2),
    scored("pgd", "pgd", 94),
    scored("target", "lrp", 70),
    scored("pgd", "lrp", 30),
    scored("target", "pgd", 0, "whitebox"),
    scored("pgd", "pgd", 0, "whitebox"),
]


def evaluation(root: Path, results: list[Result] = RESULTS, **changes: Any) -> Path:
    """The record of an evaluation, with its table."""
    write_csv(results, root / TABLE)
    (root / CURVES).parent.mkdir(parents=True, exist_ok=True)
    (root / CURVES).write_text("network,curve\nmnist,eps\n")
    fields = {
        "run_key": "e" * 32,
        "stage": "evaluate",
        "item": "mnist",
        "inputs": {
            "models/target/mnist.safetensors": TARGET,
            "models/robust/mnist/pgd.safetensors": ROBUST,
            "data/prepared/mnist/test": CLEAN,
            "data/adversarial/mnist/test/pgd": PGD,
            "data/adversarial/mnist/test/lrp": LRP,
        },
        "outputs": {CURVES: dvc_md5(root / CURVES), TABLE: dvc_md5(root / TABLE)},
        "metrics": {"transfer/pgd/lrp": 0.3},
        "history": {},
    }
    return written(root, "0-evaluate", **fields | changes)  # sorted before the networks


def everything(root: Path) -> list[Path]:
    return [evaluation(root), network(root), network(root, "target", TARGET)]


def bound(model: Any) -> list[tuple[Any, ...]]:
    return sorted((m.key, m.dataset_name, m.dataset_digest, m.value) for m in model.metrics)


# Models


def test_network_is_a_model_bound_to_its_weights(root):
    run_id = send(network(root, params={"training": {"epochs": 3}, "long": "y" * 7000}), root)
    (model,) = all_models(root).values()
    assert model.name == "mnist-robust-pgd"
    assert model.status == "READY"
    assert model.source_run_id == run_id
    assert model.params == {"training.epochs": "3", "long": "y" * 6000}
    wanted = {"dvc.md5": ROBUST, "dvc.path": "models/robust/mnist/pgd.safetensors"}
    assert wanted.items() <= model.tags.items()
    (output,) = client(root).get_run(run_id).outputs.model_outputs
    assert output.model_id == model.model_id
    assert not (root / "mlartifacts/models").exists(), "weights were sent"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("target/mnist", "mnist-target"),
        ("dgn/mnist/nce-ball", "mnist-dgn-nce-ball"),
        ("robust/mnist/pgd", "mnist-robust-pgd"),
        ("dgn/mnist/a.b:c'd'", "mnist-dgn-a_b_c_d_"),
    ],
)
def test_name_tells_data_set_kind_and_item(path, name):
    assert network_name(f"models/{path}.safetensors") == name


def test_a_run_that_leaves_two_networks_has_two_models_and_two_versions(root):
    paths = {f"models/{kind}/mnist/online.safetensors": md5 for kind, md5 in TWO.items()}
    place = {"stage": "train_online", "item": "mnist-online", "run_key": "c" * 32}
    run_id = send(written(root, "online", outputs=paths, **place), root)
    models = {model.name: model for model in all_models(root).values()}
    assert set(models) == {"mnist-robust-online", "mnist-dgn-online"}
    for (path, md5), name in zip(
        paths.items(), ("mnist-dgn-online", "mnist-robust-online"), strict=True
    ):
        assert models[name].tags["dvc.md5"] == md5
        assert models[name].tags["dvc.path"] == path
        (version,) = client(root).search_model_versions(f"name = '{name}'")
        assert version.tags["dvc.md5"] == md5
    outputs = client(root).get_run(run_id).outputs.model_outputs
    assert {one.model_id for one in outputs} == {model.model_id for model in models.values()}


def test_only_networks_of_training_stages_are_models(root):
    send(written(root, "a", stage="attack", outputs={"models/x.safetensors": "1" * 32}), root)
    outputs = {"data/x.safetensors": "1" * 32, "models/x.json": "1" * 32}
    send(written(root, "b", run_key="b" * 32, outputs=outputs), root)
    assert all_models(root) == {}


def test_same_weights_trained_again_are_the_same_model(root):
    first = send(network(root), root)
    again = send(network(root, run_key="a" * 32), root)
    (model,) = all_models(root).values()
    assert model.source_run_id == first
    (output,) = client(root).get_run(again).outputs.model_outputs
    assert output.model_id == model.model_id


# Accuracies


def test_each_accuracy_is_bound_to_network_and_set(root):
    paths = everything(root)
    sync(root / "runs", root)
    models = all_models(root)
    assert bound(models["mnist-robust-pgd"]) == [
        ("clean_accuracy", "mnist/test/clean", CLEAN, 0.96),
        ("transfer_accuracy", "mnist/test/lrp", LRP, 0.3),
        ("transfer_accuracy", "mnist/test/pgd", PGD, 0.94),
        ("whitebox_accuracy/pgd", "mnist/test/clean", CLEAN, 0.0),
    ]
    assert bound(models["mnist-target"]) == [
        ("clean_accuracy", "mnist/test/clean", CLEAN, 0.97),
        ("transfer_accuracy", "mnist/test/lrp", LRP, 0.7),
        ("transfer_accuracy", "mnist/test/pgd", PGD, 0.02),
        ("whitebox_accuracy/pgd", "mnist/test/clean", CLEAN, 0.0),
    ]
    run_id = send(paths[0], root)
    assert {m.run_id for model in models.values() for m in model.metrics} == {run_id}


def test_sets_and_networks_are_inputs_of_the_evaluation(root):
    folder, *_ = everything(root)
    sync(root / "runs", root)
    inputs = client(root).get_run(send(folder, root)).inputs
    sets = {
        (one.dataset.name, one.dataset.digest, json.loads(one.dataset.source)["path"])
        for one in inputs.dataset_inputs
    }
    assert sets == {
        ("mnist/test/clean", CLEAN, "data/prepared/mnist/test"),
        ("mnist/test/pgd", PGD, "data/adversarial/mnist/test/pgd"),
        ("mnist/test/lrp", LRP, "data/adversarial/mnist/test/lrp"),
    }
    models = {model.model_id for model in all_models(root).values()}
    assert {model.model_id for model in inputs.model_inputs} == models


def test_all_networks_better_than_x_on_set_y_are_found(root):
    everything(root)
    sync(root / "runs", root)

    def found(name: str, digest: str, filter_string: str) -> list[str]:
        models = client(root).search_logged_models(
            [tracking.experiment_id(root)],
            filter_string=filter_string,
            datasets=[{"dataset_name": name, "dataset_digest": digest}],
        )
        return sorted(model.name for model in models)

    above = "metrics.transfer_accuracy > 0.6"
    assert found("mnist/test/pgd", PGD, above) == ["mnist-robust-pgd"]
    assert found("mnist/test/lrp", LRP, above) == ["mnist-target"]
    assert found("mnist/test/lrp", PGD, above) == []
    both = ["mnist-robust-pgd", "mnist-target"]
    assert found("mnist/test/lrp", LRP, "metrics.transfer_accuracy > 0.2") == both
    assert found("mnist/test/clean", CLEAN, "metrics.clean_accuracy > 0.96") == ["mnist-target"]
    whitebox = "metrics.`whitebox_accuracy/pgd` >= 0"
    assert found("mnist/test/clean", CLEAN, whitebox) == both


def test_run_page_shows_the_worst_of_each_name(root):
    folder, *_ = everything(root)
    sync(root / "runs", root)
    shown = client(root).get_run(send(folder, root)).data.metrics
    assert shown["transfer_accuracy"] == 0.02
    assert shown["clean_accuracy"] == 0.96
    assert shown["transfer/pgd/lrp"] == 0.3


def test_images_outside_the_ball_are_a_set_of_their_own(root):
    network(root)
    evaluation(root, [scored("pgd", "lrp-unclipped", 50), scored("pgd", "pgd", 0, n=0)])
    sync(root / "runs", root)
    (model,) = all_models(root).values()
    assert bound(model) == [("transfer_accuracy", "mnist/test/lrp-unclipped", LRP, 0.5)]


@pytest.mark.parametrize("spoil", ["other", "gone"])
def test_table_that_is_not_the_records_is_not_read(root, spoil):
    everything(root)
    if spoil == "other":
        write_csv([scored("pgd", "pgd", 1)], root / TABLE)
    else:
        (root / TABLE).unlink()
    assert [sent.new for sent in sync(root / "runs", root)] == [True] * 3
    models = all_models(root)
    assert {name: list(model.metrics or []) for name, model in models.items()} == {
        "mnist-robust-pgd": [],
        "mnist-target": [],
    }
    write_csv(RESULTS, root / TABLE)
    sync(root / "runs", root)
    assert len(all_models(root)["mnist-target"].metrics) == 4


def test_network_without_a_model_gets_its_accuracies_later(root):
    folder, pgd, target = everything(root)
    send(target, root)
    send(folder, root)
    assert list(all_models(root)) == ["mnist-target"]
    send(pgd, root)
    assert not all_models(root)["mnist-robust-pgd"].metrics
    sync(root / "runs", root)
    assert [len(model.metrics) for model in all_models(root).values()] == [4, 4]


# Cards


def report(root: Path, **cards: str) -> Path:
    """The record of a report, with its cards."""
    for name, text in cards.items():
        card = root / f"reports/cards/mnist/{name.replace('_', '-')}.md"
        card.parent.mkdir(parents=True, exist_ok=True)
        card.write_text(text)
    fields = {
        "run_key": "c" * 32,
        "stage": "report",
        "item": "mnist",
        "inputs": {
            "models/target/mnist.safetensors": TARGET,
            "models/robust/mnist/pgd.safetensors": ROBUST,
            TABLE: "9" * 32,
        },
        "outputs": {"reports/cards/mnist": "8" * 32 + ".dir"},
    }
    return written(root, "1-report", **fields)


def test_card_is_the_description_of_its_model(root):
    network(root)
    network(root, "target", TARGET)
    report(root, target=f"# Target\n{TARGET}\n", robust_pgd=f"# Hardened\n{ROBUST}\n")
    for _ in range(2):
        sync(root / "runs", root)
        notes = {n: m.tags.get("mlflow.note.content") for n, m in all_models(root).items()}
        assert notes == {
            "mnist-target": f"# Target\n{TARGET}\n",
            "mnist-robust-pgd": f"# Hardened\n{ROBUST}\n",
        }


def test_card_of_other_weights_describes_nothing(root):
    network(root)
    network(root, "target", TARGET)
    report(root, target=f"# Target\n{TARGET}\n", robust_pgd="# Of weights that are gone\n")
    sync(root / "runs", root)
    described = {n for n, m in all_models(root).items() if "mlflow.note.content" in m.tags}
    assert described == {"mnist-target"}


# The registry


def version_of(root: Path, alias: str = "current") -> tuple[str, str]:
    """Number and md5."""
    version = client(root).get_model_version_by_alias("mnist-robust-pgd", alias)
    return str(version.version), version.tags["dvc.md5"]


def test_version_tells_weights_model_and_run(root):
    run_id = send(network(root), root)
    version = client(root).get_model_version_by_alias("mnist-robust-pgd", "current")
    (model,) = all_models(root).values()
    assert version.source == f"models:/{model.model_id}"
    assert (version.run_id, version.tags["dvc.md5"]) == (run_id, ROBUST)
    assert version.tags["dvc.path"] == "models/robust/mnist/pgd.safetensors"
    (link,) = json.loads(model.tags["mlflow.modelVersions"])
    assert (link["name"], str(link["version"])) == ("mnist-robust-pgd", "1")


def test_alias_moves_only_forward(root):
    later = {name: STARTED + timedelta(days=days) for days, name in enumerate("abcd")}
    send(network(root, md5="b" * 32, started=later["b"]), root)
    assert version_of(root) == ("1", "b" * 32)
    send(network(root, md5="a" * 32, started=later["a"]), root)  # an older run, sent later
    assert version_of(root) == ("1", "b" * 32)
    send(network(root, md5="c" * 32, started=later["c"]), root)
    assert version_of(root) == ("3", "c" * 32)
    again = network(root, md5="b" * 32, run_key="d" * 32, started=later["d"])
    send(again, root)  # the weights of b, trained once more
    assert version_of(root) == ("1", "b" * 32)
    send(network(root, md5="c" * 32, started=later["c"]), root)
    assert version_of(root) == ("1", "b" * 32)
    versions = client(root).search_model_versions("name = 'mnist-robust-pgd'")
    assert len(versions) == 3


# Once each, and whenever it is missing


def inventory(root: Path) -> dict[str, Any]:
    """All that is countable in a store."""
    runs = [client(root).get_run(run.info.run_id) for run in all_runs(root)]
    models = all_models(root)
    histories = {
        (run.info.run_name, name): len(client(root).get_metric_history(run.info.run_id, name))
        for run in runs
        for name in run.data.metrics
    }
    return {
        "runs": Counter(run.info.run_name for run in runs),
        "points": histories,
        "outputs": sorted(len(run.outputs.model_outputs) for run in runs),
        "inputs": sorted(
            (len(run.inputs.dataset_inputs), len(run.inputs.model_inputs)) for run in runs
        ),
        "models": {
            name: (len(model.metrics), model.tags["mlflow.modelVersions"])
            for name, model in models.items()
        },
        "versions": sorted(
            (version.name, version.version) for version in client(root).search_model_versions()
        ),
    }


def test_sent_twice_nothing_is_there_twice(root):
    everything(root)
    sync(root / "runs", root)
    before = inventory(root)
    assert before["models"].keys() == {"mnist-target", "mnist-robust-pgd"}
    assert before["outputs"] == [0, 1, 1]
    assert before["inputs"] == [(0, 0), (0, 0), (3, 2)]
    sync(root / "runs", root)
    for folder in (root / "runs").iterdir():
        send(folder, root)
    assert inventory(root) == before


def test_store_of_an_earlier_version_gets_what_it_lacks(root, monkeypatch):
    everything(root)
    with monkeypatch.context() as earlier:
        earlier.setattr(tracking, "VIEWED", ())
        sync(root / "runs", root)
    assert all_models(root) == {}
    assert [sent.new for sent in sync(root / "runs", root)] == [False] * 3
    assert [len(model.metrics) for model in all_models(root).values()] == [4, 4]
    assert len(client(root).search_model_versions()) == 2
    assert len(all_runs(root)) == 3


def test_model_of_a_broken_off_send_is_finished(root, monkeypatch):
    from mlflow import MlflowClient

    folder = network(root)
    with monkeypatch.context() as broken:
        broken.setattr(MlflowClient, "finalize_logged_model", refuse)
        with pytest.raises(TrackingError):
            send(folder, root)
    assert all_models(root)["mnist-robust-pgd"].status == "PENDING"
    send(folder, root)
    assert all_models(root)["mnist-robust-pgd"].status == "READY"


def refuse(*_args: Any, **_kwargs: Any) -> None:
    from mlflow.exceptions import MlflowException

    raise MlflowException("API not found")


@pytest.mark.parametrize("method", ["create_registered_model", "search_logged_models"])
def test_store_that_knows_runs_alone_has_them_all(root, monkeypatch, capfd, method):
    from mlflow import MlflowClient

    _, pgd, _ = everything(root)
    with monkeypatch.context() as poor:
        poor.setattr(MlflowClient, method, refuse)
        with pytest.raises(TrackingError, match=r"API not found; the run is kept in .*pgd and"):
            send(pgd, root)
        with pytest.raises(TrackingError, match="API not found"):
            sync(root / "runs", root)
    assert [run.info.status for run in all_runs(root)] == ["FINISHED"] * 3
    assert capfd.readouterr() == ("", "")
    if method == "create_registered_model":
        assert [len(model.metrics) for model in all_models(root).values()] == [4, 4]
    sync(root / "runs", root)
    assert len(client(root).search_model_versions()) == 2
    assert len(all_runs(root)) == 3


# The published runs


def test_committed_records_give_the_committed_table(root):
    """Every network of MNIST with every accuracy, from the repository's own files."""
    for stage in ("train_target", "train_dgn", "adversarial_train", "train_online", "evaluate"):
        folder = f"reports/runs/mnist/{stage}"
        shutil.copytree(ROOT / folder, root / folder)
    table = Path("reports/results/mnist.csv")
    (root / table).parent.mkdir(parents=True)
    shutil.copy(ROOT / table, root / table)
    sent = sync(root / "reports/runs", root)
    every = [run.data.tags for run in all_runs(root)]
    tags = [tag for tag in every if "deepcustom.stage" in tag]
    assert len(tags) == len(sent) > 8
    parents = {tag["mlflow.parentRunId"] for tag in tags if "mlflow.parentRunId" in tag}
    assert len(every) == len(tags) + len(parents), "a parent for each repro"
    assert {tag["deepcustom.restored"] for tag in tags} == {"true"}

    results = read_csv(ROOT / table)
    networks = {result.network: result.network_md5 for result in results}
    assert len(networks) == 10
    models = all_models(root)
    by_md5 = {model.tags["dvc.md5"]: model for model in models.values()}
    # one of each but the evaluation, and a second one of train_online
    assert len(models) == len(by_md5) == len(sent) - 1 + 1
    for name, md5 in networks.items():
        kept = {(m.key, m.dataset_name, m.dataset_digest): m.value for m in by_md5[md5].metrics}
        of_network = [result for result in results if result.network == name]
        assert len(kept) == len(of_network) == len(by_md5[md5].metrics)
        for result in of_network:
            transfer = result.protocol == "transfer"
            metric = f"{result.protocol}_accuracy/{result.attack}"
            if transfer:
                clean = result.attack == "clean"
                metric = "clean_accuracy" if clean else "transfer_accuracy"
            attack = result.attack if transfer else "clean"
            assert kept[metric, f"mnist/test/{attack}", result.set_md5] == result.accuracy
    registered = {v.name: v.tags["dvc.md5"] for v in client(root).search_model_versions()}
    assert registered == {name: model.tags["dvc.md5"] for name, model in models.items()}
