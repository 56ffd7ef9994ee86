"""The notebook of docs, run from its first cell to its last in a clone with pulled models."""

from __future__ import annotations

import json
import re
import resource
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pipeline_fixtures import ROOT

NOTEBOOK = ROOT / "docs/five_minutes.ipynb"
MOST = 300  # seconds of processor time, which other programs do not lengthen


def cells(kind: str) -> list[Any]:
    return [c for c in json.loads(NOTEBOOK.read_text())["cells"] if c["cell_type"] == kind]


def test_git_has_no_outputs() -> None:
    assert cells("code")
    for cell in cells("code"):
        assert (cell["outputs"], cell["execution_count"]) == ([], None)


def test_no_figure_stands_in_the_text() -> None:
    text = "\n".join("".join(cell["source"]) for cell in cells("markdown"))
    said = re.sub(r"SHA-256|where black is 0 and white is 1", "", text)
    assert not re.search(r"\d", said)


def test_what_it_links_to_is_there() -> None:
    text = "\n".join("".join(cell["source"]) for cell in cells("markdown"))
    links = re.findall(r"\]\(([^)#]+)", text)
    assert links
    assert all((NOTEBOOK.parent / link).is_file() for link in links)


def processor_seconds() -> float:
    """What the programs that ended took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.slow
@pytest.mark.network
def test_it_runs_in_five_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clone has the models' store; MNIST comes from the project's downloads, or as anyone gets it."""
    import nbformat
    from nbclient import NotebookClient

    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    raw = ROOT / "data/raw/mnist"
    if raw.is_dir():
        (clone / "data/raw").mkdir(parents=True)
        (clone / "data/raw/mnist").symlink_to(raw.resolve(), target_is_directory=True)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # other tests use the other cores
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    begin = processor_seconds()
    where = {"metadata": {"path": str(clone / "docs")}}
    NotebookClient(notebook, timeout=None, kernel_name="python3", resources=where).execute()
    took = processor_seconds() - begin
    print(f"the notebook took {took:.0f} s")
    assert took < MOST
    outputs = [one for cell in notebook.cells for one in cell.get("outputs", [])]
    assert sum("image/png" in one.get("data", {}) for one in outputs) == 2
    said = "".join(one.get("text", "") for one in outputs)
    assert re.search(r"against everything: \d+ % before, \d+ % after", said)
    before, after = map(int, re.findall(r"everything: (\d+) % before, (\d+) % after", said)[0])
    assert before < after
    done = subprocess.run(
        ["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
