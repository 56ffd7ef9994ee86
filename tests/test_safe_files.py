"""Files that travel: a pickle in place of any is refused unread, and no path leaves the project."""

from __future__ import annotations

import ast
import json
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import GENERATOR
from pipeline_fixtures import ROOT, Pipeline, call_main, make_project, resolve, set_params

from deepcustom.attacks.bank import DGNBank
from deepcustom.base.errors import InputError, ParamsError
from deepcustom.base.params import read_params
from deepcustom.data.arrays import AdversarialSet, Split
from deepcustom.data.datasets import load_spec
from deepcustom.data.sources import find_source
from deepcustom.evaluation.results import read_csv
from deepcustom.pipeline.dvc import read_lock
from deepcustom.pipeline.gallery import read_gallery
from deepcustom.pipeline.load import load_analysis
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.workspace import Workspace
from deepcustom.tracking.record import RUN_FILE, RunRecord
from deepcustom.tracking.store import artifact_root, tracking_uri
from deepcustom.training.checkpoint import Checkpoint
from deepcustom.training.nets.cifar10 import Cifar10Classifier
from deepcustom.training.nets.mnist import MnistClassifier
from deepcustom.training.weights import load_network, load_tensors, save_tensors

MNIST = find_source("mnist").spec


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def plain(path: Path, payload: Payload) -> None:
    path.write_bytes(pickle.dumps(payload))


def torch_file(path: Path, payload: Payload) -> None:
    torch.save({"weight": payload}, path)


def numpy_file(path: Path, payload: Payload) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([payload], dtype=object), allow_pickle=True)


def in_metadata(path: Path, payload: Payload) -> None:
    """A true safetensors file that carries a pickle, where a careless reader might look for one."""
    tensors = {"weight": torch.frombuffer(bytearray(pickle.dumps(payload)), dtype=torch.uint8)}
    save_tensors(path, tensors, {"kind": "classifier", "pickle": pickle.dumps(payload).hex()})


GUISES = [plain, torch_file, numpy_file, in_metadata]


def test_each_guise_would_do_harm_to_a_careless_reader(tmp_path: Path) -> None:
    """Else the tests below would show nothing."""
    marker = tmp_path / "marker"
    path = tmp_path / "file"
    careless: dict[Callable[..., None], Callable[[], object]] = {
        plain: lambda: pickle.loads(path.read_bytes()),
        torch_file: lambda: torch.load(path, weights_only=False),
        numpy_file: lambda: np.load(path, allow_pickle=True),
        in_metadata: lambda: pickle.loads(load_tensors(path)[0]["weight"].numpy().tobytes()),
    }
    for guise in GUISES:
        guise(path, Payload(marker))
        assert not marker.exists()
        careless[guise]()
        assert marker.exists(), guise
        marker.unlink()


def analysis(folder: Path) -> None:
    ws = Workspace(folder)
    with StageRun(ws, "train_dgn", "mnist", "lrp") as stage:
        load_analysis(stage, MNIST, "relevance", None)  # type: ignore[arg-type]


def checkpoint(folder: Path) -> None:
    """One that is not to be relied on counts as absent."""
    if Checkpoint(folder / ".checkpoints/a", "f").load("epoch") is None:
        raise InputError("absent")


