"""The sentence of each network: true for any figures, one test for each rule."""

from __future__ import annotations

import itertools

import pytest

from deepcustom.evaluation.results import Result
from deepcustom.report.headline import (
    FALLEN,
    FEW_RIGHT,
    RULE,
    WITHSTOOD,
    Grade,
    grade,
    sentence,
    sentences,
)

ATTACKED = ("transfer", "whitebox", "blackbox", "adaptive")


def cell(attack: str, correct: int, n: int = 1000, network: str = "nce") -> Result:
    return Result.of(
        dataset="mnist",
        network=network,
        protocol="worst",
        attack=attack,
        correct=correct,
        n=n,
        network_md5="0" * 32,
        set_md5="f" * 32,
    )


def say(network: str = "nce", **correct: int | None) -> str:
    """The sentence for hits of 1000; None is an empty set."""
    cells = {a: cell(a, 0, 0) if c is None else cell(a, c) for a, c in correct.items()}
    return sentence(network, cells)


def verdict(network: str = "nce", **correct: int | None) -> str:
    return say(network, **correct).rsplit(": ", 1)[1]


@pytest.mark.parametrize(
    ("accuracy", "clean", "found"),
    [
        (0.9, 1.0, Grade.FULL),
        (0.899, 1.0, Grade.PART),
        (0.011, 1.0, Grade.PART),
        (0.01, 1.0, Grade.NONE),
        (0.0, 0.001, Grade.NONE),
        (0.45, 0.5, Grade.FULL),
        (1.0, 0.9, Grade.FULL),
    ],
)
def test_grades(accuracy: float, clean: float, found: Grade) -> None:
    assert grade(accuracy, clean) is found


def test_the_rule_tells_the_thresholds() -> None:
    assert (WITHSTOOD, FALLEN, FEW_RIGHT) == (0.9, 0.01, 0.2)
    assert "90 % or more" in RULE
    assert "keeps 1 % or less" in RULE


def test_a_network_that_withstands_transferred_images_only() -> None:
    text = say(clean=965, transfer=960, whitebox=0, blackbox=2, adaptive=0, all=0)
    assert text == (
        "network **nce**: 96.50 % on clean images, 96.00 % on images made against the target network, "
        "0.00 % under white-box attacks, 0.20 % under black-box attacks, 0.00 % under attack by DGNs "
        "adapted to it and 0.00 % against everything that was tried (95 % interval 0.00 to 0.38): "
        "it withstands transferred images only."
    )


@pytest.mark.parametrize(
    ("figures", "found"),
    [
        ((0, 0, 0, 0, 0), "it withstands nothing that was tried."),
        ((9, 9, 9, 9, 0), "it withstands nothing that was tried."),
        ((950, 920, 930, 940, 910), "it withstands everything that was tried."),
        ((600, 400, 500, 700, 387), "it partly withstands everything that was tried."),
        ((950, 0, 950, 0, 0), "it withstands transferred images and black-box attacks only."),
        (
            (950, 400, 950, 700, 387),
            "it withstands transferred images and black-box attacks, and white-box attacks and "
            "adapted DGNs in part.",
        ),
        (
            (950, 0, 500, 0, 0),
            "it withstands transferred images, black-box attacks in part, and white-box attacks and "
            "adapted DGNs not at all.",
        ),
        (
            (300, 0, 500, 200, 0),
            "it withstands transferred images, black-box attacks and adapted DGNs in part, and "
            "white-box attacks not at all.",
        ),
        (
            (300, 300, 500, 200, 5),
            "it withstands transferred images, white-box attacks, black-box attacks and adapted DGNs "
            "in part, but all of them together not at all.",
        ),
        (
            (950, 950, 950, 950, 500),
            "it withstands transferred images, white-box attacks, black-box attacks and adapted DGNs, "
            "but all of them together only in part.",
        ),
        (
            (950, 950, 950, 950, 0),
            "it withstands transferred images, white-box attacks, black-box attacks and adapted DGNs, "
            "but all of them together not at all.",
        ),
    ],
)
def test_verdicts(figures: tuple[int, ...], found: str) -> None:
    assert verdict(clean=965, **dict(zip((*ATTACKED, "all"), figures, strict=True))) == found


