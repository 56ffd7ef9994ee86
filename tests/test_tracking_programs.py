"""Every network in the registry loads by its alias, with MLflow alone, and answers as it is scored."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pipeline_fixtures import ROOT, own_modules, told_anew
from torch import nn
from tracking_fixtures import all_models, all_runs, client, written

from deepcustom.attacks.bank import DGNBank
from deepcustom.attacks.conditional import ConditionalDGN
from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.errors import TrackingError
from deepcustom.base.hashes import dvc_md5
from deepcustom.data.datasets import save_spec
from deepcustom.data.sources import find_source
from deepcustom.pipeline import load, workspace
from deepcustom.pipeline.dgns import load_dgns
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.workspace import Workspace
from deepcustom.tracking import rebuilt
from deepcustom.tracking.record import RunRecord
from deepcustom.tracking.store import send, sync, tracking_uri
from deepcustom.tracking.ui import free_port
from deepcustom.training.compute import FLOAT32
from deepcustom.training.nets.exported import load_exported
from deepcustom.training.nets.foreign import Foreign
from deepcustom.training.nets.healed import Healed, Remedy
from deepcustom.training.nets.mnist import MnistClassifier, MnistConditional, MnistGenerator
from deepcustom.training.weights import save_network

pytestmark = pytest.mark.usefixtures("own_store")

SUBJECT = {
    "dataset": "mnist",
    "network": "deepcustom.training.nets.mnist:MnistClassifier",
    "generator": "deepcustom.training.nets.mnist:MnistGenerator",
    "conditional": "deepcustom.training.nets.mnist:MnistConditional",
    "threat": {"norm": "linf", "eps": 0.3},
}
NAMES = {"train_target": "mnist-target", "train_dgn": "mnist-dgn-a"}
PATHS = {
    "train_target": "models/target/mnist.safetensors",
    "train_dgn": "models/dgn/mnist/a.safetensors",
}
ABOUT = {"kind": "classifier"}


@pytest.fixture(autouse=True)
def _store(root: Path) -> Iterator[None]:
    """Plain MLflow, as a user calls it, finds the store; the tests after these do not."""
    import mlflow

    mlflow.set_tracking_uri(tracking_uri(root))
    yield
    mlflow.set_tracking_uri(None)


def training(root: Path, stage: str, save: Callable[[Path], None], **changes: Any) -> Path:
    """The record of a training, and the file that it left."""
    file = root / PATHS[stage]
    file.parent.mkdir(parents=True, exist_ok=True)
    save(file)
    subject = SUBJECT | changes.pop("subject", {})
    item = "mnist" if stage == "train_target" else "mnist-a"
    fields = {
        "stage": stage,
        "item": item,
        "outputs": {PATHS[stage]: dvc_md5(file)},
        "params": {"subjects.mnist": subject},
    }
    return written(root, stage, **fields | changes)


def three_classes(root: Path) -> None:
    """Describe a data set of three classes, for small banks."""
    place = root / workspace.dataset("mnist")
    place.parent.mkdir(parents=True)
    save_spec(replace(find_source("mnist").spec, classes=("0", "1", "2")), place)


def seeded(net: nn.Module) -> nn.Module:
    """``net`` with weights drawn anew, always the same."""
    dice = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=dice) * 0.1
    return net.eval().requires_grad_(False)


def images(n: int, shape: tuple[int, ...] = (1, 28, 28)) -> torch.Tensor:
    return torch.rand((n, *shape), generator=torch.Generator().manual_seed(n))


def answers(name: str, *given: torch.Tensor) -> list[torch.Tensor]:
    """What both of MLflow's ways to load a network give."""
    import mlflow

    address = f"models:/{name}@current"
    with torch.no_grad():
        plain = mlflow.pytorch.load_model(address)(*given)
    arrays = [one.numpy() for one in given]
    shown = dict(zip(("images", "labels"), arrays, strict=True)) if len(given) > 1 else arrays[0]
    return [plain, torch.from_numpy(mlflow.pyfunc.load_model(address).predict(shown))]


def answers_as(name: str, net: Callable[..., torch.Tensor], *given: torch.Tensor) -> None:
    if isinstance(net, nn.Module):
        FLOAT32.place(net)  # as the stages do; sums are rounded otherwise in another layout
    for found in answers(name, *given):
        assert torch.equal(found, net(*given))


# What loads


