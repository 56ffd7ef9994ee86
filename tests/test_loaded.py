"""The code that runs is the code that DVC hashes: two checkouts, projects without sources, and the cuts."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from hashlib import md5
from pathlib import Path

import pytest
import yaml
from pipeline_fixtures import ROOT, call_main, make_project

from deepcustom.base.errors import InputError
from deepcustom.base.hashes import file_md5
from deepcustom.pipeline import code_lock
from deepcustom.pipeline.code import CUT, FACE, PREFIX, closure, code_digest, cut, hashes
from deepcustom.pipeline.code_lock import (
    FINDERS,
    LOCK,
    check_lock,
    may_run,
    read_code_lock,
    update_lock,
    write_lock,
)
from deepcustom.pipeline.loaded import RunningCode, verify
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.workspace import Workspace
from deepcustom.tracking.record import RunRecord

PACKAGE = ROOT / PREFIX
LOSS = "attacks/losses/nce.py"


def copy_sources(folder: Path) -> Path:
    """A project with a copy of the package's sources."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, folder / PREFIX, ignore=ignore)
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder)
    return folder


def edit(file: Path) -> None:
    file.write_text(file.read_text() + "\n# edited\n")


def cli(folder: Path, *words: str, code: Path) -> subprocess.CompletedProcess[str]:
    """``deepcustom`` in ``folder`` with the package of another one, as an editable install gives it."""
    return subprocess.run(
        [sys.executable, "-c", "from deepcustom.cli import main; main()", *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(code / "src"), "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )


# A second checkout, with the first one's environment


@pytest.fixture
def second(tmp_path: Path) -> Path:
    return copy_sources(tmp_path / "second")


PREPARE = ("prepare", "--dataset", "mnist")


def test_another_checkouts_code_is_refused_in_one_line(second: Path) -> None:
    edit(second / PREFIX / "stages/prepare.py")
    edit(second / PREFIX / "training/compute.py")
    done = cli(second, *PREPARE, code=ROOT)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"error: the code that runs is not the code that DVC hashes: Python loaded {PACKAGE.resolve()}, "
        f"where {PREFIX}stages/prepare.py (and 1 more) differs from this project's: "
        "`make setup` here, or PYTHONPATH=src"
    ]
    assert not (second / "reports").exists()


def test_its_own_code_passes(second: Path) -> None:
    """The stage then reads its settings, which is after the comparison."""
    (second / "params.yaml").write_text("seed: 1\n")
    edit(second / PREFIX / "stages/prepare.py")
    done = cli(second, *PREPARE, code=second)
    assert "params.yaml: " in done.stderr


@pytest.mark.parametrize("stage", ["prepare", "train_dgn", "report"])
def test_the_same_code_elsewhere_passes(second: Path, stage: str) -> None:
    edit(second / PREFIX / "tracking/store.py")  # which is cut
    edit(second / PREFIX / LOSS)  # which the row does not name
    assert verify(second, stage) == verify(ROOT, stage)


def test_dvc_repro_stops_and_leaves_no_hash_behind(second: Path) -> None:
    edit(second / PREFIX / "stages/prepare.py")
    script = second / "deepcustom"
    script.write_text(f"#!{sys.executable}\nfrom deepcustom.cli import main\nmain()\n")
    script.chmod(0o755)
    path = os.pathsep.join([str(second), os.environ["PATH"]])
    env = os.environ | {"PYTHONPATH": str(ROOT / "src"), "PATH": path, "DVC_NO_ANALYTICS": "1"}
    for words in (["init", "-q", "--no-scm"], ["repro", "prepare@mnist"]):
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *words],
            cwd=second,
            env=env,
            capture_output=True,
            text=True,
        )
    assert "the code that runs is not the code that DVC hashes" in done.stderr
    assert done.returncode
    assert not (second / "dvc.lock").exists()


def test_a_missing_file_counts_as_another(second: Path) -> None:
    (second / PREFIX / "stages/prepare.py").unlink()
    with pytest.raises(InputError, match=r"stages/prepare\.py differs from this project's"):
        verify(second, "prepare")


def test_the_digest_is_that_of_the_projects_files(second: Path) -> None:
    paths = closure("train_dgn")
    assert verify(second, "train_dgn") == code_digest(hashes(paths, second / PREFIX))
    more = [PREFIX + LOSS, "models/target/mnist.safetensors", "data/adversarial/mnist/test/pgd"]
    both = hashes([*paths, LOSS], second / PREFIX)
    assert verify(second, "train_dgn", more) == code_digest(both)


