"""Which code a stage runs: closures of imports on a made-up package, and on the package itself."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from pipeline_fixtures import ROOT

from deepcustom import stages
from deepcustom.attacks.losses.base import built_in
from deepcustom.base.errors import InputError, UnknownNameError
from deepcustom.pipeline.code import (
    CUT,
    FACE,
    KEPT,
    PREFIX,
    closure,
    closure_of,
    code_digest,
    cut,
    face_homes,
    hashes,
)

PACKAGE = ROOT / PREFIX
FACES = sorted(file.relative_to(PACKAGE).as_posix() for file in PACKAGE.rglob("__init__.py"))


def write(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


# The walk


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import deepcustom.base.a", {"base/a.py"}),
        ("import json, deepcustom.base.a as other", {"base/a.py"}),
        ("from deepcustom.base import a", {"base/a.py"}),
        ("from deepcustom.base.a import thing", {"base/a.py"}),
        ("from deepcustom.base.a import *", {"base/a.py"}),
        ("from ..base import a", {"base/a.py"}),
        ("from ..base.a import thing", {"base/a.py"}),
        ("from . import train_target", {"stages/train_target.py"}),
        ("def f():\n    if True:\n        import deepcustom.base.a", {"base/a.py"}),
        ("class C:\n    async def f(self):\n        from deepcustom.base import a", {"base/a.py"}),
        ("try:\n    pass\nexcept OSError:\n    import deepcustom.base.a", {"base/a.py"}),
        ("from deepcustom.base import b", {"base/b.py", "base/a.py"}),
        ("import deepcustom.base.c", {"base/c.py", "base/d.py"}),
        ("from deepcustom.room import thing", {"room/inner.py", "base/a.py"}),
        ("from deepcustom.room import *", {"room/inner.py", "base/a.py", "base/c.py", "base/d.py"}),
        ("from deepcustom.room import CONSTANT", set()),
        ("import deepcustom.base.missing, torch", set()),
        ("if TYPE_CHECKING:\n    import deepcustom.base.a", set()),
        (
            "import typing\nif typing.TYPE_CHECKING:\n    import deepcustom.base.a\n"
            "else:\n    import deepcustom.base.c",
            {"base/c.py", "base/d.py"},
        ),
        ("from deepcustom.base import progress\nfrom deepcustom.tracking.store import send", set()),
        ("from deepcustom.report.page import page", set()),
    ],
)
def test_imports_are_followed(tmp_path: Path, text: str, expected: set[str]) -> None:
    files = {
        "stages/prepare.py": text,
        "stages/train_target.py": "",
        "base/__init__.py": "",
        "base/a.py": "",
        "base/b.py": "def f():\n    from deepcustom.base.a import x",
        "base/c.py": "import deepcustom.base.d",
        "base/d.py": "from deepcustom.base import c",
        "base/progress.py": "import deepcustom.base.a",
        "room/__init__.py": "CONSTANT = 1\nHOMES = {'thing': 'deepcustom.room.inner', "
        "'c': 'deepcustom.base.c'}",
        "room/inner.py": "import deepcustom.base.a",
        "tracking/store.py": "import deepcustom.base.a",
        "report/page.py": "import deepcustom.base.a",
    }
    assert set(closure("prepare", write(tmp_path, files))) == {"stages/prepare.py", *expected}


def test_the_report_alone_keeps_its_room(tmp_path: Path) -> None:
    text = "from deepcustom.report.page import page\nimport deepcustom.tracking.store"
    files = {"report/page.py": "", "tracking/store.py": ""}
    both = {"stages/report.py": text, "stages/evaluate.py": text}
    package = write(tmp_path, files | both)
    assert closure("report", package) == ("report/page.py", "stages/report.py")
    assert closure("evaluate", package) == ("stages/evaluate.py",)


def test_a_changed_source_changes_the_closure(tmp_path: Path) -> None:
    package = write(tmp_path, {"stages/prepare.py": "", "base/a.py": ""})
    assert closure("prepare", package) == ("stages/prepare.py",)
    write(package, {"stages/prepare.py": "import deepcustom.base.a"})
    assert closure("prepare", package) == ("base/a.py", "stages/prepare.py")


def test_a_users_file_brings_his_own_modules_and_ours(tmp_path: Path) -> None:
    files = {
        "mine/__init__.py": "",
        "mine/loss.py": "from .helper import f\nfrom deepcustom.base.a import x\nimport torch",
        "mine/helper.py": "import flat",
        "flat.py": "",
        "src/deepcustom/base/a.py": "import deepcustom.base.progress",
        "src/deepcustom/base/progress.py": "",
    }
    write(tmp_path, files)
    expected = ("flat.py", "mine/helper.py", "mine/loss.py", "src/deepcustom/base/a.py")
    assert closure_of("mine/loss.py", tmp_path) == expected
    write(tmp_path, {"mine/__init__.py": '"""His."""\n'})
    assert closure_of("mine/loss.py", tmp_path) == expected
    write(tmp_path, {"mine/__init__.py": "import torch\ntorch.manual_seed(1)\n"})
    assert "mine/__init__.py" in closure_of("mine/loss.py", tmp_path)


def test_a_project_without_sources_uses_the_package_that_is_loaded(tmp_path: Path) -> None:
    write(tmp_path, {"mine.py": "from deepcustom.attacks.losses import CustomLoss"})
    found = closure_of("mine.py", tmp_path)
    assert {"mine.py", "src/deepcustom/attacks/losses/base.py"} <= set(found)


def test_unknown_stage_lists_the_known() -> None:
    with pytest.raises(
        UnknownNameError, match="unknown stage 'prepair': choose from adversarial_train, a"
    ):
        closure("prepair")


@pytest.mark.parametrize("text", ["def f(:", "\0"])
def test_what_is_no_python_is_told(tmp_path: Path, text: str) -> None:
    write(tmp_path, {"stages/prepare.py": text})
    with pytest.raises(InputError, match=r"prepare\.py: not readable as Python: .+"):
        closure("prepare", tmp_path)


# The package itself


def test_closures_hold_what_decides_a_number() -> None:
    found = {stage: set(closure(stage)) for stage in stages.NAMES}
    for stage, paths in found.items():
        seeds = {f"stages/{stage}.py", "pipeline/run.py", "training/compute.py", "base/params.py"}
        assert paths >= seeds
        assert all((PACKAGE / path).is_file() for path in paths)
        assert {path for path in paths if cut(path, stage)} == set()
    assert {"attacks/losses/base.py", "training/epochs.py"} <= found["train_dgn"]
    assert {"report/page.py", "report/figures/curves.py"} <= found["report"]
    assert {"evaluation/whitebox.py", "base/hashes.py"} <= found["evaluate"]
    keepers = {stage for stage, paths in found.items() if {p for p in paths if cut(p)}}
    assert keepers == set(KEPT)


def test_only_what_tries_networks_depends_on_how_they_are_tried() -> None:
    """A note in other words makes no stage run again that prints none."""
    tries = {f"training/{name}.py" for name in ("trial", "trial_calls", "short_trial", "chance")}
    found = {stage: set(closure(stage)) & tries for stage in stages.NAMES}
    assert found.pop("train_target") == tries
    assert "training/trial.py" in found.pop("evaluate")
    for stage in ("report", "page"):
        assert found.pop(stage) == {"training/chance.py"}  # it reads checks
    assert set().union(*found.values()) == set()
    attacks = {"evaluation/adaptive.py", "evaluation/blackbox.py", "evaluation/scoring.py"}
    assert not attacks & set(closure("report"))


def test_a_loss_adds_its_file_alone() -> None:
    common = {PREFIX + path for path in closure("train_dgn")}
    for name in built_in():
        path = f"{PREFIX}attacks/losses/{name}.py"
        assert set(closure_of(path, ROOT)) - common == {path}
        assert path not in common
    own = "examples/margin_loss.py"
    assert set(closure_of(own, ROOT)) - common == {own}


def test_what_is_cut_is_there_and_says_why() -> None:
    for name, why in CUT.items():
        place = PACKAGE / name.replace(".", "/")
        assert place.is_dir() or place.with_suffix(".py").is_file(), name
        assert len(why.split()) > 4


@pytest.mark.parametrize("face", FACES)
def test_a_face_runs_nothing(face: str) -> None:
    """A docstring, constants, imports for type checkers, and names handed on when they are asked for."""
    assert cut(face, "report") == CUT[FACE]
    for node in ast.parse((PACKAGE / face).read_text()).body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            assert node.value is not None
            ast.literal_eval(node.value)
        elif isinstance(node, ast.ImportFrom):
            assert node.module in ("__future__", "importlib", "typing"), node.module
        elif isinstance(node, ast.FunctionDef):
            assert node.name == "__getattr__"
        elif isinstance(node, ast.If):
            assert ast.unparse(node.test) == "TYPE_CHECKING"
            shown = {f"{one.module}.{name.asname}" for one in node.body for name in one.names}
            homes = face_homes(PACKAGE / face)
            assert shown == {f"{home}.{name}" for name, home in homes.items()}
        else:
            assert isinstance(node, ast.Expr)
            assert isinstance(node.value, ast.Constant)


def test_what_a_file_takes_from_a_face_has_a_home() -> None:
    """Else the walk would not see where it comes from."""
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("deepcu"):
                continue
            room = PACKAGE.parent / str(node.module).replace(".", "/")
            for name in (alias.name for alias in node.names if room.is_dir()):
                module = (room / f"{name}.py").is_file() or (room / name / "__init__.py").is_file()
                constant = node.module == "deepcustom.stages" and name == "NAMES"
                homes = face_homes(room / "__init__.py")
                assert module or constant or name in homes, f"{file.name}: {node.module}.{name}"


# Hashes


def test_digest_is_that_of_the_sorted_pairs(tmp_path: Path) -> None:
    write(tmp_path, {"b.py": "2", "a/c.py": "1"})
    found = hashes(["b.py", "a/c.py"], tmp_path)
    md5 = {
        f"{PREFIX}a/c.py": hashlib.md5(b"1").hexdigest(),
        f"{PREFIX}b.py": hashlib.md5(b"2").hexdigest(),
    }
    assert found == md5
    assert code_digest(found) == hashlib.sha256(json.dumps(md5).encode()).hexdigest()
    with pytest.raises(InputError, match=r"src/deepcustom/d\.py is missing"):
        hashes(["d.py"], tmp_path)
