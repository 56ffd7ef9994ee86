"""Results against earlier ones: what is equal, what moved, and how far."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deepcustom.evaluation.comparison import compare, comparison_lines
from deepcustom.evaluation.results import Result


def result(attack: str = "pgd", correct: int = 50, n: int = 100, **more: str) -> Result:
    values = {
        "dataset": "mnist",
        "network": "lrp",
        "protocol": "transfer",
        "network_md5": "a" * 32,
        "set_md5": "b" * 32,
    }
    return Result.of(attack=attack, correct=correct, n=n, **{**values, **more})


def test_equal_rows_are_equal_in_every_column():
    rows = [result(), result("clean", 90), result("none", 0, 0)]
    found = compare(rows, [replace(row) for row in reversed(rows)], "mnist")
    assert (found.equal, found.moved, found.remade, found.missing, found.new) == (3, [], [], [], [])
    assert found.alike
    assert comparison_lines(found) == [
        "mnist: all 3 rows equal the committed ones, hashes included"
    ]


def test_other_data_sets_are_left_out():
    found = compare([result(), result(dataset="cifar10")], [result()], "mnist")
    assert (found.equal, found.missing) == (1, [])


@pytest.mark.parametrize(
    ("now", "alike", "line"),
    [
        (51, True, "  lrp, transfer, pgd: 50.00 -> 51.00 %, inside [40.38, 59.62]"),
        (59, True, "  lrp, transfer, pgd: 50.00 -> 59.00 %, inside [40.38, 59.62]"),
        (60, False, "  lrp, transfer, pgd: 50.00 -> 60.00 %, outside [40.38, 59.62]"),
        (40, False, "  lrp, transfer, pgd: 50.00 -> 40.00 %, outside [40.38, 59.62]"),
    ],
)
def test_a_number_that_moved_is_held_against_its_interval(now: int, alike: bool, line: str):
    found = compare([result(), result("clean")], [result(correct=now), result("clean")], "mnist")
    assert found.alike is alike
    assert comparison_lines(found) == ["mnist: 1 of 2 rows equal the committed ones", line]


@pytest.mark.parametrize("column", ["network_md5", "set_md5"])
def test_the_same_number_on_other_bytes_is_said(column: str):
    found = compare([result()], [result(**{column: "f" * 32})], "mnist")
    assert found.alike
    assert comparison_lines(found) == [
        "mnist: 0 of 1 rows equal the committed ones",
        "  1 have the same accuracy, but other weights or images (see the hashes)",
    ]


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        ((5000, 10000), (100, 200), "50.00 of 10000 images -> 50.00 of 200"),
        ((0, 0), (1, 9), "empty of 0 images -> 11.11 of 9"),
        ((1, 9), (0, 0), "11.11 of 9 images -> empty of 0"),
    ],
)
def test_a_number_of_another_count_of_images_is_not_alike(before, after, change):
    found = compare([result("lrp", *before)], [result("lrp", *after)], "mnist")
    assert not found.alike
    assert comparison_lines(found)[1] == f"  lrp, transfer, lrp: {change}"


def test_rows_that_came_or_went_are_named():
    found = compare([result("pgd")], [result("fgsm")], "mnist")
    assert not found.alike
    assert comparison_lines(found, "earlier") == [
        "mnist: 0 of 0 rows equal the earlier ones",
        "  lrp, transfer, pgd: missing now",
        "  lrp, transfer, fgsm: not among the earlier ones",
    ]
