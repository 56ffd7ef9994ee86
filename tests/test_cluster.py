"""Tasks on a Ray cluster: the bytes of a run in one process, whatever happens to nodes meanwhile."""

from __future__ import annotations

import io
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import yaml
from cluster_fixtures import Nodes, free_port, kill_all, nodes
from pipeline_fixtures import (
    DATASET,
    ROOT,
    call_main,
    environment,
    keep_rows,
    make_project,
    one_thread,
    set_params,
    write_params,
)

from deepcustom.base.errors import DeepCustomError, InputError
from deepcustom.base.params import validate
from deepcustom.base.settings import ComputeParams, EngineParams
from deepcustom.pipeline import workspace
from deepcustom.pipeline.cluster import connection, idle, tasks
from deepcustom.pipeline.cluster.seal import Seal
from deepcustom.pipeline.cluster.watch import ATTEMPTS, Standing, Watch
from deepcustom.pipeline.cluster.worker import THREADS, unpack
from deepcustom.pipeline.doctor import project as doctor
from deepcustom.pipeline.workspace import Workspace
from deepcustom.training.engine import Task

PROGRAM = Path(sys.executable).parent / "deepcustom"
BANK = f"models/dgn/{DATASET}/nce.safetensors"
STAGE = "train_dgn"
RUN = f"reports/runs/{DATASET}/{STAGE}/nce/run.json"


# Without a cluster


def test_other_code_or_other_packages_are_told_apart() -> None:
    files = {"a.py": b"x = 1\n", "b.yaml": b"b: 1\n"}
    here = Seal.of(files)
    assert here.differs(Seal.of(dict(reversed(files.items())))) is None
    assert here.differs(Seal.of(files | {"b.yaml": b"b: 2\n"})) == "other code"
    assert here.differs(Seal.of(files | {"c.py": b""})) == "other code"
    older = Seal(here.code, {**here.packages, "torch": "1.0"})
    assert here.differs(older) == f"torch 1.0 instead of {here.packages['torch']}"


def watch(patience: float = 60) -> tuple[Watch, list[tuple[str, int]]]:
    """A watch of three tasks, and what it tells."""
    told: list[tuple[str, int]] = []

    def advance(note: str = "", steps: int = 1, *, resumed: bool = False) -> None:
        told.append((note, steps))

    found = Watch(3, advance, patience)
    found.names |= {number: f"class {number}" for number in range(3)}
    return found, told


def test_progress_tells_tasks_done_running_and_lost() -> None:
    one, told = watch()
    one.look({0: Standing("w", "a"), 1: Standing("x", "b")}, 3)
    assert not told
    one.look({0: Standing("w", "a", 2, "loss 1"), 1: Standing("x", "b", 1, "loss 2")}, 3)
    assert told == [("loss 1  (0 of 3 tasks done, 2 running)", 1)]
    one.end(0, Standing("w", "a", 2, "loss 1"), 2)
    assert told[1:] == [("loss 1  (1 of 3 tasks done, 1 running)", 1)]
    told.clear()
    # The second is lost, begins again, and tells nothing new until it is further than before.
    one.look({1: Standing("y", "c", 1, "loss 2")}, 2)
    assert not told
    one.look({1: Standing("y", "c", 3, "loss 3")}, 2)
    assert told == [("loss 3  (1 of 3 tasks done, 1 running, 1 lost)", 2)]
    # What the lost one still tells takes nothing back, and counts no second time.
    one.look({1: Standing("x", "b", 2, "loss 2")}, 2)
    one.end(1, Standing("y", "c", 3, "loss 3"), 1)
    # Nothing was heard of the third before its end.
    one.end(2, Standing("z", "a", 1, "loss 4"), 0)
    assert told[-1] == ("loss 4  (3 of 3 tasks done, 0 running, 1 lost)", 1)
    assert sum(steps for _, steps in told) == 4


