"""Pushing models, and pulling them: which go, to where, and what is too large for a store in the project."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import dvc.logger  # noqa: F401 - not first in a test: it keeps the streams of that moment
import pytest
import yaml
from pipeline_fixtures import call_main

from deepcustom.base.errors import InputError
from deepcustom.base.rows import TRAINING
from deepcustom.pipeline import dvc as our_dvc
from deepcustom.pipeline.push import LARGEST, pull, push

SMALL, BIG = "models/target/a.safetensors", "models/dgn/a/nce.safetensors"
MD5 = {SMALL: "a" * 32, BIG: "b" * 32}


def lock(size: int = LARGEST + 1, name: str = "train_dgn@a-nce") -> dict[str, Any]:
    def entry(path: str, size: int) -> dict[str, Any]:
        return {"cmd": "x", "outs": [{"path": path, "md5": MD5[path], "size": size}]}

    sets = {"path": "data/adversarial/a/test/nce", "md5": "c" * 32 + ".dir", "size": 10 * LARGEST}
    return {
        "train_target@a": entry(SMALL, 10),
        name: entry(BIG, size),
        "generate@a-nce-test": {"cmd": "x", "outs": [sets]},
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project whose default remote is a folder inside it."""
    root = tmp_path / "project"
    (root / ".dvc").mkdir(parents=True)
    for name in ("dvc.yaml", "params.yaml"):
        (root / name).write_text("{}\n")
    configure(root, "../store")
    write(root, lock())
    return root


def configure(root: Path, url: str, core: str = "[core]\n    remote = own\n") -> None:
    (root / ".dvc/config").write_text(f"{core}['remote \"own\"']\n    url = {url}\n")


def write(root: Path, stages: dict[str, Any]) -> None:
    (root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))


