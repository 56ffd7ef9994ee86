"""Projects of a user's own, from ``deepcustom init`` to the report: images of several kinds, few of each."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import yaml
from mlflow import MlflowClient
from PIL import Image
from pipeline_fixtures import call_main, own_modules

from deepcustom.base.hashes import dvc_md5
from deepcustom.evaluation.results import AUTOATTACK, PROTOCOLS, read_csv

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

RESNET_18 = '''
"""ResNet-18 (He et al. 2016), with the normalisation of its images inside."""

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.short = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.short = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        h = self.norm2(self.second(self.relu(self.norm1(self.first(x)))))
        return self.relu(h + self.short(x))


class ResNet18(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        )
        widths = [64, 64, 128, 256, 512]
        blocks = []
        for i, (a, b) in enumerate(zip(widths, widths[1:])):
            blocks += [Block(a, b, 1 if i == 0 else 2), Block(b, b, 1)]
        self.blocks = nn.Sequential(*blocks)
        self.scores = nn.Linear(512, classes)

    def forward(self, x):
        h = self.blocks(self.stem((x - self.mean) / self.std))
        return self.scores(h.mean((2, 3)))
'''

LOGIT_LOSS = '''
"""Lowers the logit of the true class, and keeps the image as it is."""

from deepcustom import CustomLoss
from deepcustom.base.params import Params


class Options(Params):
    mse_weight: float


class LogitLoss(CustomLoss):
    Options = Options

    def __call__(self, x, g):
        logit = self.context.target_net(g)[:, self.context.label]
        mse = ((g - x) ** 2).flatten(1).mean(1)
        return {"logit": logit, "mse": self.options.mse_weight * mse}
'''

EVERY_LOSS = (
    "lrp --loss lrp --set options.custom_loss_constant=0.5",
    "suspiciousness --loss suspiciousness --set generator=conditional "
    "--set 'options={custom_loss_constant: 0.9, theta: 0.5, gamma: 0.01, alpha: 0.5, beta: 0.01}'",
    "logit --loss own.losses.logit:LogitLoss --set options.mse_weight=1.0",
)
"""A bank for each other loss of the package, and one for the user's own; the second is told the label."""

TINY = {
    "epochs": 1,
    "max_iter": 2,
    "num_random_init": 1,
    "queries": 10,
    "n": 12,
    "batch_size": 32,
}
"""Budgets that let every stage run and tell nothing about robustness."""


@dataclass(frozen=True)
class Own:
    """A project to lay down.

    Attributes:
        images: draws the images into a folder.
        network: what ``--network`` names.
        classes: how many there are.
        shape: of an image.
        options: further options of ``init``.
        banks: what ``deepcustom add bank`` is called with.
        epochs: for which the target network trains.
    """

    images: Callable[[Path], None]
    network: str
    classes: int
    shape: tuple[int, int, int]
    options: list[str] = field(default_factory=list)
    banks: tuple[str, ...] = ()
    epochs: int = 1


def photographs() -> list[np.ndarray]:
    """The two photographs that come with scikit-learn, uint8 (427, 640, 3)."""
    from sklearn.datasets import load_sample_images

    return list(load_sample_images().images)


def regions(rows: int, columns: int) -> list[np.ndarray]:
    """Both photographs, cut into a grid."""
    found = []
    for photograph in photographs():
        for strip in np.array_split(photograph, rows, axis=0):
            found += np.array_split(strip, columns, axis=1)
    return found


