"""DVC's own commands in a fresh clone of this repository, before anything is fetched."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from pipeline_fixtures import ROOT

HEADLINES = "reports/headline"


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is committed here, and nothing else."""
    folder = tmp_path_factory.mktemp("fresh") / "clone"
    subprocess.run(["git", "clone", "--quiet", "--shared", str(ROOT), str(folder)], check=True)
    return folder


def dvc(clone: Path, *words: str) -> str:
    """What a command of DVC prints; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *words],
        cwd=clone,
        env=os.environ | {"DVC_NO_ANALYTICS": "1", "COLUMNS": "500"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_dry_run_says_that_nothing_needs_a_new_run(clone: Path) -> None:
    printed = dvc(clone, "repro", "--allow-missing", "--dry").splitlines()
    assert printed[-1] == "Data and pipelines are up to date."
    assert not [line for line in printed if line.startswith("Running stage")]


def test_charts_are_drawn_from_what_git_has(clone: Path) -> None:
    dvc(clone, "plots", "show", "--out", "charts")
    page = (clone / "charts/index.html").read_text()
    for title in ("mnist, target", "cifar10, bank nce-ball", "mnist, checks of the evaluation"):
        assert title in page
    assert "set_md5" not in re.findall(r'"field": "(\w+)"', page)


@pytest.mark.parametrize("page", ["docs/dvc.md", "docs/study.md"])
def test_the_line_that_compares_experiments_shows_every_headline(clone: Path, page: str) -> None:
    """Two subjects have equal names of numbers, so DVC puts their files' names before them."""
    told = re.search(r"^dvc (exp show .*)$", (ROOT / page).read_text(), re.M)
    assert told
    before = {}
    for file in sorted((clone / HEADLINES).glob("*.json")):
        before[file] = file.read_text()
        headline = json.loads(before[file])
        headline["worst"]["madry"] = 0.5
        file.write_text(json.dumps(headline | {"clean": 0.25}))
    try:
        printed = dvc(clone, *shlex.split(told[1]), "--csv")
    finally:
        for file, text in before.items():
            file.write_text(text)
    columns, workspace, *_ = csv.reader(io.StringIO(printed))
    now = dict(zip(columns, workspace, strict=True))
    names = [f"{HEADLINES}/{file.name}" for file in before]
    assert len(names) == 2
    for name in names:
        assert now[f"{name}:clean"] == "0.25"
        assert now[f"{name}:worst.madry"] == "0.5"
    assert not [name for name in columns if name.startswith(("src/", "data/", "models/"))]
    assert len(columns) <= 40
