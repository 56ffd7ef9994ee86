"""The proof by bytes itself: one changed byte is found, and each side runs nothing but its own code."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import same_bytes as proof
import yaml

from deepcustom.base.errors import DeepCustomError, InputError
from deepcustom.base.hashes import dvc_md5

FILES = {"models/a.bin": b"weights", "data/set/x": b"images", "data/set/y": b"labels"}
OUTS = {"train@a": ["models/a.bin"], "make@b": ["data/set"]}

# What a side runs, in place of the program: its code's word becomes an output.
FAKE = """
import hashlib, os, sys, time
sys.path.insert(0, os.environ["PYTHONPATH"])
import deepcustom
print("Running stage 'make@a':", flush=True)
if sys.argv[1:] == ["prepare"]:
    open("data/raw/fetched", "a").write("once ")
    sys.exit()
if deepcustom.WORD == "broken":
    sys.exit("something broke")
if deepcustom.WORD == "slow":
    time.sleep(60)
os.makedirs("workspaces/smoke")
os.chdir("workspaces/smoke")
open("out", "w").write(deepcustom.WORD)
md5 = hashlib.md5(deepcustom.WORD.encode()).hexdigest()
open("dvc.lock", "w").write(f"stages: {{make@a: {{outs: [{{path: out, md5: {md5}}}]}}}}")
"""
COMMAND = (sys.executable, "-c", FAKE)


def workspace(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    """A folder with these files and a ``dvc.lock`` that names them as DVC would."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    stages = {
        stage: {"outs": [{"path": path, "md5": dvc_md5(folder / path)} for path in paths]}
        for stage, paths in OUTS.items()
    }
    (folder / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))
    return folder


def test_equal_workspaces_are_alike(tmp_path: Path) -> None:
    one, two = workspace(tmp_path / "one"), workspace(tmp_path / "two")
    assert proof.outputs(one)["models/a.bin"] == hashlib.md5(b"weights").hexdigest()
    found = proof.compare(proof.outputs(one), proof.outputs(two))
    assert found.alike
    assert found.same == ["data/set", "models/a.bin"]


@pytest.mark.parametrize(("name", "path"), [("models/a.bin", "models/a.bin"), ("data/set/y",) * 2])
def test_one_planted_byte_makes_it_fail(name: str, path: str, tmp_path: Path) -> None:
    content = bytearray(FILES[name])
    content[-1] ^= 1
    one = workspace(tmp_path / "one")
    two = workspace(tmp_path / "two", {**FILES, name: bytes(content)})
    found = proof.compare(proof.outputs(one), proof.outputs(two))
    assert not found.alike
    assert found.differ == ["data/set" if path.startswith("data") else path]


@pytest.mark.parametrize("name", FILES)
def test_a_byte_changed_behind_the_back_of_the_lock_is_found(name: str, tmp_path: Path) -> None:
    folder = workspace(tmp_path)
    content = bytearray(FILES[name])
    content[0] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=r"is not what dvc\.lock says"):
        proof.outputs(folder)


def test_a_missing_output_is_named(tmp_path: Path) -> None:
    folder = workspace(tmp_path)
    (folder / "models/a.bin").unlink()
    with pytest.raises(InputError, match=r"models/a\.bin is missing"):
        proof.outputs(folder)


