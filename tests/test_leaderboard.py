"""The order of all scored networks: by their worst case, never across radii, each leading to its sources."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pipeline_fixtures import ROOT, call_main

from deepcustom.base.errors import InputError
from deepcustom.evaluation.check_table import FAILED
from deepcustom.evaluation.checks import Check
from deepcustom.evaluation.files import checks_json, read_checks, rows_csv
from deepcustom.evaluation.points import Point
from deepcustom.evaluation.results import Result, csv_text, pivot, read_csv
from deepcustom.pipeline.leaderboard import Standing, csv_of, leaderboard
from deepcustom.pipeline.trace.walk import trace
from deepcustom.pipeline.workspace import Workspace, own_scores
from deepcustom.tracking.record import RunRecord

MINE = {"clean": 970, "whitebox": 600, "blackbox": 700, "all": 550}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The study's settings, tables and records, and nothing else."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("results", "runs", "checks"):
        shutil.copytree(ROOT / "reports" / name, tmp_path / "reports" / name)
    return tmp_path


def score_own(
    root: Path,
    name: str,
    right: dict[str, int],
    eps: float = 0.3,
    *,
    subject: str = "mnist",
    n: int = 1000,
    failed: tuple[str, ...] = (),
) -> Path:
    """Scores of the user's network on the subject's images: column of the worst case → images left."""
    test = read_csv(ROOT / f"reports/results/{subject}.csv")[-1].set_md5
    hashes = {"network_md5": "1" * 32, "set_md5": test}
    about: dict[str, Any] = {"dataset": subject, "network": name, "protocol": "worst", "n": n}
    rows = [
        Result.of(attack=attack, correct=correct, **about, **hashes)
        for attack, correct in right.items()
    ]
    folder = root / own_scores(subject, name)
    folder.mkdir(parents=True)
    (folder / "results.csv").write_text(csv_text(rows))
    points = [Point("steps", eps, steps, 0.5, 1.0, 0.9) for steps in (1, 5)]
    table = rows_csv(["network"], [((name,), point) for point in points])
    (folder / "curves.csv").write_text(table)
    found = [Check(one, name, "fail", {}, "Found.") for one in failed]
    found += [
        Check("ball", name, "ok", {}, "Fine."),
        Check("gradients", "other", "fail", {}, "Zero."),
    ]
    (folder / "checks.json").write_text(checks_json(found))
    return folder


def test_it_is_the_tables_of_the_project_in_order(project: Path) -> None:
    found = leaderboard(project)
    for subject in ("mnist", "cifar10"):
        _, _, cells = pivot(read_csv(ROOT / f"reports/results/{subject}.csv"), subject, "worst")
        some = [one for one in found if one.subject == subject]
        assert {one.network: (one.worst, one.clean, one.n) for one in some} == {
            network: (cell.accuracy, cells[network, "clean"].accuracy, cell.n)
            for (network, attack), cell in cells.items()
            if attack == "all"
        }
        assert [one.worst for one in some] == sorted((one.worst for one in some), reverse=True)
        assert [one.place for one in some] == [
            1 + sum(other.worst > one.worst for other in some) for one in some
        ]


def test_a_row_says_what_the_records_say(project: Path) -> None:
    (madry,) = (
        one for one in leaderboard(project) if (one.subject, one.network) == ("cifar10", "madry")
    )
    record = RunRecord.read(project / "reports/runs/cifar10/adversarial_train/madry")
    assert madry.training_seconds == pytest.approx(record.seconds, abs=0.1)
    assert (madry.norm, madry.eps, madry.parameters) == ("linf", 0.0313, 122_570)
    assert madry.tried.split() == ["transfer", "whitebox", "blackbox", "adaptive"]
    assert madry.network_md5 == record.outputs["models/robust/cifar10/madry.safetensors"]


def test_a_row_leads_to_its_sources() -> None:
    (best,) = (one for one in leaderboard(ROOT) if one.subject == "mnist" and one.place == 1)
    assert trace(Workspace(ROOT), best.trace, ROOT).broken() == []


def test_a_network_of_ones_own_is_marked_and_what_it_was_spared_is_said(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    score_own(project, "mine", MINE)
    (mine,) = (one for one in leaderboard(project) if one.own)
    assert (mine.place, mine.worst, mine.n, mine.eps) == (1, 0.55, 1000, 0.3)
    assert mine.trace == "reports/own/mnist/mine"
    assert call_main(project, "leaderboard") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "1 mine * 97.0 55.0 51.9-58.1 - - - reports/own/mnist/mine" in said
    assert "mine: without transfer and adaptive, so its worst case is an easier one" in said


def test_another_radius_has_an_order_of_its_own(project: Path) -> None:
    score_own(project, "near", MINE, eps=0.1)
    (near,) = (one for one in leaderboard(project) if one.own)
    assert (near.eps, near.place) == (0.1, 1)
    assert {one.place for one in leaderboard(project) if one.eps == 0.3} > {1, 2}


def test_a_radius_that_is_a_fraction_makes_one_group(project: Path) -> None:
    """The record has all its digits, and the curves of a network of one's own have six."""
    file = project / "reports/runs/cifar10/evaluate/run.json"
    text = file.read_text()
    assert "0.0313" in text
    file.write_text(text.replace("0.0313", str(8 / 255)))
    score_own(project, "mine", MINE, eps=0.0313725, subject="cifar10")
    found = [one for one in leaderboard(project) if one.subject == "cifar10"]
    assert len({one.group for one in found}) == 1
    assert [one.network for one in found if one.place == 1] == ["mine"]


