"""The run that groups the stages of one ``dvc repro``, and how a stage learns of it."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from test_record import STARTED
from tracking_fixtures import all_runs, client, written

from deepcustom.base.errors import InputError
from deepcustom.pipeline.code_lock import write_lock
from deepcustom.pipeline.repro import repro_key, starts_stages
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.workspace import Workspace
from deepcustom.tracking import store as tracking
from deepcustom.tracking.record import RunRecord
from deepcustom.tracking.store import send, sync

pytestmark = pytest.mark.usefixtures("own_store")

ONE, OTHER = "a" * 32, "b" * 32
BEGIN = int(STARTED.timestamp() * 1000)
HOUR = 3_600_000


def stage(root: Path, name: str, repro: str | None, hours: int = 0, **changes: Any) -> Path:
    """A stage of 12.5 seconds that began so many hours after the first."""
    started = STARTED + timedelta(hours=hours)
    given = {"stage": name, "item": "", "outputs": {}, "repro": repro, "started": started}
    return written(root, name, run_key=name.encode().hex().ljust(32, "0"), **given | changes)


def parents(root: Path) -> dict[str, Any]:
    """Key to the run that stands for it; two of one key are a mistake."""
    found = [run for run in all_runs(root) if "deepcustom.repro" in run.data.tags]
    keys = [run.data.tags["deepcustom.repro"] for run in found]
    assert len(keys) == len(set(keys)), keys
    return dict(zip(keys, found, strict=True))


def children(root: Path) -> dict[str, str | None]:
    """Run to the id of the one above it."""
    runs = [run for run in all_runs(root) if "deepcustom.repro" not in run.data.tags]
    return {run.info.run_name: run.data.tags.get("mlflow.parentRunId") for run in runs}


# In MLflow


def test_stages_of_one_repro_lie_below_one_run(root):
    for folder in (
        stage(root, "prepare", ONE),
        stage(root, "attack", ONE, hours=2),
        stage(root, "report", OTHER, hours=3),
        stage(root, "generate", None, hours=4),
    ):
        send(folder, root)
    one, other = (parents(root)[key].info for key in (ONE, OTHER))
    assert (one.run_name, other.run_name) == ("repro 2026-01-02 03:04", "repro 2026-01-02 06:04")
    assert (one.start_time, one.end_time) == (BEGIN, BEGIN + 2 * HOUR + 12_500)
    assert (one.status, other.status) == ("FINISHED", "FINISHED")
    assert children(root) == {
        "prepare": one.run_id,
        "attack": one.run_id,
        "report": other.run_id,
        "generate": None,
    }


def test_end_never_moves_back(root):
    first, last = stage(root, "prepare", ONE), stage(root, "attack", ONE, hours=2)
    for folder in (first, last, first):
        send(folder, root)
    assert parents(root)[ONE].info.end_time == BEGIN + 2 * HOUR + 12_500
    assert len(all_runs(root)) == 3


def test_sync_makes_the_groups_again(root):
    stage(root, "zero", ONE)  # the first of the repro is the last of the names
    stage(root, "attack", ONE, hours=2)
    stage(root, "report", ONE, hours=1)
    sync(root / "runs", root)
    parent = parents(root)[ONE].info
    assert parent.run_name == "repro 2026-01-02 03:04"
    assert (parent.start_time, parent.end_time) == (BEGIN, BEGIN + 2 * HOUR + 12_500)
    assert children(root) == dict.fromkeys(["zero", "attack", "report"], parent.run_id)

    client(root).delete_run(parent.run_id)
    sync(root / "runs", root)
    again = parents(root)[ONE].info
    assert again.run_id != parent.run_id
    assert children(root) == dict.fromkeys(["zero", "attack", "report"], again.run_id)


def test_group_is_not_taken_for_a_stage(root):
    folder = stage(root, "prepare", ONE)
    run_id = send(folder, root)
    key = RunRecord.read(folder).run_key
    assert tracking.run_ids(root, [key, ONE]) == {key: run_id}


# In the record


def test_record_of_an_earlier_version_is_read(tmp_path):
    folder = stage(tmp_path, "prepare", ONE)
    text = json.loads((folder / "run.json").read_text())
    assert text.pop("repro") == ONE
    (folder / "run.json").write_text(json.dumps(text))
    assert RunRecord.read(folder).repro is None


def test_other_words_are_no_key(tmp_path):
    folder = stage(tmp_path, "prepare", ONE)
    text = (folder / "run.json").read_text()
    (folder / "run.json").write_text(text.replace(ONE, "host-7"))
    with pytest.raises(InputError, match="repro: String should match"):
        RunRecord.read(folder)


@pytest.mark.parametrize("key", [ONE, None])
def test_stage_records_who_started_it(root, monkeypatch, key):
    (root / "params.yaml").write_text("seed: 1\nprepare: {mnist: {reads: mine.py}}\n")
    write_lock(root)
    monkeypatch.setattr("deepcustom.pipeline.run.repro_key", lambda: key)
    with StageRun(Workspace(root), "prepare", "mnist") as run:
        run.log({"value": 0.5})
    assert RunRecord.read(root / "reports/runs/mnist/prepare").repro == key
    assert list(parents(root)) == ([key] if key else [])


# Who started a process


@pytest.mark.parametrize(
    ("command", "starts"),
    [
        ("/v/bin/python /v/bin/dvc repro evaluate", True),
        ("python -m dvc repro", True),
        ("dvc --cd folder repro -f", True),
        ("dvc exp run --temp", True),
        ("dvc exp exec-run --infofile x", True),
        ("/v/bin/python .venv/bin/deepcustom repro --profile smoke", True),
        ("dvc.exe repro", True),
        ("dvc status", False),
        ("dvc exp show", False),
        ("deepcustom train_target --subject mnist", False),
        ("make repro", False),
        ("python repro dvc", False),
        ("", False),
    ],
)
def test_commands_that_start_stages(command, starts):
    assert starts_stages(command.split()) is starts


def test_shell_is_not_taken_for_what_it_starts():
    assert not starts_stages(["sh", "-c", "dvc repro"])


def said_below(program: Path, *words: str) -> list[str]:
    """What two processes that ``program`` starts through a shell say about it."""
    child = "from deepcustom.pipeline.repro import repro_key; print(repro_key())"
    code = f"import subprocess\nfor _ in range(2): subprocess.run('''\"{sys.executable}\" -c "
    program.write_text(code + f"\"{child}\"; true''', shell=True, check=True)\n")
    command = [sys.executable, str(program), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_key_is_the_same_for_all_that_one_repro_starts(tmp_path):
    one, same = said_below(tmp_path / "dvc", "repro")
    other, _ = said_below(tmp_path / "dvc", "repro")
    assert one == same != other
    assert len(one) == 32
    assert said_below(tmp_path / "dvc", "status") == ["None", "None"]


def test_no_key_without_psutil(monkeypatch):
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert repro_key() is None


def test_no_key_where_processes_may_not_be_looked_at(monkeypatch):
    import psutil

    def refuse(_self: Any) -> None:
        raise psutil.AccessDenied(1)

    monkeypatch.setattr(psutil.Process, "parents", refuse)
    assert repro_key() is None


def test_nothing_in_a_key_names_the_machine(monkeypatch):
    """Number and start of the process are all that goes in."""
    import hashlib

    import psutil

    class Parent:
        pid = 7

        def cmdline(self) -> list[str]:
            return ["dvc", "repro"]

        def create_time(self) -> float:
            return 12.5

    monkeypatch.setattr(psutil.Process, "parents", lambda _self: [Parent()])
    assert repro_key() == hashlib.md5(b"7 12.5").hexdigest()
