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
