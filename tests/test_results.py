"""Records, their intervals, and the CSV file that keeps them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deepcustom.base.errors import InputError, UnknownNameError
from deepcustom.evaluation.results import (
    COLUMNS,
    Result,
    label_leaks,
    own_attacks,
    pivot,
    read_csv,
    weak_whitebox,
    write_csv,
)

Z = 1.959963984540054  # 97.5 % quantile of the normal distribution


def result(
    network: str,
    attack: str,
    correct: int,
    n: int = 10000,
    protocol: str = "transfer",
    **other: str,
) -> Result:
    return Result.of(
        dataset=other.get("dataset", "mnist"),
        network=network,
        protocol=protocol,
        attack=attack,
        correct=correct,
        n=n,
        network_md5="0" * 32,
        set_md5="f" * 32,
    )


def wilson(correct: int, n: int) -> tuple[float, float]:
    p = correct / n
    centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return centre - half, centre + half


@pytest.mark.parametrize(
    ("correct", "n"), [(0, 1), (1, 1), (0, 10000), (10000, 10000), (9656, 10000), (7, 13), (1, 3)]
)
def test_interval_is_wilsons(correct: int, n: int) -> None:
    r = result("target", "clean", correct, n)
    assert (r.ci_low, r.ci_high) == pytest.approx(wilson(correct, n), abs=6e-7)
    assert r.accuracy == pytest.approx(correct / n, abs=6e-7)
    assert 0 <= r.ci_low <= r.accuracy <= r.ci_high <= 1


def test_an_empty_set_has_no_accuracy() -> None:
    r = result("target", "lrp", 0, 0)
    assert r.empty
    assert all(math.isnan(v) for v in (r.accuracy, r.ci_low, r.ci_high))


def test_of_refuses_what_cannot_be() -> None:
    with pytest.raises(InputError, match="target on lrp: 11 correct of 10: want 0 to 10"):
        result("target", "lrp", 11, 10)
    with pytest.raises(
        UnknownNameError,
        match="'black': choose from transfer, whitebox, blackbox, adaptive, autoattack, worst",
    ):
        result("target", "lrp", 1, 10, protocol="black")


def test_csv_round_trip_and_bytes(tmp_path: Path) -> None:
    results = [
        result("target", "clean", 9656),
        result("lrp-robust", 'a,"b"', 1, 3),
        result("lrp-robust", "pgd", 0, protocol="whitebox"),
    ]
    results.append(replace(results[0], protocol="worst", attack="all", gradients=7, queries=9))
    path, again = tmp_path / "new" / "a.csv", tmp_path / "b.csv"
    write_csv(results, path)
    assert read_csv(path) == results
    write_csv(read_csv(path), again)
    assert again.read_bytes() == path.read_bytes()
    assert b"\r" not in path.read_bytes()
    low, high = wilson(9656, 10000)
    assert path.read_text().splitlines()[:2] == [
        "dataset,network,protocol,attack,n,accuracy,ci_low,ci_high,gradients,queries,network_md5,set_md5",
        f"mnist,target,transfer,clean,10000,0.965600,{low:.6f},{high:.6f},0,0,{'0' * 32},{'f' * 32}",
    ]
    assert [p.name for p in path.parent.iterdir()] == ["a.csv"]


def test_csv_of_an_empty_set_and_of_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write_csv([result("target", "lrp", 0, 0)], path)
    assert ",lrp,0,,,," in path.read_text()
    (read,) = read_csv(path)
    assert read.empty
    assert math.isnan(read.accuracy)
    write_csv([], path)
    assert read_csv(path) == []


GOOD = {
    "dataset": "mnist",
    "network": "target",
    "protocol": "transfer",
    "attack": "lrp",
    "n": "10",
    "accuracy": "0.5",
    "ci_low": "0.2",
    "ci_high": "0.8",
    "gradients": "300",
    "queries": "20",
    "network_md5": "a",
    "set_md5": "b",
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"protocol": "black"},
            "unknown protocol 'black': choose from transfer, whitebox, blackbox, adaptive, autoattack, worst",
        ),
        ({"n": "-1"}, "n is '-1': want a whole number"),
        ({"n": "ten"}, "n is 'ten'"),
        ({"n": "0"}, "accuracy is '0.5' where n is 0: want an empty cell"),
        ({"accuracy": "98.9"}, "accuracy is '98.9': want a number from 0 to 1"),
        ({"accuracy": ""}, "accuracy is ''"),
        ({"accuracy": "nan"}, "accuracy is 'nan'"),
        ({"ci_low": "x"}, "ci_low is 'x'"),
        ({"ci_low": "0.6"}, "accuracy 0.5 lies outside its interval 0.6 to 0.8"),
        ({"gradients": "-5"}, "gradients is '-5': want a whole number, 0 or more"),
        ({"queries": ""}, "queries is ''"),
        ({"set_md5": "b,c"}, "13 columns: want 12"),
        ({"set_md5": '"b'}, "unexpected end of data"),
        ({"attack": "clean"}, r"a second result for target on clean \(mnist, transfer\)"),
    ],
)
def test_malformed_rows_name_file_and_line(
    tmp_path: Path, change: dict[str, str], message: str
) -> None:
    path = tmp_path / "results.csv"
    rows: list[Any] = [COLUMNS, (GOOD | {"attack": "clean"}).values(), (GOOD | change).values()]
    path.write_text("".join(",".join(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=rf"results\.csv, line 3: {message}") as caught:
        read_csv(path)
    assert "\n" not in str(caught.value)


def test_malformed_files(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with pytest.raises(InputError, match=r"a\.csv: cannot read results: No such file"):
        read_csv(path)
    path.write_text("")
    with pytest.raises(InputError, match=r"a\.csv, line 1: the columns are missing: want dataset,"):
        read_csv(path)
    path.write_text("dataset,n\n")
    with pytest.raises(InputError, match="line 1: the columns are dataset,n: want dataset,"):
        read_csv(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8 text"):
        read_csv(path)


def test_pivot_keeps_order_and_one_protocol() -> None:
    results = [
        result("b", "nce", 1),
        result("b", "clean", 2),
        result("a", "clean", 3),
        result("a", "pgd", 4, protocol="whitebox"),
        result("z", "fgsm", 5, dataset="cifar10"),
    ]
    networks, attacks, cells = pivot(results, "mnist", "transfer")
    assert (networks, attacks) == (["b", "a"], ["nce", "clean"])
    assert cells == {(r.network, r.attack): r for r in results[:3]}
    assert pivot(results, "mnist", "whitebox") == (["a"], ["pgd"], {("a", "pgd"): results[3]})
    with pytest.raises(InputError, match=r"two results for a on clean \(mnist, transfer\)"):
        pivot([results[2], results[2]], "mnist", "transfer")
    with pytest.raises(UnknownNameError, match="unknown protocol 'both'"):
        pivot(results, "mnist", "both")


def test_label_leak_is_flagged_only_where_it_should_be() -> None:
    results = [
        result("lrp-robust", "clean", 9600),
        result("lrp-robust", "lrp", 9891),  # a leak
        result("nce-robust", "clean", 9600),
        result("nce-robust", "nce", 9601),  # above, within chance
        result("nce-robust", "lrp", 9999),  # not its own attack
        result("fgsm-robust", "clean", 9600),
        result("fgsm-robust", "fgsm", 9600),  # equal
        result("pgd-robust", "clean", 9600),
        result("pgd-robust", "pgd", 9000),  # below
        result("pgd-robust", "pgd", 9999, protocol="whitebox"),  # another protocol
        result("a-robust", "clean", 9600),
        result("a-robust", "a", 0, 0),  # nothing to score
        result("b-robust", "b", 9999),  # no clean number
        result("c-robust", "clean", 9600, dataset="cifar10"),
        result("c-robust", "c", 9999, dataset="cifar10"),
    ]
    by = {f"{name}-robust": name for name in ("lrp", "nce", "fgsm", "pgd", "a", "b", "c")}
    leaks = label_leaks(results, "mnist", by)
    assert [(leak.own.network, leak.clear) for leak in leaks] == [
        ("lrp-robust", True),
        ("nce-robust", False),
    ]
    assert len(own_attacks(results, "mnist", by)) == 5
    assert own_attacks(results, "mnist", {}) == label_leaks(results, "mnist", {}) == []


def test_weak_whitebox_needs_a_clear_difference_on_the_same_attack() -> None:
    results = [
        result("a", "pgd", 5000),
        result("a", "fgsm", 5000),
        result("a", "clean", 5000),
        result("b", "pgd", 5000),
        result("a", "pgd", 6000, protocol="whitebox"),
        result("a", "fgsm", 5001, protocol="whitebox"),
        result("a", "clean", 9000, protocol="whitebox"),
        result("b", "pgd", 0, 0, protocol="whitebox"),
    ]
    assert weak_whitebox(results, "mnist") == [(results[4], results[0])]