def test_a_rows_own_file_is_held_against_what_python_loaded(
    second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (second / "mine.py").write_text("A = 1\n")
    monkeypatch.syspath_prepend(second)
    running = RunningCode(second, "train_dgn", ["mine.py"])
    __import__("mine")
    running.check()
    digest = code_digest(
        {**hashes(closure("train_dgn"), PACKAGE), "mine.py": file_md5(second / "mine.py")}
    )
    assert running.digest == digest
    elsewhere = copy_sources(second / "third")
    (elsewhere / "mine.py").write_text("A = 2\n")
    with pytest.raises(InputError, match=r"loaded .*second, where mine\.py differs"):
        verify(elsewhere, "train_dgn", ["mine.py"])


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """What a test imports of its own is gone after it."""
    importlib.invalidate_caches()
    yield
    sys.modules.pop("mine", None)


# From the start of a stage to its end


@pytest.mark.parametrize("what", [f"{PREFIX}training/compute.py", "mine.py"])
def test_an_edit_while_the_stage_runs_is_refused(second: Path, what: str) -> None:
    (second / "mine.py").write_text("A = 1\n")
    running = RunningCode(second, "train_dgn", ["mine.py"])
    running.check()
    edit(second / what)
    with pytest.raises(InputError, match=f"{what} changed while train_dgn ran, .* run it again"):
        running.check()


def test_nothing_is_kept_of_a_run_whose_code_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ws = make_project(tmp_path / "project")
    stage = StageRun(ws, "prepare", "mnist").__enter__()
    stage.write("models/a.bin").write_text("one")
    (ws.root / LOCK).write_text("version: 0.1.0\nstages: {}\n")
    with pytest.raises(InputError, match=f"{LOCK} .*: `deepcustom upgrade`"):
        stage.__exit__(None, None, None)
    assert not (ws.root / "models/a.bin").exists()
    assert not (ws.root / "reports/runs").exists()


@pytest.mark.parametrize("sources", [True, False])
def test_the_record_holds_the_digest_of_the_code_that_ran(
    second: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sources: bool
) -> None:
    monkeypatch.setattr("deepcustom.pipeline.run.send", lambda *args: "")
    root = second if sources else make_project(tmp_path / "project").root
    with StageRun(Workspace(root), "prepare", "mnist") as stage:
        stage.log({"value": 1.0})
    named = stage.row.files
    own = {PREFIX + path for path in closure("prepare")} | {*named} if sources else set()
    files = {path: file_md5(root / path) for path in own}
    locked = {} if sources else {LOCK: check_lock(root, "prepare")}
    record = RunRecord.read(root / "reports/runs/mnist/prepare")
    assert record.code == code_digest(files | locked)


def test_an_edit_of_what_a_stage_does_not_run_keeps_what_it_had_finished(second: Path) -> None:
    def fingerprint() -> str:
        return StageRun(Workspace(second), "prepare", "mnist").__enter__().checkpoint().fingerprint

    before = fingerprint()
    edit(second / PREFIX / "stages/report.py")
    assert fingerprint() == before


@pytest.mark.parametrize(
    ("name", "text", "more", "refused"),
    [
        ("mine.py", "A = 1", [], True),
        ("mine.py", "A = 1", ["mine.py"], False),
        ("code/mine.py", "A = 1", ["code"], False),
        ("code/mine.py", "A = 1", ["other", "code/other.py"], True),
        ("mine/__init__.py", '"""Says what it is."""', [], False),
        ("mine/__init__.py", "A = 1", [], True),
        (".venv/lib/python3/site-packages/mine.py", "A = 1", [], False),
    ],
)
def test_code_that_dvc_would_not_see_is_refused(
    second: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    text: str,
    more: list[str],
    refused: bool,
) -> None:
    file = second / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text + "\n")
    monkeypatch.syspath_prepend(file.parent.parent if file.stem == "__init__" else file.parent)
    running = RunningCode(second, "train_dgn", more)
    __import__("mine")
    if refused:
        with pytest.raises(InputError, match=f"train_dgn runs {name}, and DVC would not see"):
            running.check()
    else:
        running.check()


