"""Which attack a network was hardened with: told by its settings, not by its name."""

from __future__ import annotations

from typing import Any

import yaml
from pipeline_fixtures import ROOT

from deepcustom.hardening.ways import WAYS
from deepcustom.pipeline.code import closure
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
        row = {**place, "code": "a.py", "reads": "data/prepared", **settings}
        found[stage][f"{subject}-{name}"] = row
    return found


def test_a_row_says_it_in_its_own_way() -> None:
    known = tree(
        ("nce-art", {"type": "goodfellow", "reads": "data/adversarial/mnist/train/nce-art"}),
        ("old-robust", {"type": "gf", "reads": "data/adversarial/mnist/train/old-robust"}),
        ("fast", {"type": "art", "attack": {"method": "fgsm"}}),
        ("lrp", {"type": "madry", "inner": {"max_iter": 2}}),
        ("fgsm", {"type": "online"}),
    )
    wanted = {"nce-art": "nce-art", "old-robust": "old-robust", "fast": "fgsm"}
    assert hardened_with(known, "mnist") == wanted
    assert hardened_networks(known) == {"mnist": wanted, "other": {}}


def test_no_way_of_hardening_is_loaded_for_it() -> None:
    """evaluate asks, and does not depend on that code; report does, since its cards speak of it."""
    assert not [path for path in closure("evaluate") if path.startswith("hardening/")]
    ways = {place.partition(":")[0].removeprefix("deepcustom.") for place in WAYS.values()}
    assert {f"{way.replace('.', '/')}.py" for way in ways} <= set(closure("report"))


def test_the_projects_own() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    names = ("lrp", "nce", "nce-ball", "suspiciousness", "fgsm", "pgd")
    wanted = {**{name: name for name in names}, "fgsm-art": "fgsm"}
    assert hardened_networks(params) == {"mnist": wanted, "cifar10": wanted}
