"""Which attack a network was hardened with: told by its settings, not by its name."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pipeline_fixtures import ROOT

from deepcustom.base.errors import ParamsError
from deepcustom.pipeline.hardened import hardened_with

TRAINING = {"learning_rate": 1e-3, "epochs": 1, "batch_size": 8}


def rows(tmp_path: Path, tree: object) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_each_type_says_it_in_its_own_way(tmp_path: Path) -> None:
    fgsm = {"method": "fgsm"}
    steps = {"eps_step": 0.1, "max_iter": 2}
    networks = {
        "nce-art": {"type": "gf", "training": TRAINING},
        "fast": {"type": "default", "attack": fgsm, "training": TRAINING},
        "lrp": {"type": "madry", "inner": steps, "training": TRAINING},
        "fgsm": {"type": "online", **steps, "training": TRAINING},
    }
    path = rows(tmp_path, {"adversarial_train": {"mnist": networks, "cifar10": {}}})
    assert hardened_with(path) == {"mnist": {"nce-art": "nce-art", "fast": "fgsm"}, "cifar10": {}}


def test_a_mistake_is_named_and_nothing_is_nothing(tmp_path: Path) -> None:
    assert hardened_with(rows(tmp_path, {"seed": 1})) == {}
    wrong = {"adversarial_train": {"mnist": {"nce": {"type": "gf"}}}}
    with pytest.raises(ParamsError, match=r"adversarial_train\.mnist\.nce\.training is missing"):
        hardened_with(rows(tmp_path, wrong))


def test_the_projects_own() -> None:
    own = hardened_with(ROOT / "params.yaml")
    names = ("lrp", "nce", "nce-ball", "suspiciousness", "fgsm", "pgd")
    wanted = {**{name: name for name in names}, "fgsm-art": "fgsm"}
    assert own == {"mnist": wanted, "cifar10": wanted}
