"""The lines of Python about the library in the README and in docs/library.md, run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from pipeline_fixtures import ROOT
from torch import nn

from deepcustom.base.rows import overlay
from deepcustom.library.starting import Start

BLOCK = re.compile(r"<!-- library -->\n```python\n(.*?)```", re.DOTALL)
BUDGET = {"epochs": 1, "batch_size": 32}
CHEAP = {
    "bank": {"training": BUDGET},
    "madry": {"training": BUDGET, "inner": {"max_iter": 1}},
    "goodfellow": {"training": BUDGET},
    "every-protocol": {
        "n": 20,
        "whitebox": {"pgd": {"max_iter": 2, "num_random_init": 1}},
        "autoattack": {"max_iter": 2, "targets": 1, "queries": 5},
        "adaptive": {"training": BUDGET},
        "curves": {"n": 5, "radii": [0, 1], "steps": [1, 2]},
    },
}


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that the pages take for granted, and budgets for a test."""
    from sklearn.datasets import load_digits

    monkeypatch.chdir(tmp_path)
    real = Start.recipes
    monkeypatch.setattr(Start, "recipes", lambda self: overlay(real(self), CHEAP))
    raw = load_digits()
    x, y = torch.from_numpy(raw.images).float().div(16).unsqueeze(1), torch.from_numpy(raw.target)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    parts = {"x_train": x[:200], "y_train": y[:200], "x_test": x[200:260], "y_test": y[200:260]}
    return {"net": net, **parts}


def test_the_lines_of_the_readme_run(
    known: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = BLOCK.findall((ROOT / "README.md").read_text())
    assert len(block.splitlines()) == 10
    exec(block, known)
    out = capsys.readouterr().out
    assert re.search(r"^worst +all +\d+\.\d +20 ", out, re.MULTILINE)
    assert re.search(r"^\d+\.\d % stand before, \d+\.\d % after$", out, re.MULTILINE)
    assert known["after"].left_out == {}
    assert (tmp_path / "scores/hard/results.csv").is_file()


def test_the_lines_of_the_page_run(known: dict[str, Any]) -> None:
    blocks = BLOCK.findall((ROOT / "docs/library.md").read_text())
    assert len(blocks) == 4
    for block in blocks:
        exec(block, known)
    assert list(known["found"].left_out) == ["transfer", "blackbox", "adaptive"]
    assert set(known["success"].tolist()) <= {True, False}
    assert type(known["hard"]) is nn.Sequential