def test_code_behind_a_link_is_what_dvc_hashes_there(
    second: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path_factory.mktemp("shared")
    (shared / "mine.py").write_text("A = 1\n")
    (second / "code").symlink_to(shared)
    monkeypatch.syspath_prepend(second / "code")
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    unnamed, named = (RunningCode(second, "train_dgn", more) for more in ([], ["code"]))
    __import__("mine")
    named.check()
    with pytest.raises(InputError, match=r"train_dgn runs code/mine\.py, and DVC would not see"):
        unnamed.check()


def test_a_module_found_by_name_must_stand_in_the_row(
    second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "deepcustom.attacks.losses.nce"
    monkeypatch.setitem(sys.modules, name, None)  # so that it is forgotten again in the end
    monkeypatch.delitem(sys.modules, name)
    unnamed, named = (RunningCode(second, "train_dgn", more) for more in ([], [PREFIX + LOSS]))
    monkeypatch.setattr("deepcustom.attacks.losses.base.REGISTRY", {})
    __import__("deepcustom.attacks.losses.nce")
    named.check()
    with pytest.raises(InputError, match=f"train_dgn runs {PREFIX}{LOSS}, and DVC would not see"):
        unnamed.check()


# A project without the package's sources


def test_the_lock_holds_a_digest_for_each_stage(tmp_path: Path) -> None:
    write_lock(tmp_path)
    lock = read_code_lock(tmp_path)
    assert lock.version == "0.1.0"
    assert set(lock.stages) == {file.stem for file in (PACKAGE / "stages").glob("[!_]*.py")}
    for stage, digest in lock.stages.items():
        assert digest == code_digest(hashes(may_run(stage), PACKAGE))
        assert check_lock(tmp_path, stage) == digest
        assert verify(tmp_path, stage) == code_digest({LOCK: digest})
    assert (tmp_path / LOCK).read_text().startswith("# Made by `deepcustom upgrade`")


def test_the_lock_covers_what_is_found_by_name() -> None:
    both = {"hardening/online.py", LOSS}  # the one is found, and finds the other
    assert may_run("adversarial_train") - set(closure("adversarial_train")) >= both
    assert may_run("prepare") - set(closure("prepare")) >= {"data/mnist.py", "data/cifar10.py"}
    assert may_run("train_dgn") - set(closure("train_dgn")) >= {LOSS, "attacks/losses/lrp.py"}
    for finder, folder in FINDERS.items():
        text = (PACKAGE / finder).read_text()
        assert "import_module" in text
        assert (PACKAGE / folder).is_dir()


def test_every_module_that_finds_others_by_name_is_known() -> None:
    finders = {
        file.relative_to(PACKAGE).as_posix()
        for file in PACKAGE.rglob("*.py")
        if "import_module(" in file.read_text() and file.name != "__init__.py"
    }
    assert finders == set(FINDERS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, f"neither src/deepcustom nor {LOCK} is here"),
        ("<<<<<<< ours\n", f"{LOCK} is not readable"),
        ("- 1\n", f"{LOCK} is not readable"),
        ("stages: {prepare: 1}\n", f"{LOCK} is not readable"),
        ("version: 0.0.9\nstages: {}\n", f"{LOCK} is for version 0.0.9, this is 0.1.0"),
        ("version: 0.1.0\nstages: {}\n", f"{LOCK} is for other code of the stage prepare"),
        ("version: 0.1.0\nstages: {prepare: abc}\n", "is for other code of the stage prepare"),
    ],
)
def test_a_lock_that_does_not_fit_is_refused_in_one_line(
    tmp_path: Path, text: str | None, message: str
) -> None:
    if text:
        (tmp_path / LOCK).write_text(text)
    with pytest.raises(InputError) as caught:
        verify(tmp_path, "prepare")
    assert message in str(caught.value)
    assert "`deepcustom upgrade` writes it, and says what will run again" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_upgrade_says_whose_code_changed(tmp_path: Path) -> None:
    every = update_lock(tmp_path)
    assert {"prepare", "report"} <= set(every)
    assert update_lock(tmp_path) == []
    tree = yaml.safe_load((tmp_path / LOCK).read_text())
    tree["stages"]["attack"] = "0" * 64
    (tmp_path / LOCK).write_text(yaml.safe_dump(tree))
    assert update_lock(tmp_path) == ["attack"]
    (tmp_path / LOCK).write_text("<<<<<<< ours\n")
    assert update_lock(tmp_path) == every
    check_lock(tmp_path, "attack")


