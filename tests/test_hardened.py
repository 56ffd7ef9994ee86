"""Which attack a network was hardened with: told by its settings, not by its name."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from pipeline_fixtures import ROOT

from deepcustom.base.errors import ParamsError
from deepcustom.pipeline.hardened import hardened_networks, hardened_with


def tree(*networks: tuple[str, dict[str, Any]], subject: str = "mnist") -> dict[str, Any]:
    """Settings whose robust networks say no more than what is asked of them here."""
    found: dict[str, Any] = {
        "subjects": {"mnist": {}, "other": {}},
        "recipes": {"none": {}},
        "adversarial_train": {},
        "train_online": {},
    }
    for name, settings in networks:
        place = {"subject": subject, "dataset": subject, "network": name, "recipe": "none"}
        stage = "train_online" if settings["type"] == "online" else "adversarial_train"
        row = {**place, "code": "a.py", "reads": "data", **settings}
        found[stage][f"{subject}-{name}"] = row
    return found


def test_each_type_says_it_in_its_own_way() -> None:
    known = tree(
        ("nce-art", {"type": "goodfellow"}),
        ("old-robust", {"type": "gf"}),
        ("fast", {"type": "art", "attack": {"method": "fgsm"}}),
        ("lrp", {"type": "madry", "inner": {"max_iter": 2}}),
        ("fgsm", {"type": "online"}),
    )
    wanted = {"nce-art": "nce-art", "old-robust": "old-robust", "fast": "fgsm"}
    assert hardened_with(known, "mnist") == wanted
    assert hardened_networks(known) == {"mnist": wanted, "other": {}}


def test_a_type_that_is_not_there_is_named() -> None:
    with pytest.raises(ParamsError, match=r"adversarial_train\.mnist-nce\.type: unknown way"):
        hardened_with(tree(("nce", {"type": "gd"})), "mnist")


def test_the_projects_own() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    names = ("lrp", "nce", "nce-ball", "suspiciousness", "fgsm", "pgd")
    wanted = {**{name: name for name in names}, "fgsm-art": "fgsm"}
    assert hardened_networks(params) == {"mnist": wanted, "cifar10": wanted}
