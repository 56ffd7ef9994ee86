"""``run.json``: what may stand in it, and how it is written and read."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from deepcustom.base.errors import InputError
from deepcustom.tracking.record import RunRecord

STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def record(**changes: Any) -> RunRecord:
    fields: dict[str, Any] = {
        "run_key": "0123456789abcdef" * 2,
        "stage": "train_dgn",
        "item": "mnist-lrp",
        "dataset": "mnist",
        "dvc_stage": "train_dgn@mnist-lrp",
        "dvc_exp": None,
        "params": {"optimizer": {"lr": 0.1, "name": "adam"}, "sizes": [1, 2], "note": None},
        "metrics": {"loss": 0.25, "fooled": 0.75},
        "history": {"loss": [0.5, 1 / 3, 0.25], "val": [0.1, 0.9, 0.2]},
        "inputs": {"data/prepared/mnist": "a" * 32 + ".dir"},
        "outputs": {"models/dgn/mnist/lrp.safetensors": "b" * 32},
        "git_commit": "c" * 40,
        "git_dirty": False,
        "started": STARTED,
        "seconds": 12.5,
        "machine": {"cpu": "two cores"},
        "packages": {"torch": "2.13.0"},
        "figures": [],
    }
    return RunRecord(**fields | changes)


def test_written_record_reads_back_equal(tmp_path):
    before = record(metrics={"loss": 1 / 3, "worst": math.inf})
    before.write(tmp_path / "run")
    assert RunRecord.read(tmp_path / "run") == before
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.json"]


def test_file_is_sorted_strict_json_even_with_nan(tmp_path):
    record(history={"loss": [math.nan]}).write(tmp_path)

    def refuse(word):
        raise AssertionError(word)

    data = json.loads((tmp_path / "run.json").read_text(), parse_constant=refuse)
    assert list(data) == sorted(data)
    assert math.isnan(RunRecord.read(tmp_path).history["loss"][0])


@pytest.mark.parametrize(("item", "name"), [("mnist-lrp", "report@mnist-lrp"), ("", "report")])
def test_name_is_that_of_the_dvc_stage(item, name):
    assert record(stage="report", item=item).name == name


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../x", "a/../../x", "a\\b", "C:/x", ".", "", "a//b"]
)
@pytest.mark.parametrize("field", ["inputs", "outputs"])
def test_paths_that_leave_the_repository_are_refused(field, path):
    with pytest.raises(ValidationError, match="not a plain relative path"):
        record(**{field: {path: "a" * 32}})


@pytest.mark.parametrize("name", ["../x.png", "/x.png", "a/b.png", "..", "", "a\\b.png", "C:x"])
def test_figures_are_plain_names(name):
    with pytest.raises(ValidationError, match="not a plain file name"):
        record(figures=[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"run_key": "x"}, "run_key"),
        ({"inputs": {"a": "sha"}}, "inputs"),
        ({"started": datetime(2026, 1, 1)}, "timezone"),
        ({"seconds": -1.0}, "seconds"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_other_bad_fields_are_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        record(**change)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"run\.json: not a run record: Invalid JSON"),
        ("\udcff", r"run\.json: not a run record: Invalid JSON"),
        ("{}", r"run\.json: not a run record: run_key: Field required"),
        (None, r"run\.json: No such file"),
    ],
)
def test_broken_file_is_named_in_one_line(tmp_path, text, message):
    if text is not None:
        (tmp_path / "run.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=message) as caught:
        RunRecord.read(tmp_path)
    assert "\n" not in str(caught.value)