def test_a_task_that_falls_silent_begins_again_but_not_for_ever() -> None:
    one, told = watch(patience=0.01)
    one.look({0: Standing("w", "a")}, 3)
    time.sleep(0.02)
    assert one.silent() == [0]
    one.lose(0)
    assert told == [("class 0 gave no sign of life on node a for 0 s: it begins again", 0)]
    assert one.silent() == []
    for _ in range(ATTEMPTS - 2):
        one.look({0: Standing("x", "b")}, 3)
        one.lose(0)
    one.look({0: Standing("x", "b")}, 3)
    with pytest.raises(DeepCustomError, match=rf"class 0 .* after {ATTEMPTS - 1} other attempts"):
        one.lose(0)


def test_what_cannot_travel_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def put(what: Any) -> Any:
        raise TypeError("cannot pickle 'ConfigModuleInstance' object")

    # Not Ray itself: it reads variables of the environment when it is imported, and other tests set them.
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(put=put))
    with pytest.raises(
        InputError, match=r"cannot be sent: .*ConfigModule.* set engine\.kind to local"
    ):
        tasks._put(object())


def test_news_of_a_task_that_has_ended_does_not_bring_it_back() -> None:
    one, told = watch(patience=0.01)
    one.look({0: Standing("w", "a")}, 3)
    one.end(0, Standing("w", "a", 4, "loss 1"), 2)
    one.look({0: Standing("w", "a", 4, "loss 1")}, 2)
    assert told == [("loss 1  (1 of 3 tasks done, 0 running)", 4)]
    time.sleep(0.02)
    assert one.silent() == []


def test_a_task_that_hangs_before_it_says_anything_is_noticed_once_there_is_room() -> None:
    one, told = watch(patience=0.01)
    for _ in range(3):
        one.idle(False, [0])
        time.sleep(0.02)
    assert one.silent() == [], "it may be waiting for its turn"
    for _ in range(3):
        one.idle(True, [0])
        time.sleep(0.02)
    assert one.silent() == [0]
    one.lose(0)
    assert told == [("class 0 gave no sign of life for 0 s: it begins again", 0)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, bytes]:
    """A project of digits with a trained target network, and its bank as one process trains it."""
    ws = make_project(tmp_path_factory.mktemp("cluster") / "project")
    budget = {"epochs": 4, "batch_size": 10}
    set_params(
        ws.root,
        {"compute": {"threads": 1}, STAGE: {f"{DATASET}-nce": {"training": budget}}},
    )
    with environment(OMP_NUM_THREADS="1"):
        assert call_main(ws.root, "train_target", "--subject", DATASET) == 0
        assert call_main(ws.root, STAGE, "--subject", DATASET, "--bank", "nce") == 0
    return ws, (ws.root / BANK).read_bytes()


def on_ray(project: tuple[Workspace, bytes], folder: Path, **engine: Any) -> Workspace:
    """A copy of the project, without its bank, that does tasks on Ray."""
    shutil.copytree(project[0].root, folder, symlinks=True)
    (folder / BANK).unlink()
    set_params(folder, {"engine": {"kind": "ray", **engine}})
    return Workspace(folder)


