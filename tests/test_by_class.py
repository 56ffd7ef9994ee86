"""Accuracy per class: counted, carried by checks, and shown where classes are of unequal size."""

from __future__ import annotations

import math

import pytest
import torch

from deepcustom.evaluation.by_class import ClassAccuracy, by_class, class_check, classes_of, unequal
from deepcustom.report.classes import SHOWN, class_section, class_table


def bools(*values: int) -> torch.Tensor:
    return torch.tensor(values).bool()


def test_by_hand() -> None:
    y = torch.tensor([0, 0, 0, 0, 2])
    clean, worst = bools(1, 1, 1, 0, 1), bools(1, 0, 0, 0, 0)
    first, second, third = by_class("it", ("cat", "dog", "owl"), y, clean, worst)
    assert first == ClassAccuracy("it", "cat", 4, 0.75, 0.25)
    assert (second.label, second.n) == ("dog", 0)
    assert math.isnan(second.clean)
    assert math.isnan(second.worst)
    assert third == ClassAccuracy("it", "owl", 1, 1.0, 0.0)


def rows(*sizes: int, network: str = "it", clean: float = 0.5) -> list[ClassAccuracy]:
    return [ClassAccuracy(network, f"c{i}", n, clean, 0.25) for i, n in enumerate(sizes)]


def test_accuracies_travel_as_a_check() -> None:
    labels = ("c0", "c1", "none")
    found = [*rows(4, 1), ClassAccuracy("it", "none", 0, math.nan, math.nan)]
    check = class_check("it", found)
    assert (check.name, check.about, check.verdict) == ("classes", "it", "ok")
    assert all(math.isfinite(value) for value in check.figures.values())
    *some, last = classes_of([check], labels)
    assert some == found[:2]
    assert (last.label, last.n, math.isnan(last.clean)) == ("none", 0, True)
    assert classes_of([], labels) == []


def test_classes_without_a_right_image_are_warned_of() -> None:
    check = class_check("it", [*rows(4), *rows(2, clean=0.0)])
    assert check.verdict == "warn"
    assert "no clean image right of 1 of 2 classes" in check.text


@pytest.mark.parametrize(
    ("sizes", "verdict"),
    [((10, 5), True), ((10, 6), False), ((5, 5, 5), False), ((3, 0), True), ((), False)],
)
def test_unequal_is_a_factor_of_two(sizes: tuple[int, ...], verdict: bool) -> None:
    assert unequal(rows(*sizes)) == verdict
    assert bool(class_section(rows(*sizes))) == verdict
    assert bool(class_table(rows(*sizes), "it")) == verdict


def test_the_page_shows_every_network_and_who_is_blind() -> None:
    blind = [ClassAccuracy("b|d", "c0", 8, 1.0, 1.0), ClassAccuracy("b|d", "c1", 2, 0.0, 0.0)]
    text = class_section([*rows(8, 2), *blind])
    assert text.startswith("## Accuracy per class\n")
    assert "| class | images | it | b\\|d |\n" in text
    assert "| c0 | 8 | 50.0 / 25.0 | 100.0 / 100.0 |\n" in text
    assert "| c1 | 2 | 50.0 / 25.0 | 0.0 / 0.0 |\n" in text
    assert "* network **b|d**: c1\n" in text
    assert "**it**" not in text
    assert "No clean image" not in class_section(rows(8, 2))


def test_a_class_without_images_has_no_accuracy() -> None:
    empty = ClassAccuracy("it", "none", 0, math.nan, math.nan)
    text = class_section([*rows(8), empty])
    assert "| none | 0 | - |\n" in text
    assert "No clean image" not in text
    assert "| none | 0 | - | - |" in class_table([*rows(8), empty], "it")


def test_of_many_classes_the_rarest_are_shown_in_their_order() -> None:
    sizes = [100 - i for i in range(80)]
    for text in (class_section(rows(*sizes)), class_table(rows(*sizes), "it")):
        shown = [line.split()[1] for line in text.splitlines() if line.startswith("| c")]
        assert [name for name in shown if name != "class"] == [f"c{i}" for i in range(60, 80)]
        assert f"Shown are the {SHOWN} rarest of 80 classes." in text


def test_a_card_shows_its_own_network() -> None:
    table = class_table([*rows(8, 2), *rows(8, 2, network="other", clean=0.75)], "other")
    assert "| c1 | 2 | 75.0 | 25.0 |" in table
    assert "50.0" not in table
    assert class_table(rows(8, 2), "stranger") == ""
