"""The study of docs/study.md: what the page says, against what the experiments measured."""

from __future__ import annotations

import csv
import importlib
import re
from types import ModuleType

import pytest
from pipeline_fixtures import ROOT

PAGE = (ROOT / "docs/study.md").read_text()
WORDS = " ".join(PAGE.split())


@pytest.fixture(scope="module")
def study() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "docs/experiments")
        return importlib.import_module("loss_weight")


@pytest.fixture(scope="module")
def measured() -> list[dict[str, str]]:
    with (ROOT / "docs/experiments/loss_weight.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_is_what_was_measured(study: ModuleType, measured: list[dict[str, str]]) -> None:
    block = re.search(r"<!-- study -->\n(.*?)\n<!-- /study -->", PAGE, re.DOTALL)
    assert block
    assert block[1] == study.table(measured)


def test_the_experiments_are_those_that_the_commands_queue(measured: list[dict[str, str]]) -> None:
    queued = re.search(r"-S train_dgn\.digits-nce\.options\.mse_weight=(\S+)", PAGE)
    assert queued
    baseline, *others = measured
    assert (baseline["experiment"], float(baseline["mse_weight"])) == ("baseline", 1)
    assert [float(one["mse_weight"]) for one in others] == [float(w) for w in queued[1].split(",")]
    compared = re.search(r"dvc plots diff ((?:[\w-]+ )+)", PAGE)
    assert compared
    assert compared[1].split() == [one["experiment"] for one in others]


def test_the_lessons_are_what_was_measured(measured: list[dict[str, str]]) -> None:
    def of(key: str) -> list[float]:
        return [round(100 * float(one[key]), 1) for one in measured]

    bank, transfer, everything = of("target_under_bank"), of("transfer"), of("everything")
    assert f"keeps {bank[0]} % of its images at 1 and {bank[2]} % at 100" in WORDS
    assert bank[0] > bank[1] > bank[2]
    assert bank[3] == of("clean")[3], "at 1000 the network keeps its clean accuracy"
    assert float(measured[3]["root_mse"]) < 0.01 < 0.1 < float(measured[2]["root_mse"])
    assert transfer[0] < transfer[1] < transfer[2]
    words = f"It keeps {transfer[0]} % on images of the weakest useful bank, {transfer[2]} % on those of"
    assert f"{words} the strongest, and {transfer[3]:.1f} % where" in WORDS
    assert f"keeps {min(everything)} to {max(everything)} %" in WORDS
    low, high = of("low"), of("high")
    assert max(low) < min(high), "all intervals overlap"
    long = [int(one["train_seconds"]) + int(one["evaluate_seconds"]) for one in measured[1:]]
    assert f"took {min(long) / 60:.0f} to {max(long) / 60:.0f} minutes an experiment" in WORDS
