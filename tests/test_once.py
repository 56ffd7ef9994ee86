"""YAML, JSON and CSV in which something stands twice, wherever a file is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from deepcustom.base.errors import InputError, ParamsError
from deepcustom.base.once import RepeatedKeyError, read_json, read_yaml
from deepcustom.base.params import read_params
from deepcustom.evaluation.files import read_checks, read_pairs, read_points
from deepcustom.pipeline.code_lock import parse_lock
from deepcustom.pipeline.dvc import parse_stages, read_lock
from deepcustom.tracking.record import RUN_FILE, RunRecord

TWICE = "seed: 1\nattack:\n  mnist-pgd: {eps: 0.1}\n  mnist-pgd: {eps: 0.3}\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (TWICE, "the key 'mnist-pgd' stands twice, in lines 3 and 4"),
        ("a: 1\n'a': 2\n", "the key 'a' stands twice, in lines 1 and 2"),
        ("a: {b: 1, b: 2}\n", "the key 'b' stands twice, in line 1"),
        ("- - {1: x, 1: y}\n", "the key '1' stands twice, in line 1"),
    ],
)
def test_a_key_that_stands_twice_is_refused(text: str, says: str) -> None:
    with pytest.raises(RepeatedKeyError, match=f"^{says}$"):
        read_yaml(text)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\nc: {<<: [*a, *a], z: *a}\n",
        "a: {x: 1}\nb: {x: 1}\n",
        "1: a\n'1': b\n",
        "",
        "- 1\n- 1\n",
    ],
)
def test_what_stands_once_is_read_as_ever(text: str) -> None:
    assert read_yaml(text) == yaml.safe_load(text)
    assert read_yaml(text.encode()) == yaml.safe_load(text)


def test_settings_with_a_row_twice_are_refused_before_one_of_them_is_lost(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(TWICE)
    with pytest.raises(
        ParamsError, match=r"params\.yaml is not valid YAML: the key 'mnist-pgd' stands"
    ):
        read_params(tmp_path / "params.yaml")


def test_locks_with_a_stage_twice_are_refused(tmp_path: Path) -> None:
    text = "schema: '2.0'\nstages:\n  a: {cmd: one}\n  a: {cmd: two}\n"
    (tmp_path / "dvc.lock").write_text(text)
    with pytest.raises(InputError, match=r"dvc\.lock is not readable: the key 'a' stands twice"):
        read_lock(tmp_path)
    assert parse_stages(text.encode()) == {}
    digest = "a" * 64
    lock = f"version: '1'\nstages:\n  attack: {digest}\n"
    assert parse_lock(lock.encode()) is not None
    assert parse_lock(f"{lock}  attack: {digest}\n".encode()) is None


def test_json_with_a_key_twice_is_refused(tmp_path: Path) -> None:
    assert read_json('{"a": {"b": 1}, "b": 2}') == {"a": {"b": 1}, "b": 2}
    with pytest.raises(ValueError, match="the key 'b' stands twice"):
        read_json('{"a": {"b": 1, "b": 2}}')
    path = tmp_path / "checks.json"
    path.write_text('{"checks": [1], "checks": []}')
    with pytest.raises(InputError, match="cannot read checks: the key 'checks' stands twice"):
        read_checks(path)


def test_a_record_with_a_key_twice_is_refused(tmp_path: Path) -> None:
    committed = Path(__file__).parents[1] / "reports/runs/mnist/prepare" / RUN_FILE
    text = committed.read_text()
    (tmp_path / RUN_FILE).write_text(text)
    commit = RunRecord.read(tmp_path).git_commit
    line = f'"git_commit": {json.dumps(commit)},'
    assert line in text
    (tmp_path / RUN_FILE).write_text(text.replace(line, f'"git_commit": "other", {line}'))
    with pytest.raises(InputError, match="not a run record: the key 'git_commit' stands twice"):
        RunRecord.read(tmp_path)


POINTS = "network,curve,eps,steps,accuracy,loss,risen"
PAIRS = "first,second,only_first,only_second,p"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"{POINTS},eps\na,eps,0.1,1,0.5,1,0.5,0.2\n", "the columns are"),
        (f"{POINTS}\na,eps,0.1,1,1.5,1,0.5\n", "accuracy is 1.5: want a number from 0 to 1"),
        (f"{POINTS}\na,eps,-0.1,1,0.5,1,0.5\n", "eps is -0.1"),
        (f"{POINTS}\na,eps,0.1,-1,0.5,1,0.5\n", "steps is -1: want a whole number, 0 or more"),
    ],
)
def test_curves_out_of_range_or_of_other_columns_are_refused(
    tmp_path: Path, text: str, says: str
) -> None:
    (tmp_path / "curves.csv").write_text(text)
    with pytest.raises(InputError, match=f"cannot read curves: {says}"):
        read_points(tmp_path / "curves.csv")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"{PAIRS}\na,b,1,0,0.5\na,b,2,0,0.5\n", "a and b are compared twice"),
        (f"{PAIRS}\na,b,1,0,1.5\n", "p is 1.5: want a number from 0 to 1"),
        (f"{PAIRS}\na,b,-1,0,0.5\n", "only_first is -1"),
        (f"{PAIRS},p\na,b,1,0,0.5,0.6\n", "the columns are"),
    ],
)
def test_pairs_out_of_range_or_twice_are_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(InputError, match=f"cannot read paired tests: {says}"):
        read_pairs(tmp_path / "pairs.csv")
