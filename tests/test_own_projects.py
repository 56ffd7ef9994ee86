"""Projects of a user's own, from ``deepcustom init`` to the report: images of several kinds, few of each."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from pipeline_fixtures import call_main, own_modules

from deepcustom.evaluation.results import PROTOCOLS, read_csv

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
        options: further options of ``init``.
        classes: how many there are.
        shape: of an image.
    """

    images: Callable[[Path], None]
    network: str
    classes: int
    shape: tuple[int, int, int]
    options: list[str] = field(default_factory=list)


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


def seven_colours(folder: Path) -> None:
    """Seven classes of 64 x 64 colour PNGs; the first has eight times the images of the last."""
    rng = np.random.default_rng(0)
    for label, region in enumerate(regions(2, 2)[:7]):
        place = folder / f"place {label}"
        place.mkdir(parents=True)
        for number in range(80 // (label + 1)):
            Image.fromarray(crop(region, 64, rng)).save(place / f"{number}.png")


def two_greys(folder: Path) -> None:
    """Two classes of grey JPEGs of mixed sizes, in train and test."""
    rng = np.random.default_rng(1)
    for part, count in (("train", 60), ("test", 24)):
        for name, region in zip(("china", "flower"), photographs(), strict=True):
            place = folder / part / name
            place.mkdir(parents=True)
            for number in range(count):
                image = Image.fromarray(crop(region, int(rng.integers(24, 49)), rng)).convert("L")
                image.save(place / f"{number}.jpg")


def hundred_classes(folder: Path) -> None:
    """A hundred classes of 16 x 16 colour PNGs."""
    rng = np.random.default_rng(2)
    for label, region in enumerate(regions(5, 10)):
        place = folder / f"{label:03}"
        place.mkdir(parents=True)
        for number in range(12):
            Image.fromarray(crop(region, 16, rng)).save(place / f"{number}.png")


PROJECTS = {
    "seven": Own(seven_colours, "resnet18.py:ResNet18", 7, (3, 64, 64)),
    "two": Own(two_greys, "small", 2, (1, 24, 24), ["--size", "24"]),
    "hundred": Own(hundred_classes, "resnet", 100, (3, 16, 16)),
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


def shrink(file: Path, classes: int) -> None:
    """Make every budget of a project tiny, but attack an image of each class."""

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
    file.write_text(yaml.safe_dump(tree, sort_keys=False))


def dvc(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    scripts = str(Path(sys.executable).parent)
    environ = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        [sys.executable, "-m", "dvc", *words],
        cwd=folder,
        env={**environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("name", PROJECTS)
def test_a_folder_of_images_becomes_a_table(home: Path, name: str) -> None:
    own = PROJECTS[name]
    own.images(home / "images")
    words = ["--images", "images", "--network", own.network, "--eps", "8/255", "--name", name]
    assert call_main(home, "init", name, *words, *own.options) == 0
    project = home / name
    shrink(project / "params.yaml", own.classes)
    done = dvc(project, "repro")
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    # Every network stands in the table under every protocol, on images of the expected shape.
    results = read_csv(project / f"reports/results/{name}.csv")
    assert {r.network for r in results} == {"target", "nce", "madry", "online"}
    assert {r.protocol for r in results} == set(PROTOCOLS)
    described = yaml.safe_load((project / f"data/prepared/{name}/dataset.json").read_text())
    assert tuple(described["shape"]) == own.shape
    assert len(described["classes"]) == own.classes
    assert f"{name}" in (project / f"reports/{name}.md").read_text()
    # A number is traced back to the images and the user's own code, and nothing is left to run.
    assert call_main(project, "trace", f"{name}/madry/worst/all") == 0
    assert "up to date" in dvc(project, "status").stdout
    with (project / f"reports/pairs/{name}.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 6
