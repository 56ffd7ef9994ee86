"""Paired tests against exact binomials worked by hand, and the files that evaluations leave."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import pytest
import torch

from deepcustom.base.errors import InputError
from deepcustom.evaluation.checks import Check
from deepcustom.evaluation.files import checks_json, read_checks, read_points, rows_csv
from deepcustom.evaluation.points import Point
from deepcustom.evaluation.statistics import PairedTest, mcnemar


def stands(both: int, first: int, second: int, neither: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Which images stand with two networks, from the four counts."""
    a = torch.tensor([True] * (both + first) + [False] * (second + neither))
    b = torch.tensor([True] * both + [False] * first + [True] * second + [False] * neither)
    return a, b


def exact(first: int, second: int) -> float:
    """Twice the smaller tail of a fair coin, 1 at most."""
    n, k = first + second, min(first, second)
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n)


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [
        (8, 2, 2 * (1 + 10 + 45) / 1024),
        (5, 0, 2 / 32),
        (1, 0, 1.0),
        (3, 3, 1.0),
        (0, 0, 1.0),
        (12, 30, exact(12, 30)),
    ],
)
def test_mcnemar_against_the_binomial_by_hand(first, second, p):
    a, b = stands(7, first, second, 4)
    found = mcnemar("nce", "lrp", a, b)
    assert found == PairedTest("nce", "lrp", first, second, pytest.approx(p, rel=1e-9))
    assert 0 <= found.p <= 1


@pytest.mark.parametrize(("first", "second"), [(8, 2), (0, 9), (21, 40), (0, 0)])
def test_mcnemar_is_symmetric_and_ignores_what_both_share(first, second):
    a, b = stands(3, first, second, 5)
    one, other = mcnemar("a", "b", a, b), mcnemar("b", "a", b, a)
    assert one.p == pytest.approx(other.p, rel=1e-12)
    assert (one.only_first, one.only_second) == (other.only_second, other.only_first)
    assert mcnemar("a", "b", *stands(300, first, second, 0)).p == one.p


# Files

CHECKS = [
    Check("ball", "nce", "ok", {"images": 10.0}, "Every image lies in the ball."),
    Check("eps-0", "lrp", "fail", {"clean": 0.5, "eps_0": 0.25}, 'With a comma, "quoted" … and ü.'),
    Check("logits", "x", "warn", {}, "No figures."),
]
POINTS = [
    ("target", Point("eps", 0.3, 100, 0.125, 2.5, 1.0)),
    ("own, best", Point("steps", 0.03, 0, 0.0, math.inf, 0.0)),
]


def test_checks_come_back(tmp_path):
    path = tmp_path / "checks.json"
    path.write_text(checks_json(CHECKS))
    assert read_checks(path) == CHECKS
    assert checks_json(read_checks(path)) == path.read_text()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_figure_that_is_no_number_is_null_in_the_file_and_nan_again(tmp_path, value):
    path = tmp_path / "checks.json"
    path.write_text(checks_json([Check("a", "b", "fail", {"x": value, "y": 1.0}, "t")]))
    assert json.loads(path.read_text())["checks"][0]["figures"] == {"x": None, "y": 1.0}
    (found,) = read_checks(path)
    assert math.isnan(found.figures["x"])
    assert found.figures["y"] == 1.0


def test_points_come_back(tmp_path):
    path = tmp_path / "curves.csv"
    text = rows_csv(["network"], [((name,), point) for name, point in POINTS])
    path.write_text(text)
    assert text.splitlines()[0] == "network,curve,eps,steps,accuracy,loss,risen"
    assert read_points(path) == POINTS
    path.write_text("")
    assert rows_csv(["network"], []) == ""
    assert read_points(path) == []


def test_points_without_a_loss_come_back_as_nan(tmp_path):
    path = tmp_path / "curves.csv"
    point = Point("eps", 0.3, 10, 0.0, math.nan, math.nan)
    path.write_text(rows_csv(["network"], [(("blind",), point)]))
    assert path.read_text().splitlines()[1] == "blind,eps,0.3,10,0,,"
    ((name, found),) = read_points(path)
    assert (name, found.accuracy) == ("blind", 0.0)
    assert math.isnan(found.loss)
    assert math.isnan(found.risen)


def test_pairs_as_a_table():
    pair = PairedTest("a", "b", 3, 0, 0.25)
    rows = list(csv.DictReader(io.StringIO(rows_csv([], [((), pair)]))))
    assert rows == [
        {"first": "a", "second": "b", "only_first": "3", "only_second": "0", "p": "0.25"}
    ]


GOOD = json.loads(checks_json(CHECKS))["checks"][0]
HEAD = "network,curve,eps,steps,accuracy,loss,risen\n"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        "null",
        '{"checks": 3}',
        '{"checks": ["ball"]}',
        json.dumps({"checks": [{k: v for k, v in GOOD.items() if k != "text"}]}),
        json.dumps({"checks": [{**GOOD, "more": 1}]}),
        json.dumps({"checks": [{**GOOD, "figures": [1.0]}]}),
        json.dumps({"checks": [{**GOOD, "figures": {"a": "many"}}]}),
        json.dumps({"checks": [{**GOOD, "verdict": "fine"}]}),
        b"\xff\xfe\x00",
    ],
)
def test_what_is_no_file_of_checks(tmp_path, content):
    path = tmp_path / "checks.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=r"checks\.json: "):
        read_checks(path)


@pytest.mark.parametrize(
    "content",
    [
        "network,curve\nnce,eps\n",
        HEAD + "nce,eps,wide,10,0.5,1,1\n",
        HEAD + "nce,eps,0.3,ten,0.5,1,1\n",
        HEAD + "nce,eps,0.3,10,0.5\n",
        HEAD + "nce,eps,0.3,10,0.5,1,1,1\n",
        b"\xff\xfe\x00",
    ],
)
def test_what_is_no_file_of_curves(tmp_path, content):
    path = tmp_path / "curves.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=r"curves\.csv: cannot read curves"):
        read_points(path)


@pytest.mark.parametrize("read", [read_checks, read_points])
def test_a_file_that_is_not_there(tmp_path: Path, read):
    with pytest.raises(InputError, match=r"none\.txt: cannot read"):
        read(tmp_path / "none.txt")