READERS: dict[str, Callable[[Path], object]] = {
    "models/target/mnist.safetensors": lambda folder: load_network(
        folder / "models/target/mnist.safetensors", MnistClassifier()
    ),
    "models/robust/cifar10/pgd.safetensors": lambda folder: load_network(
        folder / "models/robust/cifar10/pgd.safetensors", Cifar10Classifier()
    ),
    "models/dgn/mnist/lrp.safetensors": lambda folder: DGNBank.load(
        folder / "models/dgn/mnist/lrp.safetensors",
        GENERATOR["mnist"],
        "mnist",
        10,
        torch.device("cpu"),
    ),
    "data/analysis/mnist/relevance.safetensors": analysis,
    "data/gallery/mnist.safetensors": lambda folder: read_gallery(
        folder / "data/gallery/mnist.safetensors"
    ),
    **{
        f"data/prepared/mnist/train/{name}.npy": lambda folder: Split.load(
            folder / "data/prepared/mnist/train", MNIST
        )
        for name in ("x", "y", "index")
    },
    **{
        f"data/adversarial/mnist/test/lrp/{name}.npy": lambda folder: AdversarialSet.load(
            folder / "data/adversarial/mnist/test/lrp", MNIST
        )
        for name in ("x", "x_adv", "y", "index")
    },
    "data/prepared/mnist/dataset.json": lambda folder: load_spec(
        folder / "data/prepared/mnist/dataset.json"
    ),
    ".checkpoints/a/epoch.safetensors": checkpoint,
    f"reports/runs/mnist/evaluate/{RUN_FILE}": lambda folder: RunRecord.read(
        folder / "reports/runs/mnist/evaluate"
    ),
    "reports/results/mnist.csv": lambda folder: read_csv(folder / "reports/results/mnist.csv"),
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with sound arrays, so that only the planted file is wrong."""
    folder = make_project(tmp_path / "project").root
    split = Split.load(folder / "data/prepared/mnist/train", MNIST).take(slice(0, 20))
    x_adv = (split.x / 255).astype(np.float32)
    made = AdversarialSet(split.x, x_adv, split.y, split.index)
    made.save(folder / "data/adversarial/mnist/test/lrp")
    return folder


@pytest.mark.parametrize("guise", GUISES)
@pytest.mark.parametrize("name", READERS)
def test_a_planted_pickle_is_refused_unread(
    name: str, guise: Callable[[Path, Payload], None], project: Path
) -> None:
    path = project / name
    path.parent.mkdir(parents=True, exist_ok=True)
    marker = project / "marker"
    guise(path, Payload(marker))
    with pytest.raises(InputError) as caught:
        READERS[name](project)
    assert "\n" not in str(caught.value)
    assert not marker.exists()


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """The real dvc.yaml and params.yaml."""
    folder = tmp_path_factory.mktemp("pipeline")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder)
    return resolve(folder)


def test_every_kind_of_file_that_travels_has_its_reader_here(pipeline: Pipeline) -> None:
    outs = {out.def_path for one in pipeline.instances.values() for out in one.outs}
    outs = {out for out in outs if not out.startswith("reports/")}  # text, which git holds
    kinds = {"/".join(out.split("/")[:2]) for out in outs}
    assert kinds == {"/".join(name.split("/")[:2]) for name in READERS if name[0] in "dm"}


@pytest.mark.parametrize("name", ["params.yaml", "dvc.lock"])
def test_yaml_makes_no_objects(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    (tmp_path / name).write_text(f"a: !!python/object/apply:pathlib.Path.touch [{marker}]\n")
    with pytest.raises((ParamsError, InputError)):
        read_params(tmp_path / name) if name == "params.yaml" else read_lock(tmp_path)
    assert not marker.exists()


FORBIDDEN = {
    ("pickle", "load"),
    ("pickle", "loads"),
    ("torch", "load"),
    ("torch", "save"),
    ("joblib", "load"),
    ("yaml", "load"),
    ("yaml", "unsafe_load"),
    ("pickle", "dump"),
    ("pickle", "dumps"),
}


def test_no_code_of_ours_unpickles_or_pickles() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) not in FORBIDDEN, path
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant), path
                assert node.value.value is False, path


# Sizes


@pytest.mark.parametrize("claim", [2**31, 2**62])
def test_a_safetensors_file_that_claims_more_than_it_holds(claim: int, tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [claim // 4], "data_offsets": [0, claim]}
    header = json.dumps({"__metadata__": {"deepcustom": "{}"}, "weight": entry}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 64)
    with pytest.raises(InputError, match="is not a DeepCustom safetensors file, or is corrupted"):
        load_tensors(path)


def test_a_safetensors_header_longer_than_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", 2**40) + b"{}")
    with pytest.raises(InputError, match="is not a DeepCustom safetensors file, or is corrupted"):
        load_tensors(path)


@pytest.mark.parametrize("count", [10**6, 2**61])
def test_an_array_that_claims_more_than_it_holds(count: int, project: Path) -> None:
    folder = project / "data/prepared/mnist/train"
    path = folder / "x.npy"
    path.unlink()
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, 1, 28, 28)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.write(b"\0" * 1000)
    with pytest.raises(InputError, match=r"x\.npy: no whole \.npy file"):
        Split.load(folder, MNIST)


# Paths

OUTSIDE = ["../x", "a/../../x", "/tmp/x"]


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_stage_reads_and_writes_inside_its_project_only(path: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("outside")
    stage = StageRun(make_project(tmp_path / "project"), "prepare", "mnist")
    for use in (stage.read, stage.write):
        with pytest.raises(InputError, match="leads out of the project's folder"):
            use(path)
    assert (tmp_path / "x").read_text() == "outside"


@pytest.mark.parametrize("section", ["train_dgn", "attack", "adversarial_train"])
@pytest.mark.parametrize("name", ["../../../x", "a/b", ".hidden", "a\\b", "a b", ""])
def test_names_that_become_files_are_plain(
    section: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_project(tmp_path / "project").root
    some = next(iter(read_params(folder / "params.yaml")[section].values()))
    set_params(folder, {section: {name: some}})
    assert call_main(folder, "repro", "--profile", "default") == 2
    error = capsys.readouterr().err
    assert f"{section}.{name!r} names files: it must begin with a letter or digit" in error


def test_no_path_of_the_pipeline_leaves_the_project(pipeline: Pipeline) -> None:
    paths = {path for one in pipeline.instances.values() for path in one.deps}
    paths |= {out.def_path for one in pipeline.instances.values() for out in one.outs}
    ws = Workspace(ROOT)
    assert len(paths) > 100
    assert all(ws.path(path).is_relative_to(ROOT) for path in paths)
    lock = read_lock(ROOT).values()
    kept = {one["path"] for entry in lock for key in ("deps", "outs") for one in entry[key]}
    assert all(ws.path(path).is_relative_to(ROOT) for path in kept)


@pytest.mark.usefixtures("own_store")
def test_the_default_store_of_runs_lies_in_the_project(tmp_path: Path) -> None:
    uri = tracking_uri(tmp_path)
    assert uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert artifact_root(uri) == (tmp_path / "mlartifacts").as_uri()