def test_nothing_run_is_nothing_proved(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dvc\.lock names no output"):
        proof.outputs(tmp_path)
    assert not proof.compare({}, {}).alike


def test_what_is_on_one_side_only_counts_unless_it_is_allowed() -> None:
    first, second = {"a": "1", "b": "2", "old/c": "3"}, {"a": "1", "b": "4", "new/d": "5"}
    found = proof.compare(first, second)
    assert (found.differ, found.first, found.second) == (["b"], ["old/c"], ["new/d"])
    assert not found.alike
    assert not proof.compare(first, second, ["old/*", "new/*"]).alike
    allowed = proof.compare(first, second, ["old/*", "?", "new/*"])
    assert allowed.alike
    said: list[str] = []
    proof.say_comparison(allowed, ("REF", "HEAD"), said.append)
    assert said == [
        "differs (allowed): b",
        "only in REF (allowed): old/c",
        "only in HEAD (allowed): new/d",
        "1 outputs are the same, 1 differs, 1 only in REF, 1 only in HEAD",
    ]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commits whose code says another word each: ``one`` (HEAD), ``two``, ``broken``, ``slow``."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    root = tmp_path / "project"
    (root / "src/deepcustom").mkdir(parents=True)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    for word in ("slow", "broken", "two", "same", "one"):
        said = "one" if word == "same" else word
        (root / "src/deepcustom/__init__.py").write_text(f"WORD = {said!r}\n")
        (root / "note").write_text(word)
        subprocess.run([*git, "add", "."], cwd=root, check=True)
        subprocess.run([*git, "commit", "--quiet", "-m", word], cwd=root, check=True)
        subprocess.run([*git, "tag", word], cwd=root, check=True)
    return root


def run(root: Path, ref: str, said: list[str]) -> proof.Comparison:
    return proof.same_bytes(ref, root=root, command=COMMAND, say=said.append)


def test_each_side_runs_its_own_code_and_leaves_nothing(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(repository / "src"))  # as of HEAD
    said: list[str] = []
    assert run(repository, "same", said).same == ["out"]
    assert run(repository, "two", said).differ == ["out"]
    assert said[-2:] == [
        "differs: out",
        "0 outputs are the same, 1 differs, 0 only in REF, 0 only in HEAD",
    ]
    # Downloads lie in the project, fetched by one side alone each time.
    assert (repository / "data/raw/fetched").read_text() == "once once "
    assert not list((repository.parent / "tmp").iterdir())
    left = subprocess.run(
        ["git", "worktree", "list"], cwd=repository, capture_output=True, text=True, check=True
    )
    assert len(left.stdout.splitlines()) == 1


def test_a_folder_that_was_run_before_stands_for_a_commit(repository: Path) -> None:
    folder = repository.parent / "before"
    folder.mkdir()
    (folder / "out").write_text("one")
    md5 = hashlib.md5(b"one").hexdigest()
    (folder / "dvc.lock").write_text(f"stages: {{make@a: {{outs: [{{path: out, md5: {md5}}}]}}}}")
    assert run(repository, str(folder), []).alike


def test_a_failed_side_shows_the_end_of_its_log_and_stops_the_other(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "checkout", "--quiet", "slow"], cwd=repository, check=True)
    monkeypatch.setattr(proof, "EVERY", 0.0)
    said: list[str] = []
    with pytest.raises(DeepCustomError, match=r"REF \(broken\): its run failed"):
        run(repository, "broken", said)
    assert "something broke" in said[-1]
    assert any("HEAD: stage 2, make@a" in line for line in said)
    assert not list((repository.parent / "tmp").iterdir())


def test_uncommitted_changes_are_named(repository: Path) -> None:
    (repository / "note").write_text("changed")
    said: list[str] = []
    run(repository, "same", said)
    assert said[0].startswith("warning: uncommitted changes take no part")


def test_what_is_no_commit_is_said_in_one_line(repository: Path) -> None:
    with pytest.raises(InputError, match="REF=nothing is no commit"):
        run(repository, "nothing", [])


def test_a_side_has_no_store_cache_or_thread_of_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MLFLOW_TRACKING_URI", "DVC_SITE_CACHE_DIR", "PYTHONPATH", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "the user's")
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    found = proof.environment(tmp_path / "0")
    assert "the user's" not in found.values()
    assert found["OMP_NUM_THREADS"] == "1"
    assert found["PYTHONPATH"] == str(tmp_path / "0/src")
    assert found["DVC_GLOBAL_CONFIG_DIR"].startswith(str(tmp_path))
    assert os.environ["OMP_NUM_THREADS"] == "8"