@pytest.mark.parametrize(
    ("engine", "says"),
    [
        ({"address": "127.0.0.1:1"}, "at 127.0.0.1:1 (engine.address): Connection refused"),
        ({"address": "here"}, "engine.address: should be auto, or HOST:PORT"),
        ({"address": "here:99999"}, "engine.address: should be auto, or HOST:PORT"),
        ({"address": "ray://here:10001"}, "engine.address: should be auto, or HOST:PORT"),
        ({"kind": "dask"}, "engine.kind"),
        ({"patience": 0}, "engine.patience"),
    ],
)
def test_a_cluster_that_is_not_there_is_one_line(
    engine: dict[str, Any],
    says: str,
    project: tuple[Workspace, bytes],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ws = on_ray(project, tmp_path / "p")
    set_params(ws.root, {"engine": engine})
    assert call_main(ws.root, STAGE, "--subject", DATASET, "--bank", "nce") == 2
    err = capsys.readouterr().err
    assert says in err
    assert "Traceback" not in err


def test_an_address_that_the_environment_names_is_held_to_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://here:10001")
    with pytest.raises(
        InputError, match=r"^RAY_ADDRESS should be auto, or HOST:PORT .*\(found 'ray:"
    ):
        connection.check_reachable(EngineParams(kind="ray"))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"compute": {"devices": 9999}}, "compute.devices is 9999, but this machine has"),
        (
            {"engine": {"address": "127.0.0.1:1"}},
            "at 127.0.0.1:1 (engine.address): Connection refused",
        ),
        ({"engine": {"address": "here:99999"}}, "engine.address: should be auto, or HOST:PORT"),
    ],
)
def test_repro_and_the_doctor_find_it_before_a_stage_starts(
    settings: dict[str, Any],
    says: str,
    project: tuple[Workspace, bytes],
    tmp_path: Path,
) -> None:
    """DVC removes what a stage is about to make, so the stage would find it too late."""
    ws = on_ray(project, tmp_path / "p")
    set_params(ws.root, settings)
    done = subprocess.run([PROGRAM, "repro"], cwd=ws.root, capture_output=True, text=True)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Running stage" not in done.stdout + done.stderr
    found = doctor.params(ws.root)
    assert (found.verdict, found.hinders) == ("cannot", True)
    assert says in found.says


def test_ray_that_cannot_be_loaded_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # importing it raises ImportError
    with pytest.raises(InputError, match=r"engine\.kind is ray, and Ray cannot be loaded: "):
        connection._connect(EngineParams(kind="ray"))


