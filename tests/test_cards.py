"""Model cards: figures are those of the results, protocols stay apart, findings are told."""

from __future__ import annotations

from typing import Any

import pytest

from deepcustom.attacks.norms import NORMS
from deepcustom.base.settings import TargetParams
from deepcustom.evaluation.by_class import ClassAccuracy
from deepcustom.evaluation.results import Result
from deepcustom.pipeline.cards import data_in_words
from deepcustom.report.cards import Model, card
from deepcustom.report.headline import RULE


def result(network: str, attack: str, correct: int, protocol: str = "transfer") -> Result:
    return Result.of(
        dataset="mnist",
        network=network,
        protocol=protocol,
        attack=attack,
        correct=correct,
        n=1000,
        network_md5="0" * 32,
        set_md5="f" * 32,
    )


RESULTS = [
    result("target", "clean", 966),
    result("target", "nce", 1),
    result("nce", "clean", 963),
    result("nce", "nce", 999),
    result("target", "pgd", 2, "whitebox"),
    result("nce", "pgd", 3, "whitebox"),
]


def text(
    kind: str,
    name: str,
    results: list[Result] = RESULTS,
    settings: dict[str, Any] | None = None,
    norm: str = "linf",
) -> str:
    model = Model(kind, name, f"the model {name}", f"models/{name}.safetensors", "ab" * 16, 27580)
    settings = settings or {"type": "goodfellow", "training": {"epochs": 7}}
    return card(
        model,
        "mnist",
        "MNIST",
        results,
        hardened_with={"nce": "nce"},
        norm=NORMS[norm],
        facts={"data": "some"},
        settings=settings,
    )


def test_only_a_network_of_the_study_is_said_to_be_one() -> None:
    of_study, own = text("study", "nce"), text("classifier", "nce")
    assert "A small network with the study's architecture" in of_study
    assert "study" not in own
    assert "small" not in own
    for each in (of_study, own):
        assert "Do not use it where a wrong answer does harm." in each
        assert "Accuracy: transfer protocol" in each


def test_a_networks_card_shows_accuracy_per_class_only_where_classes_are_unequal() -> None:
    def made(kind: str, *sizes: int) -> str:
        model = Model(kind, "nce", "a model", "models/nce.safetensors", "ab" * 16, 27580)
        found = [ClassAccuracy("nce", f"c{i}", n, 0.5, 0.25) for i, n in enumerate(sizes)]
        return card(
            model,
            "mnist",
            "MNIST",
            RESULTS,
            hardened_with={"nce": "nce"},
            norm=NORMS["linf"],
            facts={},
            settings={"type": "goodfellow"},
            classes=found,
        )

    assert "| c1 | 2 | 50.0 | 25.0 |" in sections(made("classifier", 4, 2))["Accuracy per class"]
    assert "per class\n" not in made("classifier", 4, 3)
    assert "per class\n" not in made("bank", 4, 2)


@pytest.mark.parametrize(
    ("epochs", "words"),
    [
        (3, "trained on 1,300 images, validated on 14, scored on"),
        (0, "not trained here, but brought as it is; validated on 14 images, scored on"),
    ],
)
def test_a_card_does_not_say_that_a_network_brought_as_it_is_was_trained(
    epochs: int, words: str
) -> None:
    budget = {"learning_rate": 0.1, "batch_size": 1, "schedule": "constant", "momentum": 0.9}
    settings = TargetParams(**budget, weight_decay=0.0, epochs=epochs)
    counts = {"train": 1300, "val": 14, "test": 36}
    found = data_in_words("flowers", counts, settings)
    assert found == f"flowers: {words} 36 of its test split"


def sections(card: str) -> dict[str, str]:
    return {part.split("\n")[0]: part for part in card.split("\n## ")}


def test_a_networks_card_has_each_protocol_in_a_table_of_its_own() -> None:
    parts = sections(text("classifier", "nce"))
    transfer, whitebox = parts["Accuracy: transfer protocol"], parts["Accuracy: white-box protocol"]
    assert "| clean | 96.30 |" in transfer
    assert "| nce | 99.90 |" in transfer
    assert "pgd" not in transfer
    assert "| pgd | 0.30 |" in whitebox
    assert "clean |" not in whitebox
    assert "| target" not in text("classifier", "nce")


def test_a_networks_card_begins_with_the_headline_and_says_it_in_words() -> None:
    rows = zip(["clean", "transfer", "whitebox", "all"], [963, 500, 2, 1], strict=True)
    worst = [result("nce", attack, correct, "worst") for attack, correct in rows]
    found = text("classifier", "nce", [*RESULTS, *worst, result("nce", "square", 7, "blackbox")])
    order = [part for part in sections(found) if ":" in part and not part.startswith("#")]
    assert order == [
        "Headline: worst case",
        "Accuracy: transfer protocol",
        "Accuracy: white-box protocol",
        "Accuracy: black-box protocol",
    ]
    headline = sections(found)["Headline: worst case"]
    assert "| all | 0.10 |" in headline
    assert "In words: network **nce**: 96.30 % on clean images, 50.00 % on images made" in headline
    assert RULE in headline
    assert "Headline" not in text("classifier", "nce")


def test_limits_tell_how_a_network_was_trained() -> None:
    madry = sections(text("classifier", "madry", settings={"type": "madry"}))["Limits"]
    assert "made against it afresh in every step (Madry et al. 2018" in madry
    assert "Madry" not in text("classifier", "nce")
    online = {"type": "online", "eps_step": 0.15}
    limits = sections(text("classifier", "online", settings=online))["Limits"]
    assert "in every step: signed gradient steps from a starting point" in limits
    in_l2 = sections(text("classifier", "online", settings=online, norm="l2"))["Limits"]
    assert "in every step: gradient steps from a starting point" in in_l2
    assert "a starting point proposed by a generator that was trained against it" in limits
    assert "Madry" not in limits
    generator = text("generator", "online", settings=online)
    assert "no table here shows" in sections(generator)["Limits"]
    assert "a starting point proposed by a generator" not in generator
    assert "accuracy, %" not in generator


def test_a_card_says_what_the_model_is() -> None:
    found = text("classifier", "nce")
    assert found.startswith("# MNIST: the model nce\n")
    for row in (
        "| file | `models/nce.safetensors` |",
        f"| md5 | `{'ab' * 16}` |",
        "| parameters | 27,580 |",
        "| data | some |",
        "| settings | type goodfellow, training.epochs 7 |",
    ):
        assert row in found
    assert "| parameters | 27,580 per generator |" in text("bank", "nce")


def test_a_label_leak_is_told_on_the_card_of_its_network_alone() -> None:
    assert "**Label leak.** 99.90 % on `nce` images is above 96.30 %" in text("classifier", "nce")
    assert "Label leak" not in text("classifier", "target")


def test_a_banks_card_has_every_network_on_its_images() -> None:
    found = text("bank", "nce")
    assert "| target | 0.10 |" in found
    assert "| nce (hardened with it) | 99.90 |" in found
    assert "On clean images: target 96.60 %, nce 96.30 %." in found
    assert "pgd" not in found


@pytest.mark.parametrize("kind", ["classifier", "bank", "conditional", "generator"])
def test_a_model_without_results_has_a_card_without_figures(kind: str) -> None:
    found = text(kind, "nce", [])
    assert "accuracy, %" not in found
    assert "## Limits" in found