def test_a_network_loads_by_its_alias_and_answers_as_it_is_scored(root):
    import mlflow

    net = seeded(MnistClassifier())
    send(training(root, "train_target", lambda file: save_network(file, net, ABOUT)), root)
    for n in (1, 2, 9):
        answers_as("mnist-target", net, images(n))
    info = mlflow.models.get_model_info("models:/mnist-target@current")
    assert info.metadata == {
        "dvc.md5": dvc_md5(root / PATHS["train_target"]),
        "dvc.path": PATHS["train_target"],
    }
    (given,), (made,) = info.signature.inputs, info.signature.outputs
    assert (given.shape, made.shape) == ((-1, 1, 28, 28), (-1, 10))
    folder = mlflow.artifacts.download_artifacts("models:/mnist-target@current")
    example = mlflow.models.Model.load(folder).load_input_example(folder)
    assert mlflow.pyfunc.load_model(folder).predict(example).shape == (1, 10)


@pytest.mark.parametrize("output", ["image", "perturbation"])
def test_a_bank_loads_as_one_network_of_images_and_labels(root, output):
    bank = DGNBank("mnist", "nce", output, [seeded(MnistGenerator()) for _ in range(3)])
    bank.generators[1].apply(
        lambda m: nn.init.zeros_(m.weight) if isinstance(m, nn.Conv2d) else None
    )
    three_classes(root)
    send(training(root, "train_dgn", bank.save), root)
    kept = DGNBank.load(
        root / PATHS["train_dgn"], SUBJECT["generator"], "mnist", 3, torch.device("cpu")
    )
    x, y = images(9), torch.tensor([0, 2, 2, 0, 1, 2, 0, 0, 2])
    made = kept.generate(x, y, ThreatModel(0.3), compute=FLOAT32)
    for found in answers("mnist-dgn-a", x, y):
        assert torch.allclose(found, made, atol=1e-6)
        assert len({float(one.sum()) for one in (found - x)}) > 3
        assert float((found - x).abs().max()) <= 0.3
    (one,) = answers("mnist-dgn-a", x[:1], y[1:2])[:1]  # a class without an image
    assert torch.allclose(one, kept.generate(x[:1], y[1:2], ThreatModel(0.3), compute=FLOAT32))


def test_a_generator_that_is_told_the_label_loads(root):
    net = seeded(MnistConditional(10))
    dgn = ConditionalDGN("mnist", "nce", False, net)
    send(training(root, "train_dgn", dgn.save), root)
    x, y = images(4), torch.tensor([0, 9, 5, 5])
    kept = ConditionalDGN.load(
        root / PATHS["train_dgn"], SUBJECT["conditional"], "mnist", 10, torch.device("cpu")
    )
    made = kept.generate(x, y, ThreatModel(0.3), compute=FLOAT32)
    for found in answers("mnist-dgn-a", x, y):
        assert torch.allclose(found, made, atol=1e-6)


OWN = """
import torch

class Mine(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first = torch.nn.Conv2d(1, width, 3, padding=1)
        self.last = torch.nn.Linear(width, 10)

    def forward(self, x):
        return self.last(torch.relu(self.first(x)).mean((2, 3))), len(x)
"""


def own(root: Path) -> Any:
    """A class of the user's own, in their project."""
    (root / "own/nets").mkdir(parents=True)
    (root / "own/nets/mine.py").write_text(OWN)
    space: dict[str, Any] = {}
    exec(OWN, space)
    return space["Mine"]


def test_a_network_of_the_users_own_loads_without_their_code(root):
    net = Foreign(seeded(own(root)(4)), mean=[0.5], std=[0.25], classes=10)
    network = {
        "name": "own.nets.mine:Mine",
        "options": {"width": 4},
        "mean": [0.5],
        "std": [0.25],
    }
    with own_modules("own"):
        send(
            training(
                root,
                "train_target",
                lambda file: save_network(file, net, ABOUT),
                subject={"network": network},
            ),
            root,
        )
    shutil.rmtree(root / "own")
    answers_as("mnist-target", net, images(5))


def test_a_network_with_something_put_around_it_loads(root):
    inner = Foreign(seeded(own(root)(4)).double(), classes=10)
    remedy = Remedy(10, recast=True, dtype="float64", empty=True)
    about = {**ABOUT, rebuilt.REMEDY: remedy.as_json()}
    network = {"name": "own.nets.mine:Mine", "options": {"width": 4}}
    double = OWN.replace("Linear(width, 10)", "Linear(width, 10)\n        self.double()")
    (root / "own/nets/mine.py").write_text(double)
    with own_modules("own"):
        send(
            training(
                root,
                "train_target",
                lambda file: save_network(file, inner, about),
                subject={"network": network},
            ),
            root,
        )
    whole = Healed(inner, remedy)
    answers_as("mnist-target", whole, images(5))
    assert rebuilt.REMEDY == load.REMEDY


