"""The wheel in an environment of its own, outside the checkout: a hundred classes, a network of one's own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from own_fixtures import Own, crops, look_at, photographs, shrink
from PIL import Image
from pipeline_fixtures import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

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


def regions(rows: int, columns: int) -> list[np.ndarray]:
    """Both photographs, cut into a grid."""
    found = []
    for photograph in photographs():
        for strip in np.array_split(photograph, rows, axis=0):
            found += np.array_split(strip, columns, axis=1)
    return found


def hundred_classes(folder: Path) -> None:
    """A hundred classes of 32 x 32 colour PNGs; the first has twice the images of the last."""
    rng = np.random.default_rng(2)
    for label, region in enumerate(regions(5, 10)):
        place = folder / f"place {label:03}"
        place.mkdir(parents=True)
        for number, image in enumerate(crops(region, 32, 18 - label // 10, rng)):
            Image.fromarray(image).save(place / f"{number}.png")


NAME = "hundred"
HUNDRED = Own(hundred_classes, "resnet18.py:ResNet18", 100, (3, 32, 32))
IDENTITY = {"GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@example.org"}
IDENTITY |= {key.replace("AUTHOR", "COMMITTER"): value for key, value in IDENTITY.items()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", folder / "src", ignore=ignored)
    words = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", "dist", "."]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *words], cwd=folder, check=True)
    (found,) = (folder / "dist").glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment with the wheel; what it depends on is that of this environment."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    found = folder / "bin/python"
    words = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([found, *words], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    # A folder named in a .pth file is searched, but its own .pth files, such as the checkout's, are not run.
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return found


def test_the_wheel_has_all_that_the_package_needs(wheel: Path) -> None:
    package = ROOT / "src/deepcustom"
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("deepcustom/")}
    there = {
        f"deepcustom/{path.relative_to(package).as_posix()}"
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == there
    assert {f"deepcustom/{name}" for name in ("py.typed", "pipeline/dvc_template.yaml")} <= held


def ended(python: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command, as a user of that environment runs it."""
    left_out = ("PYTHONPATH", "VIRTUAL_ENV", "DEEPCUSTOM_DATA_DIR")
    env = {k: v for k, v in os.environ.items() if k not in left_out and not k.startswith("MLFLOW_")}
    env |= {**IDENTITY, "OMP_NUM_THREADS": "1", "PATH": f"{python.parent}:/usr/bin:/bin"}
    env["DEEPCUSTOM_SEND_LATER"] = "1"  # one process sends all runs
    program = [python, "-m", "dvc"] if words[0] == "dvc" else [python.parent / words[0]]
    return subprocess.run(
        [*program, *words[1:]], cwd=folder, env=env, capture_output=True, text=True
    )


def run(python: Path, folder: Path, *words: str) -> str:
    """What a command prints that has to succeed."""
    done = ended(python, folder, *words)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout + done.stderr


def test_a_project_outside_the_checkout(python: Path, tmp_path: Path) -> None:
    """One test for all of it, so that the project runs once."""
    project = lay_down(python, tmp_path)
    mlflow_gets_every_run(project, python)
    look_at(project, HUNDRED, NAME, partial(run, python))
    assert "madry" in run(python, project, "deepcustom", "results")
    nothing_is_left_to_do(project, python)
    a_bank_comes_and_goes(project, python)
    large_models_stay_out(project, python)


def lay_down(python: Path, home: Path) -> Path:
    """Make a project with tiny budgets, and run it."""
    HUNDRED.images(home / "images")
    (home / "resnet18.py").write_text(RESNET_18)
    words = ("--images", "images", "--network", HUNDRED.network, "--eps", "8/255")
    words += ("--name", NAME)
    run(python, home, "deepcustom", "init", NAME, *words)
    root = home / NAME
    shrink(root / "params.yaml", HUNDRED.classes)
    printed = run(python, root, "dvc", "repro")
    warnings = [line for line in printed.splitlines() if line.startswith("warning:")]
    # A network that saw few images is hardly above chance.
    assert [one for one in warnings if not one.endswith("attacks on it tell nothing")] == []
    return root


def mlflow_gets_every_run(project: Path, python: Path) -> None:
    records = list((project / "reports/runs").rglob("run.json"))
    assert not (project / "mlflow.db").exists()
    said = run(python, project, "deepcustom", "runs", "sync")
    assert f"{len(records)} sent, 0 there already" in said
    assert (project / "mlflow.db").exists()


def nothing_is_left_to_do(project: Path, python: Path) -> None:
    assert "up to date" in run(python, project, "dvc", "repro")
    said = run(python, project, "deepcustom", "upgrade")
    assert "other code than before: no stage\nwill run again: nothing" in said


def a_bank_comes_and_goes(project: Path, python: Path) -> None:
    """It is trained alone; without it all is as before."""
    before = (project / "params.yaml").read_text()
    words = ("--subject", project.name)
    run(python, project, "deepcustom", "add", "bank", "again", *words, "--loss", "nce")
    item = f"{project.name}-again"
    printed = run(python, project, "dvc", "repro", f"generate@{item}-test")
    assert f"train_dgn@{item}" in printed
    assert f"Running stage 'train_dgn@{project.name}-margin'" not in printed
    run(python, project, "deepcustom", "remove", "bank", "again", *words)
    assert (project / "params.yaml").read_text() == before
    assert "up to date" in run(python, project, "dvc", "repro")


def large_models_stay_out(project: Path, python: Path) -> None:
    """A store inside the project takes none of the networks of 45 MB."""
    run(python, project, "dvc", "remote", "add", "--quiet", "--default", "store", "store")
    done = ended(python, project, "deepcustom", "push")
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert re.search(r"models/\S+ has 4\d\.\d MB \(and 3 more\), and 10 MB is the most", line), line
    assert not (project / "store").exists()
