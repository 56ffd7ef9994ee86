"""Images of a user's own, few of each, and what a project of them has to hold once it has run."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml
from mlflow import MlflowClient

from deepcustom.base.hashes import dvc_md5
from deepcustom.evaluation.results import AUTOATTACK, PROTOCOLS, read_csv

Program = Callable[..., str]
"""Runs a command in a folder: its words, such as ``("dvc", "repro")`` → what was printed."""

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

    @property
    def bank_names(self) -> list[str]:
        """Of the banks that were added."""
        return [bank.split()[0] for bank in self.banks]


def photographs() -> list[np.ndarray]:
    """The two photographs that come with scikit-learn, uint8 (427, 640, 3)."""
    from sklearn.datasets import load_sample_images

    return list(load_sample_images().images)


def crop(region: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    top, left = (int(rng.integers(0, n - size + 1)) for n in region.shape[:2])
    return region[top : top + size, left : left + size]


def crops(region: np.ndarray, size: int, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """As many crops, no two of them equal: an image must not lie on both sides of a split."""
    found: dict[bytes, np.ndarray] = {}
    while len(found) < count:
        one = crop(region, size, rng)
        found[one.tobytes()] = one
    return list(found.values())


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


def look_at(project: Path, own: Own, name: str, run: Program) -> None:
    """Every number is there, leads back to the images, and is told in words and in MLflow."""
    the_table_is_whole(project, own, name)
    told = run(project, "deepcustom", "trace", f"{name}/madry/worst/all")
    assert f"data/own/{name}  {dvc_md5(project / 'data/own' / name)}  ok" in told
    assert "all own train images" in told
    assert "official" not in told
    assert "up to date" in run(project, "dvc", "status")
    the_texts_name_what_is_there(project, own, name)
    mlflow_has_every_run(project, name)


def the_table_is_whole(project: Path, own: Own, name: str) -> None:
    """Every network stands in it under every protocol, on images of the expected shape."""
    results = read_csv(project / f"reports/results/{name}.csv")
    assert {r.network for r in results} == {"target", "margin", "madry", "online"}
    assert {r.protocol for r in results} == set(PROTOCOLS) - {AUTOATTACK}
    sets = {r.attack for r in results if r.protocol == "transfer"}
    assert sets == {"clean", "margin", "fgsm", "pgd", *own.bank_names}
    described = yaml.safe_load((project / f"data/prepared/{name}/dataset.json").read_text())
    assert tuple(described["shape"]) == own.shape
    assert len(described["classes"]) == own.classes
    with (project / f"reports/pairs/{name}.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 6


def the_texts_name_what_is_there(project: Path, own: Own, name: str) -> None:
    """What people read names what is there, and nothing of the study."""
    written = [project / f"reports/{name}.md", *(project / f"reports/cards/{name}").iterdir()]
    assert {f"dgn-{bank}.md" for bank in ("margin", *own.bank_names)} < {
        one.name for one in written
    }
    for one in written:
        text = one.read_text()
        assert name in text
        assert not re.search(r"MNIST|CIFAR|study", text), one.name
        for link in re.findall(r"\]\((?!http)([^)]+)\)", text):
            assert (one.parent / link).is_file(), link


def mlflow_has_every_run(project: Path, name: str) -> None:
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