def test_an_exported_program_loads(root):
    net = seeded(MnistClassifier())
    program = root / "own/nets/mine.pt2"
    program.parent.mkdir(parents=True)
    some = {0: torch.export.Dim("n")}
    torch.export.save(torch.export.export(net, (images(3),), dynamic_shapes=(some,)), program)
    whole = Foreign(load_exported(program), mean=[0.5], std=[0.25], classes=10)
    network = {"name": "own/nets/mine.pt2", "mean": [0.5], "std": [0.25]}
    folder = training(
        root,
        "train_target",
        lambda file: save_network(file, whole, ABOUT),
        subject={"network": network},
        inputs={"own/nets/mine.pt2": dvc_md5(program)},
    )
    send(folder, root)
    answers_as("mnist-target", whole, images(5))


# What does not


def loadable(root: Path) -> set[str]:
    found = client(root)
    return {
        name
        for name, model in all_models(root).items()
        if "MLmodel" in {one.path for one in found.list_logged_model_artifacts(model.model_id)}
    }


def test_other_bytes_than_the_runs_are_not_sent_and_sync_makes_up_for_it(root, capfd):
    folder = training(root, "train_target", lambda file: save_network(file, MnistClassifier(), {}))
    file = root / PATHS["train_target"]
    right = file.read_bytes()
    save_network(file, MnistClassifier(), {})
    send(folder, root)
    assert loadable(root) == set()
    file.unlink()
    (sent,) = sync(root / "runs", root)
    assert sent.absent == (PATHS["train_target"],)
    file.write_bytes(right)
    (sent,) = sync(root / "runs", root)
    assert (sent.absent, loadable(root)) == ((), {"mnist-target"})
    assert len(all_runs(root)) == 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("network", "why"),
    [
        ("own.nets.gone:Gone", "importing 'own.nets.gone' failed"),
        ("deepcustom.training.nets.cifar10:Cifar10Classifier", "does not fit"),
    ],
)
def test_a_network_that_cannot_be_made_is_named_and_the_run_is_there(root, capfd, network, why):
    subject = {"network": network}
    save = lambda file: save_network(file, MnistClassifier(), {})  # noqa: E731
    send(training(root, "train_target", save, subject=subject), root)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"note: {PATHS['train_target']} cannot be loaded from MLflow: ")
    assert why in line
    assert [run.info.status for run in all_runs(root)] == ["FINISHED"]
    assert loadable(root) == set()


def test_a_network_that_torch_cannot_export_is_named(root, capfd):
    own(root)
    text = (root / "own/nets/mine.py").read_text()
    odd = text.replace("return", "if x.sum() > 3:\n            x = x.clone()\n        return")
    (root / "own/nets/mine.py").write_text(odd)
    space: dict[str, Any] = {}
    exec(OWN, space)
    net = Foreign(space["Mine"](4), classes=10)
    network = {"name": "own.nets.mine:Mine", "options": {"width": 4}}
    with own_modules("own"):
        send(
            training(
                root,
                "train_target",
                lambda file: save_network(file, net, ABOUT),
                subject={"network": network},
            ),
            root,
        )
    (line,) = capfd.readouterr().err.splitlines()
    assert "cannot be loaded from MLflow: torch cannot export it" in line
    assert len(line) < 400


def test_a_large_bank_is_left_out(root, capfd, monkeypatch):
    monkeypatch.setattr("deepcustom.tracking.programs.MOST_GENERATORS", 9)
    bank = DGNBank("mnist", "nce", "image", [MnistGenerator() for _ in range(10)])
    send(training(root, "train_dgn", bank.save), root)
    assert "a bank of 10 generators, more than 9" in capfd.readouterr().err
    assert loadable(root) == set()


def test_an_upload_that_broke_off_is_made_again(root, monkeypatch):
    from mlflow import MlflowClient

    save = lambda file: save_network(file, MnistClassifier(), {})  # noqa: E731
    folder = training(root, "train_target", save)

    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(MlflowClient, "log_model_artifact", fail)
        with pytest.raises(TrackingError, match="No space left on device"):
            send(folder, root)
    assert loadable(root) == set()
    sync(root / "runs", root)
    assert loadable(root) == {"mnist-target"}