@pytest.mark.parametrize(
    ("figures", "found"),
    [
        ({"whitebox": 950}, "it withstands white-box attacks."),
        ({"whitebox": 400}, "it withstands white-box attacks in part."),
        ({"whitebox": 0}, "it withstands nothing that was tried."),
        ({"transfer": 950, "whitebox": 0}, "it withstands transferred images only."),
        ({"whitebox": 400, "all": 400}, "it partly withstands everything that was tried."),
        ({"all": 950}, "it withstands everything that was tried."),
        ({"all": 3}, "it withstands nothing that was tried."),
        ({}, "it was not attacked, so what it withstands is not known."),
    ],
)
def test_verdicts_where_protocols_are_missing(figures: dict[str, int], found: str) -> None:
    assert verdict(clean=965, **figures) == found


def test_the_target_network_meets_images_made_against_itself() -> None:
    text = say("target", clean=966, transfer=900, whitebox=0, all=0)
    assert "90.00 % on the stored images made against it, 0.00 %" in text
    assert text.endswith("it withstands the stored images made against it only.")
    assert "transferred" not in text
    assert "target network" not in text


def test_more_than_on_clean_images_is_told() -> None:
    odd = (
        "100.00 % on images made against the target network (higher than on clean images, which is "
        "not evidence of robustness)"
    )
    assert odd in say(clean=965, transfer=1000)
    assert "higher than" not in say(clean=965, transfer=965)
    assert "higher than" not in say(transfer=965)


def test_empty_sets() -> None:
    text = say(clean=965, transfer=None, whitebox=0, all=0)
    assert "96.50 % on clean images, no image on images made" not in text
    assert "not scored on images made against the target network" in text
    assert text.endswith("it withstands nothing that was tried.")
    nothing = "network **nce**: no image was scored, so nothing is known about it."
    assert say(clean=None, whitebox=None, all=None) == nothing
    assert say() == nothing


def test_without_clean_images_nothing_is_said_to_be_withstood() -> None:
    text = "its clean accuracy is unknown, so what it withstands cannot be judged."
    assert verdict(whitebox=900, all=900) == text
    assert verdict(clean=None, whitebox=900, all=900) == text


def test_a_network_that_gets_nothing_or_little_right() -> None:
    assert verdict(clean=0, whitebox=0, all=0) == (
        "it gets no clean image right, so there is nothing to attack."
    )
    little = ", but it gets so few clean images right that it has little to lose."
    assert verdict(clean=100, whitebox=100, all=100) == (
        f"it withstands everything that was tried{little}"
    )
    assert verdict(clean=100, whitebox=0, all=0) == "it withstands nothing that was tried."
    assert little not in verdict(clean=200, whitebox=200, all=200)


def test_every_combination_makes_one_true_sentence() -> None:
    choices: tuple[int | None, ...] = (None, 0, 5, 100, 500, 950, 1000)
    for figures in itertools.product(choices, repeat=3):
        text = say(**dict(zip(("clean", "whitebox", "all"), figures, strict=True)))
        assert text.endswith(".")
        assert "nan" not in text
        assert "  " not in text
        clean, _, every = figures
        if "withstands everything" in text and "partly" not in text:
            assert clean is not None
            assert every is not None
            assert every >= WITHSTOOD * clean


def test_sentences_are_of_the_worst_case_and_of_each_network() -> None:
    results = [cell("clean", 965), cell("all", 0), cell("clean", 966, network="target")]
    found = sentences(results, "mnist")
    assert list(found) == ["nce", "target"]
    assert found["nce"] == say(clean=965, all=0)
    assert found["target"].endswith("it was not attacked, so what it withstands is not known.")
    assert sentences(results, "cifar10") == {}