def test_upgrade_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lock(tmp_path)
    before = (tmp_path / LOCK).read_bytes()

    def full(*args: object, **kinds: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(code_lock.yaml, "safe_dump", full)
    with pytest.raises(OSError, match="No space"):
        update_lock(tmp_path)
    assert (tmp_path / LOCK).read_bytes() == before


def test_a_project_with_sources_needs_no_lock(second: Path) -> None:
    with pytest.raises(InputError, match=f"needs no {LOCK}"):
        update_lock(second)


@pytest.mark.parametrize("before", [None, "<<<<<<< ours\n"])
def test_the_command_says_what_will_run_again(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    before: str | None,
) -> None:
    root = make_project(tmp_path / "project").root
    monkeypatch.setattr(
        "deepcustom.pipeline.dvc.status", lambda root: {"prepare@mnist": ["changed"]}
    )
    (root / LOCK).unlink()
    for name in (LOCK, "dvc.yaml") if before else ():
        (root / name).write_text(before or "")
    assert call_main(root, "upgrade") == 0
    changed, again = capsys.readouterr().out.splitlines()
    assert re.match(r"other code than before: .*\bprepare\b.*\breport\b", changed)
    assert again == "will run again: prepare@mnist"
    assert check_lock(root, "prepare")
    assert "stages.prepare" in (root / "dvc.yaml").read_text()


# The cuts, by equal bytes

NOTHING = '''
class Nothing(str):
    """Does nothing, whatever is asked of it."""

    def __call__(self, *args, **kinds):
        return self

    def __getattr__(self, name):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *args):
        return False

    def __or__(self, other):
        return other

    def __iter__(self):
        return iter([self, self])


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return Nothing()
'''

PLAIN = """
import shutil
from contextlib import contextmanager


def partial_of(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(path.name + "-new")


def final_of(path):
    return path


def settle(partial, path):
    remove(path)
    partial.rename(path)


@contextmanager
def naming(path, place):
    yield


def refused(path, place, error):
    return None


def check_writable(folder, what):
    pass


@contextmanager
def beside(path):
    yield partial_of(path)
    if partial_of(path).exists():
        settle(partial_of(path), path)


def replace_file(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
"""
OTHERWISE = """
def machine():
    return {}


def packages():
    return {}


def processor():
    return "another"


def checkout(root):
    return root


def git_state(folder):
    return None, None


def trouble(folder):
    return None
"""
UNCHECKED = """
class RunningCode:
    digest = "0" * 64

    def __init__(self, *args):
        pass

    def check(self):
        pass
"""
ERRORS = """
from functools import cache

@cache
def __getattr__(name):
    return type(name, (Exception,), {"exit_code": 2})
"""
UNBOUNDED = re.sub(
    r"\b(gt|ge|lt|le|min_length)=[^,()]+(, )?", "", (PACKAGE / "base/settings.py").read_text()
)
"""Settings of which none is out of range; that they are none the less what was given, test_params holds."""
STAND_INS = {
    "base/errors.py": ERRORS,
    "base/settings.py": UNBOUNDED,
    "base/files.py": PLAIN,
    "pipeline/loaded.py": UNCHECKED,
    "pipeline/provenance.py": OTHERWISE,
    "pipeline/repro.py": "def repro_key():\n    return None\n",
}
"""For cut modules whose answers must have a form: others, or the same in another way."""

TRAINING = (
    "train_target",
    "relevance",
    "suspiciousness",
    "train_dgn nce",
    "generate nce test",
    "attack fgsm test",
    "adversarial_train madry",
    "train_online online",
)
EVALUATE = ("evaluate",)
RUN = """
import importlib, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from deepcustom.pipeline.workspace import Workspace
for words in sys.argv[1:]:
    stage, *rest = words.split()
    importlib.import_module(f"deepcustom.stages.{stage}").run(Workspace(Path.cwd()), "mnist", *rest)
"""
"""Without the command line, which is cut itself."""


def without_cuts(folder: Path, stage: str | None = None) -> Path:
    """A copy of the package in which every module that is cut for a stage does nothing."""
    copy = copy_sources(folder)
    for file in sorted((copy / PREFIX).rglob("*.py")):
        why = cut(file.relative_to(copy / PREFIX).as_posix(), stage)
        if why == CUT[FACE]:
            if "HOMES" not in file.read_text():
                file.write_text("")
        elif why is not None:
            file.write_text(STAND_INS.get(file.relative_to(copy / PREFIX).as_posix(), NOTHING))
    return copy


def small_project(folder: Path) -> Path:
    """One in which little is scored."""
    ws = make_project(folder)
    tree = yaml.safe_load(ws.params.read_text())
    kept = {
        "train_dgn": ["mnist-nce"],
        "generate": ["mnist-nce-test"],
        "attack": ["mnist-fgsm-test"],
        "adversarial_train": ["mnist-madry"],
        "train_online": ["mnist-online"],
    }
    for section, names in kept.items():
        tree[section] = {name: tree[section][name] for name in names}
    tree["evaluate"]["mnist"]["n"] = 20
    tree["evaluate"]["mnist"]["curves"] |= {"n": 8, "radii": [0, 1, 3.3]}
    tree["recipes"]["every-protocol"]["adaptive"]["bank"] = "nce"
    ws.params.write_text(yaml.safe_dump(tree))
    return ws.root


def md5_without_seconds(path: Path) -> str:
    """The hash of a file; of a headline, without what no two runs have in common."""
    if path.parent.name != "headline":
        return file_md5(path)
    headline = json.loads(path.read_text())
    assert headline.pop("seconds") > 0
    return md5(json.dumps(headline).encode()).hexdigest()


def run_with(code: Path, project: Path, stages: tuple[str, ...]) -> dict[str, str]:
    """Run stages with the package of a folder; returns path → hash of what all stages made so far."""
    env = os.environ | {"PYTHONPATH": str(code / "src"), "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", RUN, *stages], cwd=project, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return {
        path.relative_to(project).as_posix(): md5_without_seconds(path)
        for folder in ("data/analysis", "data/adversarial", "models", "reports")
        for path in sorted((project / folder).rglob("*"))
        if path.is_file() and "runs" not in path.parts
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mapping[str, str]]:
    """A project in which the package itself ran, and what it made."""
    project = small_project(tmp_path_factory.mktemp("whole") / "project")
    return project, run_with(ROOT, project, TRAINING)


@pytest.fixture(scope="module")
def stubbed(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """What the same stages make where every cut module does nothing."""
    folder = tmp_path_factory.mktemp("stubbed")
    project = small_project(folder / "project")
    return run_with(without_cuts(folder / "copy"), project, TRAINING)


@pytest.mark.parametrize("name", CUT)
def test_what_is_cut_decides_no_byte(
    whole: tuple[Path, Mapping[str, str]], stubbed: Mapping[str, str], name: str
) -> None:
    """All at once: a byte that one of them decided would differ."""
    place = PACKAGE / name.replace(".", "/")
    modules = [*PACKAGE.rglob(f"{FACE}.py")] if name == FACE else [place, place.with_suffix(".py")]
    assert [file for file in modules if file.exists()]
    assert len(whole[1]) > 15
    assert stubbed == whole[1]


@pytest.fixture(scope="module")
def scored(whole: tuple[Path, Mapping[str, str]]) -> Mapping[str, str]:
    """What evaluate and report make there."""
    return run_with(ROOT, whole[0], (*EVALUATE, "report"))


def test_what_is_cut_for_evaluate_decides_no_byte(
    whole: tuple[Path, Mapping[str, str]], scored: Mapping[str, str], tmp_path: Path
) -> None:
    again = run_with(without_cuts(tmp_path, "evaluate"), whole[0], EVALUATE)
    assert {"reports/results/mnist.csv", "reports/checks/mnist.json"} <= set(again)
    assert {path: scored[path] for path in again} == again


def test_what_is_cut_for_report_decides_no_byte(
    whole: tuple[Path, Mapping[str, str]], scored: Mapping[str, str], tmp_path: Path
) -> None:
    assert {"reports/mnist.md", "reports/cards/mnist/target.md"} <= set(scored)
    assert run_with(without_cuts(tmp_path, "report"), whole[0], ("report",)) == scored


def test_a_change_of_what_is_not_cut_is_noticed(
    whole: tuple[Path, Mapping[str, str]], tmp_path: Path
) -> None:
    """Else equal bytes would show nothing."""
    copy = without_cuts(tmp_path / "copy")  # or the lock would refuse it
    file = copy / PREFIX / "training/compute.py"
    text = file.read_text()
    assert "sha256(" in text
    file.write_text(text.replace("sha256(", "sha224("))
    other = run_with(copy, small_project(tmp_path / "project"), TRAINING[:1])
    assert "models/target/mnist.safetensors" in other
    assert [path for path, md5 in other.items() if whole[1][path] == md5] == [
        path for path in other if path.startswith("reports/metrics/mnist/prepare")
    ]