@pytest.fixture(autouse=True)
def told(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What DVC was asked to do, in place of its doing it."""
    asked: list[list[str]] = []
    monkeypatch.setattr(our_dvc, "stage_names", lambda root: ["train_target@a", "train_dgn@a-nce"])
    monkeypatch.setattr(
        our_dvc, "run_dvc", lambda root, words, **more: asked.append(list(words)) or 0
    )
    return asked


PUSHED = [["push", "--remote", "own", "train_target", "train_dgn"]]


def test_a_large_model_is_refused_in_one_line_and_nothing_is_pushed(
    root: Path, told: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call_main(root, "push") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    for word in (BIG, "10.0 MB", "'own'", "dvc remote add --default NAME URL"):
        assert word in line
    assert told == []


def test_a_model_of_the_largest_size_goes(root: Path, told: list[list[str]]) -> None:
    write(root, lock(LARGEST))
    assert call_main(root, "push") == 0
    assert told == PUSHED


def test_a_large_model_that_the_store_has_is_no_obstacle(root: Path, told: list[list[str]]) -> None:
    kept = root / "store/files/md5" / MD5[BIG][:2] / MD5[BIG][2:]
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"")
    assert push(root) == 0
    assert told == PUSHED


def test_a_row_that_is_no_more_decides_nothing(root: Path, told: list[list[str]]) -> None:
    write(root, lock(name="train_dgn@a-gone"))
    assert push(root) == 0
    assert told == [["push", "--remote", "own", "train_target"]]


@pytest.mark.parametrize(
    "url", ["../../elsewhere", "/srv/models", "s3://bucket/a", "https://a.b/c"]
)
def test_a_remote_elsewhere_takes_any_size(root: Path, told: list[list[str]], url: str) -> None:
    configure(root, url)
    assert push(root) == 0
    assert told == PUSHED


def test_a_store_beside_the_project_in_its_git_repository_is_inside(root: Path) -> None:
    configure(root, "../../store")
    assert push(root) == 0
    subprocess.run(["git", "init", "--quiet"], cwd=root.parent, check=True)
    with pytest.raises(InputError, match=BIG):
        push(root)


def test_a_repository_that_git_refuses_to_read_is_one_all_the_same(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(root, "../../store")
    subprocess.run(["git", "init", "--quiet"], cwd=root.parent, check=True)
    fake = tmp_path / "bin/git"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'fatal: detected dubious ownership' >&2\nexit 128\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    with pytest.raises(InputError, match=BIG):
        push(root)


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_an_absolute_path_or_a_link_leads_inside_too(root: Path, tmp_path: Path, form: str) -> None:
    (tmp_path / "link").symlink_to(root)
    configure(root, form.format(tmp_path / "link/store"))
    with pytest.raises(InputError, match=BIG):
        push(root)


def test_another_remote_by_its_name(root: Path, told: list[list[str]]) -> None:
    (root / ".dvc/config.local").write_text("['remote \"far\"']\n    url = s3://bucket/a\n")
    assert call_main(root, "push", "--remote", "far") == 0
    assert told == [["push", "--remote", "far", "train_target", "train_dgn"]]


def keep_images(root: Path, size: int) -> str:
    """What ``dvc add`` writes beside a folder of images."""
    file = root / "data/own/a.dvc"
    file.parent.mkdir(parents=True)
    out = {"md5": "d" * 32 + ".dir", "size": size, "nfiles": 3, "hash": "md5", "path": "a"}
    file.write_text(yaml.safe_dump({"outs": [out]}))
    return "data/own/a.dvc"


def test_images_that_dvc_keeps_go_with_the_models(root: Path, told: list[list[str]]) -> None:
    images = keep_images(root, LARGEST + 1)
    write(root, lock(LARGEST))
    with pytest.raises(InputError, match=r"^data/own/a has 10\.0 MB, and 10 MB is the most"):
        push(root)
    configure(root, "s3://bucket/a")
    assert call_main(root, "push") == 0
    assert call_main(root, "pull") == 0
    assert told == [[*PUSHED[0], images], ["pull", "--remote", "own"]]
    (root / images).write_text("outs: []\n")
    with pytest.raises(InputError, match=r"data/own/a\.dvc is not as `dvc add` writes it"):
        push(root)


def test_pull_needs_a_remote_of_that_name(root: Path, told: list[list[str]]) -> None:
    with pytest.raises(InputError, match="no remote 'far'"):
        pull(root, "far")
    assert told == []


def test_what_is_missing_is_named(root: Path) -> None:
    with pytest.raises(InputError, match=r"no remote 'far'.*there are: own"):
        push(root, "far")
    configure(root, "../store", core="")
    with pytest.raises(InputError, match="no default remote: `dvc remote add --default NAME URL`"):
        push(root)
    (root / ".dvc/config").write_text("[core\n")
    with pytest.raises(InputError, match=r"\.dvc/config: "):
        push(root)
    write(root, {})
    with pytest.raises(InputError, match="names no models"):
        push(root)


def test_dvc_pushes_the_models_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With DVC itself: a model, and a set that stays."""
    monkeypatch.undo()
    root = tmp_path / "real"
    root.mkdir()
    stages = {
        "train_target": {
            "foreach": {"a": {}},
            "do": {"cmd": f"mkdir -p models/target && echo 1 > {SMALL}", "outs": [SMALL]},
        },
        "attack": {"foreach": {"a": {}}, "do": {"cmd": "echo 2 > set", "outs": ["set"]}},
    }
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    (root / "params.yaml").write_text("{}\n")
    for words in (
        ["init", "--no-scm", "--quiet"],
        ["remote", "add", "--quiet", "--default", "store", "store"],
        ["repro", "--quiet"],
    ):
        assert our_dvc.run_dvc(root, words) == 0
    words = [sys.executable, "-m", "deepcustom.cli", "push", "--json"]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert (told["remote"], [one["path"] for one in told["sent"]]) == ("store", [SMALL])
    assert call_main(root, "push") == 0
    pushed = [file.read_text() for file in (root / "store").rglob("*") if file.is_file()]
    assert pushed == ["1\n"]
    (root / SMALL).unlink()
    shutil.rmtree(root / ".dvc/cache")
    assert call_main(root, "pull") == 0
    assert (root / SMALL).read_text() == "1\n"
    assert "train_target" in TRAINING