def crop(region: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    top, left = (int(rng.integers(0, n - size + 1)) for n in region.shape[:2])
    return region[top : top + size, left : left + size]


def two_greys(folder: Path) -> None:
    """Two classes of grey JPEGs of mixed sizes, in train and test.

    In train a few images of each lie in the other class, so that a network fails somewhere in both.
    """
    rng = np.random.default_rng(1)
    for part, count in (("train", 60), ("test", 24)):
        for name, region in zip(("china", "flower"), photographs(), strict=True):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                image = Image.fromarray(crop(region, int(rng.integers(24, 49)), rng)).convert("L")
                image.save(folder / part / name / f"{number}.jpg")
    for number in range(8):
        china, flower = (folder / "train" / name / f"{number}.jpg" for name in ("china", "flower"))
        china.rename(folder / "moved.jpg")
        flower.rename(china)
        (folder / "moved.jpg").rename(flower)


def hundred_classes(folder: Path) -> None:
    """A hundred classes of 32 x 32 colour PNGs; the first has twice the images of the last."""
    rng = np.random.default_rng(2)
    for label, region in enumerate(regions(5, 10)):
        place = folder / f"place {label:03}"
        place.mkdir(parents=True)
        for number in range(18 - label // 10):
            Image.fromarray(crop(region, 32, rng)).save(place / f"{number}.png")


PROJECTS = {
    "two": Own(two_greys, "small", 2, (1, 24, 24), ["--size", "24"], EVERY_LOSS, epochs=10),
    "hundred": Own(hundred_classes, "resnet18.py:ResNet18", 100, (3, 32, 32)),
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder outside of any project, where git knows the user."""
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "a")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "a@example.org")
    (tmp_path / "resnet18.py").write_text(RESNET_18)
    monkeypatch.chdir(tmp_path)
    with own_modules("own"):
        yield tmp_path


def shrink(file: Path, classes: int, epochs: int = 1) -> None:
    """Make every budget tiny but the target network's, and attack an image of each class."""

    def shrunk(tree: object) -> object:
        if not isinstance(tree, dict):
            return tree
        return {
            key: min(value, TINY[key]) if key in TINY and isinstance(value, int) else shrunk(value)
            for key, value in tree.items()
        }

    tree = shrunk(yaml.safe_load(file.read_text()))
    for recipe in tree["recipes"].values():
        if "curves" in recipe:
            recipe["n"] = max(TINY["n"], classes)
            recipe["curves"] = {"n": 6, "radii": [0.0, 1.0], "steps": [1, 2]}
    for row in tree["train_target"].values():
        row["epochs"] = epochs
    file.write_text(yaml.safe_dump(tree, sort_keys=False))


def dvc(folder: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    scripts = str(Path(sys.executable).parent)
    environ |= {"OMP_NUM_THREADS": "1", "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        [sys.executable, "-m", "dvc", *words],
        cwd=folder,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("name", PROJECTS)
def test_a_folder_of_images_becomes_a_table(
    home: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own = PROJECTS[name]
    own.images(home / "images")
    words = ["--images", "images", "--network", own.network, "--eps", "8/255", "--name", name]
    assert call_main(home, "init", name, *words, *own.options) == 0
    project = home / name
    (project / "own/losses/logit.py").write_text(LOGIT_LOSS)
    for bank in own.banks:
        assert call_main(project, "add", "bank", "--subject", name, *shlex.split(bank)) == 0, bank
    shrink(project / "params.yaml", own.classes, own.epochs)
    later = {"DEEPCUSTOM_SEND_LATER": "1"} if name == "hundred" else {}
    done = dvc(project, "repro", **later)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    if later:
        assert call_main(project, "runs", "sync") == 0
    # Every network stands in the table under every protocol, on images of the expected shape.
    results = read_csv(project / f"reports/results/{name}.csv")
    assert {r.network for r in results} == {"target", "margin", "madry", "online"}
    assert {r.protocol for r in results} == set(PROTOCOLS) - {AUTOATTACK}
    banks = [bank.split()[0] for bank in own.banks]
    sets = {r.attack for r in results if r.protocol == "transfer"}
    assert sets == {"clean", "margin", "fgsm", "pgd", *banks}
    described = yaml.safe_load((project / f"data/prepared/{name}/dataset.json").read_text())
    assert tuple(described["shape"]) == own.shape
    assert len(described["classes"]) == own.classes
    # A number is traced back to the images and the user's own code, and nothing is left to run.
    capsys.readouterr()
    assert call_main(project, "trace", f"{name}/madry/worst/all") == 0
    told = capsys.readouterr().out
    assert f"data/own/{name}  {dvc_md5(project / 'data/own' / name)}  ok" in told
    assert "all own train images" in told
    assert "official" not in told
    assert "up to date" in dvc(project, "status").stdout
    with (project / f"reports/pairs/{name}.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 6
    # What people read names what is there, and nothing of the study.
    written = [project / f"reports/{name}.md", *(project / f"reports/cards/{name}").iterdir()]
    assert {f"dgn-{bank}.md" for bank in ("margin", *banks)} < {one.name for one in written}
    for one in written:
        text = one.read_text()
        assert name in text
        assert not re.search(r"MNIST|CIFAR|study", text), one.name
        for link in re.findall(r"\]\((?!http)([^)]+)\)", text):
            assert (one.parent / link).is_file(), link
    in_mlflow(project, name)
    if name == "two":
        a_clone_goes_on(project, home / "clone")
    if name == "hundred":
        large_models_stay_out(project, capsys)


def large_models_stay_out(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A store inside the project takes none of the networks of 45 MB."""
    assert dvc(project, "remote", "add", "--quiet", "--default", "store", "store").returncode == 0
    capsys.readouterr()
    assert call_main(project, "push") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(r"models/\S+ has 4\d\.\d MB \(and 3 more\), and 10 MB is the most", line), line
    assert not (project / "store").exists()


def in_mlflow(project: Path, name: str) -> None:
    """The networks and banks are there by the subject's name, and runs name the images by their hash."""
    client = MlflowClient(tracking_uri=f"sqlite:///{project}/mlflow.db")
    models = {model.name for model in client.search_registered_models()}
    parts = ("target", "dgn-margin", "dgn-online", "robust-margin", "robust-madry", "robust-online")
    assert models >= {f"{name}-{part}" for part in parts}
    experiment = client.get_experiment_by_name("deepcustom")
    runs = client.search_runs([experiment.experiment_id])
    (prepared,) = (run for run in runs if run.info.run_name == f"prepare@{name}")
    images = f"data/own/{name}"
    assert prepared.data.tags[f"input.{images}"] == dvc_md5(project / images)
    assert prepared.data.params["prepare.path"] == images


def a_clone_goes_on(project: Path, clone: Path) -> None:
    """Models and images go to a remote; a clone fetches them, and trains nothing."""
    remote = clone.with_name("remote")
    git = ("git", "-C", str(project))
    for words in (
        ("add", "--quiet", "data/own/two"),
        ("remote", "add", "--quiet", "--default", "away", str(remote)),
    ):
        assert dvc(project, *words).returncode == 0, words
    assert call_main(project, "push") == 0
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "The first run"], check=True)
    subprocess.run(["git", "clone", "--quiet", str(project), str(clone)], check=True)
    assert call_main(clone, "pull") == 0
    for folder in ("models", "data/own"):
        assert dvc_md5(clone / folder) == dvc_md5(project / folder)
    done = dvc(clone, "repro", "prepare@two")
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    left = json.loads(dvc(clone, "status", "--json").stdout)
    trained = (
        "train_target@two",
        "train_dgn@two-margin",
        "train_dgn@two-logit",
        "train_online@two-online",
    )
    assert not {*trained, "adversarial_train@two-madry"} & {*left}