def test_other_images_have_an_order_of_their_own(project: Path) -> None:
    folder = score_own(
        project, "few", MINE | {"all": 55, "clean": 97, "whitebox": 60, "blackbox": 70}, n=100
    )
    (few,) = (one for one in leaderboard(project) if one.own)
    assert [one.network for one in leaderboard(project) if one.group == few.group] == ["few"]
    rows = [replace(row, n=1000, set_md5="2" * 32) for row in read_csv(folder / "results.csv")]
    (folder / "results.csv").write_text(csv_text(rows))
    (few,) = (one for one in leaderboard(project) if one.own)
    assert [one.network for one in leaderboard(project) if one.group == few.group] == ["few"]


def test_a_failed_check_stands_in_the_row(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    score_own(project, "fraud", MINE, failed=("gradients", "loss-rises"))
    found = leaderboard(project)
    (fraud,) = (one for one in found if one.own)
    assert fraud.failed == "gradients loss-rises"
    for subject in ("mnist", "cifar10"):
        made = read_checks(ROOT / f"reports/checks/{subject}.json")
        for one in (one for one in found if one.subject == subject and not one.own):
            wanted = [c.name for c in made if (c.about, c.verdict) == (one.network, "fail")]
            assert one.failed.split() == wanted
    assert call_main(project, "leaderboard") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "gradients, loss-rises" in said
    for name in ("gradients", "loss-rises", "square-not-stronger"):
        assert f"{name} failed: {FAILED[name]}" in said


@pytest.mark.parametrize("lacking", ["clean", "all"])
@pytest.mark.parametrize("own", [False, True])
def test_results_that_lack_a_row_are_one_line(project: Path, own: bool, lacking: str) -> None:
    file = project / "reports/results/mnist.csv"
    if own:
        file = score_own(project, "madry", MINE) / "results.csv"
    about = ("madry", "worst", lacking)
    rows = [row for row in read_csv(file) if (row.network, row.protocol, row.attack) != about]
    file.write_text(csv_text(rows))
    where = re.escape(f"{file.relative_to(project)}: madry has no row")
    with pytest.raises(InputError, match=rf"^{where} of protocol worst and attack {lacking}$"):
        leaderboard(project)


def test_the_projects_networks_on_other_images_do_not_come_twice(project: Path) -> None:
    folder = score_own(project, "n-50", MINE)
    rows = read_csv(folder / "results.csv")
    more = [replace(row, network="other") for row in rows]
    (folder / "results.csv").write_text(csv_text([*rows, *more]))
    assert not [one for one in leaderboard(project) if one.own]


def test_csv_and_json_hold_every_column(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = leaderboard(project)
    read = list(csv.DictReader(io.StringIO(csv_of(found))))
    assert [row["network"] for row in read] == [one.network for one in found]
    assert set(read[0]) == set(Standing.__dataclass_fields__)
    assert call_main(project, "leaderboard", "--json", "--csv", str(project / "out.csv")) == 0
    told: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["leaderboard"]
    assert [Standing(**one) for one in told] == found
    assert (project / "out.csv").read_text() == csv_of(found)


def test_what_is_lacking_is_one_line(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(project / "reports/runs/mnist/evaluate")
    assert call_main(project, "leaderboard") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "reports/results/mnist.csv has no record that tells its radius" in line
    assert "`deepcustom repro evaluate@mnist` makes both" in line
    shutil.rmtree(project / "reports")
    with pytest.raises(InputError, match="no network is scored here"):
        leaderboard(project)


def test_a_place_that_cannot_be_written_is_refused_first(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "file").write_text("")
    assert call_main(project, "leaderboard", "--csv", str(project / "file/where.csv")) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1


def test_autoattack_has_a_column_where_it_was_run(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call_main(project, "leaderboard") == 0
    assert "AutoAttack" not in capsys.readouterr().out
    score_own(project, "mine", MINE | {"autoattack": 570})
    assert call_main(project, "leaderboard") == 0
    lines = capsys.readouterr().out.splitlines()
    (header,) = {line for line in lines if "AutoAttack" in line}
    (mine,) = (line for line in lines if "mine *" in line)
    (madry,) = (line for line in lines if "mnist/madry/" in line)
    start = header.index("AutoAttack")
    assert mine[start : start + 10].split() == ["57.0"]
    assert madry[start : start + 10].split() == ["-"]
    (one,) = (one for one in leaderboard(project) if one.network == "mine")
    assert one.autoattack == 0.57
