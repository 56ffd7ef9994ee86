"""What the tests share: small real images, a small trained network, and settings."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.settings import TrainingParams
from deepcustom.data.arrays import Split
from deepcustom.tracking import store as tracking
from deepcustom.training.compute import FLOAT32, Compute
from deepcustom.training.fit import train_classifier
from deepcustom.training.job import Job
from deepcustom.training.nets.base import Classifier
from deepcustom.training.nets.mnist import MnistClassifier

Images = tuple[Tensor, Tensor]

# The tensors here are tiny: on busy cores a second thread is waited for, not helped by.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits() -> Split:
    """scikit-learn's 1,797 real digits, shuffled, enlarged from 8x8 to 28x28: uint8 (N, 1, 28, 28)."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    small = torch.from_numpy(raw.images).float().div(16).unsqueeze(1)
    large = torch.nn.functional.interpolate(small, size=(28, 28), mode="bilinear")
    x = large.mul(255).round().to(torch.uint8).numpy()
    order = np.random.default_rng(0).permutation(len(x))
    return Split.whole(x[order], raw.target[order].astype(np.uint8))


@pytest.fixture(scope="session")
def train(digits: Split) -> Images:
    """1,000 images (N, 1, 28, 28) in [0, 1] and labels (N,)."""
    return digits.take(np.arange(1000)).tensors()


@pytest.fixture(scope="session")
def held_out(digits: Split) -> Images:
    """200 other images and labels."""
    return digits.take(np.arange(1000, 1200)).tensors()


@pytest.fixture(scope="session")
def few(digits: Split) -> Images:
    """60 images and labels of every class, for what is slow."""
    return digits.take(np.arange(1200, 1260)).tensors()


@pytest.fixture(scope="session")
def nothing(train: Images) -> Images:
    """No images, no labels."""
    return train[0][:0], train[1][:0]


@pytest.fixture(scope="session")
def trained(train: Images, nothing: Images) -> Classifier:
    """A classifier that gets about nine in ten of ``train`` right; use ``target_net``."""
    torch.manual_seed(0)
    net = MnistClassifier()
    values = {"learning_rate": 3e-3, "epochs": 10, "batch_size": 32, "schedule": "one_cycle"}
    budget = TrainingParams(**values, momentum=0.9, weight_decay=0.0)
    train_classifier(net, train, nothing, budget, Job(0, FLOAT32))
    return net.eval().requires_grad_(False)


@pytest.fixture
def target_net(trained: Classifier) -> Classifier:
    """A copy of the trained classifier, frozen, for this test alone."""
    return copy.deepcopy(trained)


@pytest.fixture
def threat() -> ThreatModel:
    """MNIST's."""
    return ThreatModel(0.3)


@pytest.fixture
def compute() -> Compute:
    """The CPU in float32."""
    return FLOAT32


@pytest.fixture
def own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow as if the user had set nothing."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_LOGGING_LEVEL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**tracking.PATIENCE, "NO_PROXY": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables without content: making them takes MLflow seconds."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def root(tmp_path: Path, empty_store: Path) -> Path:
    """A repository's root with an empty store."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return tmp_path