def test_nothing_in_the_artifact_is_a_pickle(root):
    three_classes(root)
    bank = DGNBank("mnist", "nce", "image", [MnistGenerator() for _ in range(3)])
    send(training(root, "train_dgn", bank.save), root)
    files = [file for file in (root / "mlartifacts/models").rglob("*") if file.is_file()]
    (program,) = [file for file in files if file.suffix == ".pt2"]
    assert program.stat().st_size < 1.5 * (root / PATHS["train_dgn"]).stat().st_size
    load_exported(program)  # which refuses pickles
    with zipfile.ZipFile(program) as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    assert [text for name, text in parts.items() if "sample_inputs" in name] == [b""]
    other = {name: text for name, text in parts.items() if "/weights/weight_" not in name}
    assert not [name for name, text in other.items() if text[:1] == b"\x80" or text[:2] == b"PK"]
    assert {file.suffix for file in files} <= {"", ".pt2", ".py", ".json", ".txt", ".yaml"}


# Served


def test_mlflow_serves_a_network_on_this_machine(root):
    net = seeded(MnistClassifier())
    send(training(root, "train_target", lambda file: save_network(file, net, ABOUT)), root)
    port = free_port("127.0.0.1", 5200)
    words = ["models", "serve", "-m", "models:/mnist-target@current", "--env-manager", "local"]
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", *words, "-h", "127.0.0.1", "-p", str(port)],
        cwd=root,
        env=os.environ | {"MLFLOW_TRACKING_URI": tracking_uri(root)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    x = images(3)
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations",
        json.dumps({"inputs": x.tolist()}).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        found = _asked(request, server)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
    np.testing.assert_allclose(found["predictions"], net(x).numpy(), rtol=1e-6, atol=1e-6)


def _asked(request: urllib.request.Request, server: Any) -> Any:
    """The answer, as soon as the server gives one."""
    end = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except (urllib.error.URLError, ConnectionError):
            assert server.poll() is None
            assert time.monotonic() < end
            time.sleep(0.5)


# The published networks


def published(root: Path, subject: str, *folders: str) -> None:
    """The committed records of trainings, with their files as the repository's own store has them."""
    shutil.copy(ROOT / "params.yaml", root)
    for folder in folders:
        shutil.copytree(ROOT / "reports/runs" / subject / folder, root / "runs" / folder)
    for file in (root / "runs").rglob("run.json"):
        for path, md5 in RunRecord.read(file.parent).outputs.items():
            if path.startswith("models/"):
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / f"dvc-store/files/md5/{md5[:2]}/{md5[2:]}", root / path)
                if workspace.metrics_of(path):
                    told_anew(Workspace(root), path)
    spec = find_source(subject).spec
    place = root / workspace.dataset(subject)
    place.parent.mkdir(parents=True)
    save_spec(spec, place)


FEW = ["train_target", "train_online"]
ALL = ["train_target", "train_online", "train_dgn", "adversarial_train"]


@pytest.mark.parametrize(
    ("subject", "folders"),
    [
        ("mnist", [*FEW, "train_dgn/nce-ball"]),
        ("cifar10", FEW),
        pytest.param("mnist", ALL, marks=pytest.mark.slow),
        pytest.param("cifar10", ALL, marks=pytest.mark.slow),
    ],
)
def test_every_published_network_loads_and_answers_as_its_file(root, subject, folders):
    published(root, subject, *folders)
    shutil.copy(ROOT / "dvc.yaml", root)
    sent = sync(root / "runs", root)
    assert not any(run.absent for run in sent)
    models = all_models(root)
    assert loadable(root) == set(models)
    stage = StageRun(Workspace(root), "evaluate", subject, writes=False)
    spec = load.load_dataset(stage)
    x, y = images(10, spec.shape), torch.arange(10)
    for name, model in models.items():
        _, kind, *rest = Path(model.tags["dvc.path"]).with_suffix("").parts
        if kind == "dgn":
            dgn = load_dgns(stage, spec, rest[-1], FLOAT32)
            threat = ThreatModel.of(stage.subject.threat)
            made = dgn.generate(x, y, threat, compute=FLOAT32)
            for found in answers(name, x, y):
                assert torch.allclose(found, made, atol=1e-6)
        else:
            network = "target" if kind == "target" else rest[-1]
            answers_as(name, load.load_classifier(stage, network, FLOAT32), x)
