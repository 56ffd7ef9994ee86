"""Several processes that train one network: each batch is shared out, and one process writes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from pipeline_fixtures import DATASET, environment, make_project, set_params

from deepcustom.base.cores import cores
from deepcustom.base.errors import ParamsError
from deepcustom.base.settings import ComputeParams
from deepcustom.hardening.ways import WAYS, way
from deepcustom.pipeline.workspace import Workspace
from deepcustom.training.compute import Compute
from deepcustom.training.together import ALONE, Together
from deepcustom.training.weights import load_tensors

PROGRAM = Path(sys.executable).parent / "deepcustom"
WEIGHTS = f"models/target/{DATASET}.safetensors"
RUN = f"reports/runs/{DATASET}/train_target/run.json"
EPOCHS = 8


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("rows", [1, 2, 5, 6, 128])
def test_shares_are_of_one_size_and_hold_every_row(count: int, rows: int) -> None:
    batch = torch.randperm(rows)
    shares = [Together(number, count).share(batch) for number in range(count)]
    assert {len(share) for share in shares} == {-(-rows // count)}
    assert set(torch.cat(shares).tolist()) == set(range(rows))


def test_one_process_has_all() -> None:
    batch = torch.arange(5)
    assert ALONE.share(batch) is batch
    assert ALONE.total({"loss": 2.0}) == {"loss": 2.0}
    assert ALONE.name == ()


class Half(Together):
    """Two processes, of which the other one has zeros everywhere."""

    def average(self, tensors: Iterable[torch.Tensor]) -> None:
        for one in tensors:
            one /= 2


def test_a_gradient_that_one_process_lacks_counts_as_zeros_and_one_that_all_lack_stays_away() -> (
    None
):
    net = torch.nn.ModuleDict({name: torch.nn.Linear(2, 1) for name in ("used", "unused")})
    net["fixed"] = torch.nn.Linear(2, 1).requires_grad_(False)
    net["used"](torch.ones(3, 2)).sum().backward()
    before = [one.grad.clone() for one in net["used"].parameters()]
    Half(0, 2).average_gradients(net)
    after = [one.grad for one in net["used"].parameters()]
    assert all(torch.equal(2 * b, a) for a, b in zip(before, after, strict=True))
    assert all(one.grad is None for name in ("unused", "fixed") for one in net[name].parameters())


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "all"])
def test_a_number_of_devices_is_auto_or_a_count(value: Any) -> None:
    with pytest.raises(ValueError, match="should be auto, or an integer from 1 on"):
        ComputeParams(device="cpu", precision="float32", threads=1, devices=value)


def test_more_gpus_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    params = ComputeParams(device="cuda", precision="float32", threads=1, devices=3)
    with pytest.raises(ParamsError, match=r"compute\.devices is 3, but this machine has 2 GPUs"):
        Compute.of(params, together=True)


def test_more_processes_than_there_are_cores() -> None:
    most = max(cores(), 2)
    params = ComputeParams(device="cpu", precision="float32", threads=1, devices=most + 1)
    with pytest.raises(ParamsError, match=rf"compute\.devices is {most + 1}, .* at most {most}$"):
        Compute.of(params, together=True)


def project(folder: Path, devices: int | None, **target: Any) -> Workspace:
    """A project of digits, whose networks are trained by so many processes."""
    ws = make_project(folder)
    training = {"epochs": EPOCHS, "batch_size": 50, "learning_rate": 3e-3, **target}
    compute = {"threads": 1} | ({} if devices is None else {"devices": devices})
    set_params(ws.root, {"compute": compute, "train_target": {DATASET: training}})
    return ws


@contextmanager
def training(ws: Workspace) -> Iterator[subprocess.Popen[str]]:
    """The stage train_target, in a process of its own."""
    with environment(OMP_NUM_THREADS="1", DVC_STAGE=f"train_target@{DATASET}"):
        process = subprocess.Popen(
            [PROGRAM, "train_target", "--subject", DATASET],
            cwd=ws.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def train(ws: Workspace) -> str:
    """Train to the end; what was printed."""
    with training(ws) as process:
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-3000:]
    return out + err


def history(ws: Workspace) -> dict[str, list[float]]:
    found: dict[str, list[float]] = json.loads((ws.root / RUN).read_text())["history"]
    return found


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, str]:
    """A network that two processes trained, and what they printed."""
    ws = project(tmp_path_factory.mktemp("two") / "project", 2)
    return ws, train(ws)


def test_two_processes_train_a_network_as_good_as_one_does(
    two: tuple[Workspace, str], tmp_path: Path
) -> None:
    one = project(tmp_path / "one", None)
    train(one)
    alone, shared = history(one), history(two[0])
    # This network has neither noise nor batch norm: only the order of sums differs.
    assert shared["loss"] == pytest.approx(alone["loss"], rel=1e-3)
    assert shared["val_accuracy"] == pytest.approx(alone["val_accuracy"], abs=0.03)
    assert shared["val_accuracy"][-1] > 0.4


def test_one_process_speaks_and_writes(two: tuple[Workspace, str]) -> None:
    ws, printed = two
    assert printed.count(f"train_target@{DATASET}: {EPOCHS}/{EPOCHS}") == 1
    assert "Lightning" not in printed
    assert "backend" not in printed
    assert json.loads((ws.root / RUN).read_text())["machine"]["processes"] == "2"
    assert [path.name for path in (ws.root / "models/target").iterdir()] == [Path(WEIGHTS).name]
    assert [path.name for path in (ws.root / RUN).parent.parent.iterdir()] == ["train_target"]


def addresses(*processes: psutil.Process) -> set[str]:
    """The addresses of this machine that processes listen or talk on; there is one at least."""
    found = {
        one.laddr.ip.removeprefix("::ffff:")
        for member in processes
        for one in member.net_connections("inet")
        if one.status in ("LISTEN", "ESTABLISHED")
    }
    assert found
    return found


@pytest.mark.parametrize("who", ["the one that writes", "a helper"])
def test_it_goes_on_after_the_end_of_either_process(
    who: str, two: tuple[Workspace, str], tmp_path: Path
) -> None:
    ws = project(tmp_path / "killed", 2)
    kept = ws.checkpoint("train_target", DATASET) / "epoch.safetensors"
    with training(ws) as process:
        first = psutil.Process(process.pid)
        while not kept.exists() and process.poll() is None:
            time.sleep(0.002)
        helpers = [child for child in first.children() if "train_target" in child.cmdline()]
        assert len(helpers) == 1
        assert addresses(first, *helpers) <= {"127.0.0.1", "::1"}
        (first if who == "the one that writes" else helpers[0]).kill()
        _, err = process.communicate(timeout=60)
        psutil.wait_procs(helpers, timeout=30)
        assert not any(one.is_running() and one.status() != "zombie" for one in helpers)
    assert process.returncode != 0
    assert "Traceback" not in err
    if who == "a helper":
        assert "a process that trained together with this one has ended" in err
    assert not (ws.root / WEIGHTS).exists()
    assert load_tensors(kept)
    assert "resumed after epoch" in train(ws)
    assert (ws.root / WEIGHTS).read_bytes() == (two[0].root / WEIGHTS).read_bytes()


def test_a_way_of_another_library_trains_in_one_process() -> None:
    assert {name for name in WAYS if not way(name).together} == {"art"}