def test_ray_that_is_not_installed_is_one_line(
    project: tuple[Workspace, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ws = on_ray(project, tmp_path / "p")
    monkeypatch.setattr(connection, "find_spec", lambda name: None)
    assert call_main(ws.root, STAGE, "--subject", DATASET, "--bank", "nce") == 2
    assert "Ray is not installed: pip install 'deepcustom[ray]'" in capsys.readouterr().err


# With one


@pytest.fixture(scope="module")
def two() -> Iterator[Nodes]:
    """Two nodes of one core each."""
    with nodes(2) as found:
        yield found


@contextmanager
def training(ws: Workspace, of: Nodes) -> Iterator[subprocess.Popen[str]]:
    """The stage that trains the bank, in a process of its own."""
    with environment(OMP_NUM_THREADS="1", DVC_STAGE=f"{STAGE}@{DATASET}-nce", **of.environ):
        process = subprocess.Popen(
            [PROGRAM, STAGE, "--subject", DATASET, "--bank", "nce"],
            cwd=ws.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def ended(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out[-3000:]
    return out


def until_kept(ws: Workspace, process: subprocess.Popen[str], label: int | None = None) -> None:
    """Wait until a class, or any of them, is finished."""
    name = "class_*.safetensors" if label is None else f"class_{label}.safetensors"
    while not list(ws.checkpoint(STAGE, f"{DATASET}-nce").glob(name)) and process.poll() is None:
        time.sleep(0.01)


def test_the_bank_is_that_of_one_process(
    project: tuple[Workspace, bytes], two: Nodes, tmp_path: Path
) -> None:
    ws = on_ray(project, tmp_path / "p", address=two.address)
    with training(ws, two) as process:
        out = ended(process)
    assert (ws.root / BANK).read_bytes() == project[1]
    assert "of 10 tasks done" in out
    record = json.loads((ws.root / RUN).read_text())
    found = json.loads(record["machine"]["nodes"])
    assert len(found) == 2
    assert {one["threads"] for one in found.values()} == {"1"}
    assert "another kind of processor" not in out
    before = json.loads((project[0].root / RUN).read_text())
    assert record["history"] == before["history"]
    assert record["metrics"] == before["metrics"]


def test_a_set_is_that_of_one_process(
    project: tuple[Workspace, bytes], two: Nodes, tmp_path: Path
) -> None:
    words = ("generate", "--bank", "nce", "--subject", DATASET, "--split", "test")
    ws = on_ray(project, tmp_path / "p", address=two.address)
    (ws.root / BANK).write_bytes(project[1])
    # Of more than one chunk: it has ten batches.
    set_params(ws.root, {"generate": {f"{DATASET}-nce-test": {"batch_size": 2}}})
    local = Workspace(tmp_path / "local")
    shutil.copytree(ws.root, local.root, symlinks=True)
    set_params(local.root, {"engine": {"kind": "local"}})
    assert call_main(local.root, *words) == 0
    with environment(OMP_NUM_THREADS="1", **two.environ):
        done = subprocess.run([PROGRAM, *words], cwd=ws.root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    made = f"data/adversarial/{DATASET}/test/nce"
    assert files_in(ws.root / made) == files_in(local.root / made)
    assert "of 6 tasks done" in done.stdout + done.stderr


def test_an_attack_and_an_evaluation_are_those_of_one_process(
    project: tuple[Workspace, bytes], two: Nodes, tmp_path: Path
) -> None:
    local = on_ray(project, tmp_path / "local")
    (local.root / BANK).write_bytes(project[1])
    keep_rows(local.root, ("madry",), ("fgsm",))
    over = {
        "engine": {"kind": "local"},
        "adversarial_train": {f"{DATASET}-madry": {"training": {"epochs": 1}}},
        "evaluate": {DATASET: {"n": 16, "adaptive": {"bank": "nce"}}},
    }
    set_params(local.root, over)
    with one_thread():
        assert (
            call_main(local.root, "adversarial_train", "--subject", DATASET, "--network", "madry")
            == 0
        )
    away = Workspace(tmp_path / "away")
    shutil.copytree(local.root, away.root, symlinks=True)
    set_params(away.root, {"engine": {"kind": "ray", "address": two.address}})
    attack = ("attack", "--attack", "fgsm", "--split", "test")
    for words, count in ((attack, 1), (("evaluate",), 2)):
        command = (*words, "--subject", DATASET)
        with one_thread():
            assert call_main(local.root, *command) == 0
        with environment(OMP_NUM_THREADS="1", **two.environ):
            done = subprocess.run(
                [PROGRAM, *command], cwd=away.root, capture_output=True, text=True
            )
        assert done.returncode == 0, done.stderr[-3000:]
        assert f"of {count} tasks done" in done.stdout + done.stderr
    made = f"data/adversarial/{DATASET}/test/fgsm"
    assert files_in(away.root / made) == files_in(local.root / made)
    for where in (workspace.results, workspace.checks, workspace.curves, workspace.pairs):
        path = where(DATASET)
        assert (away.root / path).read_bytes() == (local.root / path).read_bytes(), path


TOLD = {
    "generator": "conditional",
    "output": "perturbation",
    "reads": f"models/target/{DATASET}.safetensors",
}


@pytest.mark.parametrize(
    ("words", "made"),
    [
        (("train_target",), [f"models/target/{DATASET}.safetensors"]),
        ((STAGE, "--bank", "nce"), [BANK]),
        (
            ("adversarial_train", "--network", "madry"),
            [f"models/robust/{DATASET}/madry.safetensors"],
        ),
        (
            ("train_online", "--network", "online"),
            [
                f"models/robust/{DATASET}/online.safetensors",
                f"models/dgn/{DATASET}/online.safetensors",
            ],
        ),
    ],
)
def test_the_training_of_one_network_is_a_task_of_a_cluster_that_is_named(
    words: tuple[str, ...],
    made: list[str],
    project: tuple[Workspace, bytes],
    two: Nodes,
    tmp_path: Path,
) -> None:
    local = on_ray(project, tmp_path / "local")
    few = {"training": {"epochs": 2}}
    rows = {
        "train_target": {DATASET: {"epochs": 2}},
        STAGE: {f"{DATASET}-nce": TOLD | few},
        "adversarial_train": {f"{DATASET}-madry": few},
        "train_online": {f"{DATASET}-online": few},
    }
    set_params(local.root, {"engine": {"kind": "local"}, **rows})
    away = Workspace(tmp_path / "away")
    shutil.copytree(local.root, away.root, symlinks=True)
    set_params(away.root, {"engine": {"kind": "ray", "address": two.address}})
    command = (words[0], "--subject", DATASET, *words[1:])
    with one_thread():
        assert call_main(local.root, *command) == 0
    with environment(OMP_NUM_THREADS="1", **two.environ):
        done = subprocess.run([PROGRAM, *command], cwd=away.root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "of 1 tasks done" in done.stdout + done.stderr
    for path in made:
        assert (away.root / path).read_bytes() == (local.root / path).read_bytes(), path


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_driver_that_is_killed_goes_on_with_what_is_left(
    project: tuple[Workspace, bytes], two: Nodes, tmp_path: Path
) -> None:
    ws = on_ray(project, tmp_path / "p", address=two.address)
    with training(ws, two) as process:
        until_kept(ws, process)
        process.kill()
    kept = {
        path.name for path in ws.checkpoint(STAGE, f"{DATASET}-nce").glob("class_*.safetensors")
    }
    assert kept
    assert not (ws.root / BANK).exists()
    with training(ws, two) as process:
        out = ended(process)
    assert "resumed after class" in out
    assert f"of {10 - len(kept)} tasks done" in out
    assert (ws.root / BANK).read_bytes() == project[1]


def test_the_board_may_die(project: tuple[Workspace, bytes], two: Nodes, tmp_path: Path) -> None:
    """The process to which tasks tell how they stand: it holds no work, so none is lost."""
    ws = on_ray(project, tmp_path / "p", address=two.address)
    with training(ws, two) as process:
        until_kept(ws, process)
        boards = [one for place in (0, 1) for one in two.workers(place, "ray::Board")]
        max(
            boards, key=psutil.Process.create_time
        ).kill()  # that of an earlier test may still be there
        out = ended(process)
    assert "10 of 10 tasks done" in out
    assert "lost" not in out
    assert (ws.root / BANK).read_bytes() == project[1]


def test_a_task_that_hangs_is_noticed_and_begins_again(
    project: tuple[Workspace, bytes], two: Nodes, tmp_path: Path
) -> None:
    ws = on_ray(project, tmp_path / "p", address=two.address, patience=10)
    set_params(ws.root, {STAGE: {f"{DATASET}-nce": {"training": {"epochs": 4}}}})
    begun = time.time()
    with training(ws, two) as process:
        stopped: list[Any] = []
        while not stopped and process.poll() is None:
            # Those of earlier tests may still be about to end.
            stopped = [one for one in two.workers(1) if one.create_time() > begun]
            time.sleep(0.01)
        stopped[0].send_signal(signal.SIGSTOP)
        out = ended(process)
        if stopped[0].is_running():
            stopped[0].kill()
    assert "gave no sign of life" in out
    assert (ws.root / BANK).read_bytes() == project[1]


def test_what_a_cleaner_took_from_the_code_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"deepcustom/__init__.py": b"", "deepcustom/a/b.py": b"B = 1\n", "own/c.py": b"C = 2\n"}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        for name, content in files.items():
            made.writestr(name, content)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    for name in THREADS:
        monkeypatch.setenv(name, "1")
    unpack(archive.getvalue(), [])
    (folder,) = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o077 == 0
    shutil.rmtree(folder / "deepcustom/a")
    (folder / "own/c.py").unlink()
    unpack(archive.getvalue(), [])
    assert [*tmp_path.iterdir()] == [folder]
    there = (path for path in folder.rglob("*") if path.is_file())
    assert {path.relative_to(folder).as_posix(): path.read_bytes() for path in there} == files
    assert sys.path[0] == str(folder)


@pytest.mark.parametrize(
    ("seal", "says"),
    [
        (lambda here: Seal("other", here.packages), "has other code: its results would not be"),
        (
            lambda here: Seal(here.code, {**here.packages, "torch": "1.0"}),
            r"has torch \S+ instead of 1\.0: its results would not be",
        ),
        (lambda here: Seal(here.code, {"no-such-package": "1.0"}), "lacks no-such-package 1.0"),
    ],
)
def test_foreign_code_is_refused(
    seal: Callable[[Seal], Seal],
    says: str,
    project: tuple[Workspace, bytes],
    two: Nodes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = Seal.of_code
    compute = {"device": "cpu", "precision": "float32", "threads": 1}
    with environment(**two.environ):
        engine = validate(EngineParams, {"kind": "ray", "address": two.address}, "engine")
        params = validate(ComputeParams, compute, "compute")
        monkeypatch.setattr(Seal, "of_code", classmethod(lambda cls, code: seal(real(code))))
        with (
            connection.cluster(engine, params, project[0].root, []) as found,
            pytest.raises(InputError, match=f"node .* {says}"),
        ):
            list(found.do(None, [Task("one", idle.nothing)], lambda *a, **k: None))


def test_a_node_that_is_killed_costs_only_its_tasks(
    project: tuple[Workspace, bytes], tmp_path: Path
) -> None:
    with nodes(2) as own:
        ws = on_ray(project, tmp_path / "p", address=own.address)
        with training(ws, own) as process:
            until_kept(ws, process)
            while (
                not own.workers(1) and process.poll() is None
            ):  # a busy machine: it has yet to begin
                time.sleep(0.1)
            assert process.poll() is None
            own.kill(1)
            own.add()
            out = ended(process)
    assert "of 10 tasks done" in out
    assert (ws.root / BANK).read_bytes() == project[1]


def test_the_lines_of_the_docs_make_a_cluster(
    project: tuple[Workspace, bytes], tmp_path: Path
) -> None:
    text = (ROOT / "docs/cluster.md").read_text()
    (block,) = re.findall(r"```sh\n(export RAY_AUTH_MODE.*?)```", text, re.DOTALL)
    lines = block.splitlines()
    assert len(lines) <= 10
    assert lines[-2:] == ["dvc repro", "ray stop"]
    token, port = secrets.token_hex(32), str(free_port())
    # The same but for port and token, and one stage; `ray stop` would end the clusters of others too.
    block = "\n".join(lines[:-2]).replace("6379", port)
    block = re.sub(r"RAY_AUTH_TOKEN=\$\(.*?\)\n", f"RAY_AUTH_TOKEN={token}\n", block)
    assert token in block
    ws = on_ray(project, tmp_path / "p")
    tree = yaml.safe_load(ws.params.read_text())
    del tree["engine"]
    write_params(ws.root, tree)
    stage = f"{PROGRAM} {STAGE} --subject {DATASET} --bank nce"
    path = f"{PROGRAM.parent}:{os.environ['PATH']}"
    try:
        with environment(OMP_NUM_THREADS="1", PATH=path):
            done = subprocess.run(
                ["sh", "-ec", f"{block}\n{stage}"],
                cwd=ws.root,
                capture_output=True,
                text=True,
                timeout=300,
            )
        with environment(
            OMP_NUM_THREADS="1", RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32)
        ):
            stranger = subprocess.run(
                stage.split(), cwd=ws.root, capture_output=True, text=True, timeout=300
            )
    finally:
        kill_all(token)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(json.loads((ws.root / RUN).read_text())["machine"]["nodes"])
    assert (ws.root / BANK).read_bytes() == project[1]
    assert stranger.returncode == 2, stranger.stderr[-3000:]
    (said,) = [line for line in stranger.stderr.splitlines() if line.startswith("error:")]
    assert f"no Ray cluster takes this process in at 127.0.0.1:{port} (is its token" in said
    assert "Traceback" not in stranger.stderr
