"""Runs in MLflow while their stage is under way, and how they end."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pipeline_fixtures import call_main, environment, make_project, merged, tiny_params
from test_record import record
from torch import nn
from tracking_fixtures import all_runs, client

from deepcustom.base.errors import DivergenceError, TrackingError
from deepcustom.base.hashes import dvc_md5
from deepcustom.tracking import live, store
from deepcustom.tracking.curves import Curves
from deepcustom.tracking.ended import FOLDER
from deepcustom.tracking.live import Facts, Live, followed
from deepcustom.tracking.store import send, sync
from deepcustom.tracking.underway import current
from deepcustom.training.checkpoint import Checkpoint
from deepcustom.training.epochs import History, save_epoch

pytestmark = pytest.mark.usefixtures("own_store", "quick")

PARAMS = {"train_dgn.mnist-lrp": {"optimizer": {"lr": 0.1}}}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at once, and often."""
    monkeypatch.setattr(live, "BEGIN_AFTER", 0.05)
    monkeypatch.setattr(live, "EVERY", 0.05)
    monkeypatch.setattr(live, "SHARE", 1e9)


def facts(root: Path, item: str = "mnist-lrp") -> Facts:
    place = root / ".checkpoints/train_dgn" / item
    return Facts("train_dgn", item, "mnist", PARAMS, None, place)


def epochs(root: Path, history: History, part: str = "", item: str = "mnist-lrp") -> None:
    """What a training keeps after an epoch."""
    net = nn.Linear(1, 1)
    checkpoint = Checkpoint(facts(root, item).checkpoint, "f")
    place = checkpoint.part(part) if part else checkpoint
    save_epoch(place, net, torch.optim.Adam(net.parameters()), 1, history)


def until(true: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Wait until something is the case."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)
    return found


def shown(root: Path, name: str = "loss") -> list[tuple[int, float]]:
    """The points of a curve in the only run."""
    runs = all_runs(root)
    points = client(root).get_metric_history(runs[0].info.run_id, name) if runs else []
    return sorted((point.step, point.value) for point in points)


def finished(root: Path, **changes: Any) -> Path:
    """The record that the stage writes at its end."""
    folder = root / "runs/a"
    record(**{"figures": [], **changes}).write(folder)
    return folder


def marks(root: Path) -> list[Path]:
    return list((root / FOLDER).glob("*"))


# The curves in a checkpoint


def test_curves_have_the_names_of_the_record_and_every_digit(tmp_path):
    curves = Curves(facts(tmp_path).checkpoint, 0)
    assert curves.new() == []
    epochs(tmp_path, {"loss": [1 / 3]})
    epochs(tmp_path, {"loss": [0.1, 0.2]}, part="class_1")
    kept = Checkpoint(facts(tmp_path).checkpoint, "f")
    kept.save("class_0", {"a": torch.zeros(1)}, {"history": [["loss", [1e-7, 2.0]]]})
    found = sorted(curves.new())
    assert found == [
        ("class_0/loss", 1, 1e-7),
        ("class_0/loss", 2, 2.0),
        ("class_1/loss", 1, 0.1),
        ("class_1/loss", 2, 0.2),
        ("loss", 1, 1 / 3),
    ]
    assert curves.new() == []
    epochs(tmp_path, {"loss": [1 / 3, 0.25], "val": [0.5, 0.75]})
    assert sorted(curves.new()) == [("loss", 2, 0.25), ("val", 1, 0.5), ("val", 2, 0.75)]
    kept.save("class_1", {"a": torch.zeros(1)}, {"history": [["loss", [0.1, 0.2, 0.3]]]})
    assert curves.new() == [("class_1/loss", 3, 0.3)]


def test_what_an_earlier_run_left_is_passed_over(tmp_path):
    epochs(tmp_path, {"loss": [9.0]})
    curves = Curves(facts(tmp_path).checkpoint, time.time() + 0.01)
    assert curves.new() == []
    time.sleep(0.05)
    epochs(tmp_path, {"loss": [9.0, 8.0]})
    assert curves.new() == [("loss", 1, 9.0), ("loss", 2, 8.0)]


@pytest.mark.parametrize(
    "text", [b"", b"\xff" * 40, b"\x02\0\0\0\0\0\0\0{}", b"\x02\0\0\0\0\0\0\0[]"]
)
def test_a_file_that_says_nothing_is_passed_over(tmp_path, text):
    place = facts(tmp_path).checkpoint
    place.mkdir(parents=True)
    (place / "epoch.safetensors").write_bytes(text)
    assert Curves(place, 0).new() == []


# A stage that ends well


def test_where_runs_are_sent_later_none_is_begun(root, monkeypatch):
    monkeypatch.setenv(store.LATER, "1")
    with followed(root, facts(root)):
        epochs(root, {"loss": [0.5]})
        assert current.run is None
        time.sleep(0.3)
        assert send(finished(root), root) == ""
    assert all_runs(root) == []
    monkeypatch.delenv(store.LATER)
    (one,) = sync(root / "runs", root)
    assert one.new


def test_metrics_flow_and_the_record_completes_the_run(root):
    begin = time.time()
    with followed(root, facts(root)):
        epochs(root, {"loss": [1.0]})
        until(lambda: shown(root) == [(1, 1.0)])
        (run,) = all_runs(root)
        assert (run.info.run_name, run.info.status) == ("train_dgn@mnist-lrp", "RUNNING")
        assert abs(run.info.start_time / 1000 - begin) < 5
        epochs(root, {"loss": [1.0, 0.5]})
        until(lambda: shown(root) == [(1, 1.0), (2, 0.5)])
        assert any(name.startswith("system/cpu") for name in all_runs(root)[0].data.metrics)
        folder = finished(root, history={"loss": [1.0, 0.5, 0.25]}, metrics={"loss": 0.25})
        sent = send(folder, root)
    (after,) = all_runs(root)
    assert after.info.run_id == sent == run.info.run_id
    assert after.info.status == "FINISHED"
    assert shown(root) == [(1, 1.0), (2, 0.5), (3, 0.25)]
    assert after.data.params["optimizer.lr"] == "0.1"
    assert after.data.tags["deepcustom.run_key"] == "0123456789abcdef" * 2
    assert float(after.data.tags["deepcustom.sending_seconds"]) > 0
    assert marks(root) == []
    assert current.run is None
    assert [one.new for one in sync(root / "runs", root)] == [False]
    assert shown(root) == [(1, 1.0), (2, 0.5), (3, 0.25)]


def test_a_run_that_shows_something_else_than_the_record_is_replaced(root):
    with followed(root, facts(root)):
        epochs(root, {"loss": [7.0]})
        until(lambda: shown(root) == [(1, 7.0)])
        (run,) = all_runs(root)
        sent = send(finished(root, history={"loss": [1.0, 0.5]}, metrics={"loss": 0.5}), root)
    assert sent != run.info.run_id
    assert shown(root) == [(1, 1.0), (2, 0.5)]


def test_a_quick_stage_makes_its_run_at_the_end_alone(root, monkeypatch):
    monkeypatch.setattr(live, "BEGIN_AFTER", 10.0)
    with followed(root, facts(root)):
        epochs(root, {"loss": [1.0]})
        send(finished(root), root)
    (run,) = all_runs(root)
    assert "deepcustom.live" not in run.data.tags


def test_stages_at_once_have_a_run_each(root):
    with followed(root, facts(root)):
        other = Live(root, facts(root, "mnist-nce"))
        other.start()
        epochs(root, {"loss": [1.0]})
        epochs(root, {"loss": [2.0]}, item="mnist-nce")
        until(lambda: len([run for run in all_runs(root) if "loss" in run.data.metrics]) == 2)
        assert len(marks(root)) == 4
        other.fail(KeyboardInterrupt())
        other.stop()
        send(finished(root, history={"loss": [1.0, 0.5]}), root)
    ends = {
        run.info.run_name: (run.info.status, run.data.metrics["loss"]) for run in all_runs(root)
    }
    assert ends == {
        "train_dgn@mnist-lrp": ("FINISHED", 0.25),
        "train_dgn@mnist-nce": ("KILLED", 2.0),
    }
    assert marks(root) == []


def test_metrics_of_the_machine_can_be_turned_off(root, monkeypatch):
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
    with followed(root, facts(root)):
        epochs(root, {"loss": [1.0]})
        until(lambda: shown(root) == [(1, 1.0)])
    assert list(all_runs(root)[0].data.metrics) == ["loss"]


# A stage that does not


@pytest.mark.parametrize(
    ("error", "status", "why"),
    [
        (DivergenceError("the loss is nan"), "FAILED", "the loss is nan"),
        (RuntimeError("of /home/me"), "FAILED", "RuntimeError"),
        (KeyboardInterrupt(), "KILLED", "interrupted"),
    ],
)
def test_a_run_that_dies_says_so_and_keeps_its_curve(root, error, status, why):
    def dies() -> None:
        with followed(root, facts(root)):
            epochs(root, {"loss": [1.0]})
            until(lambda: shown(root) == [(1, 1.0)])
            raise error

    with pytest.raises(type(error)):
        dies()
    (run,) = all_runs(root)
    assert run.info.status == status
    assert run.info.end_time >= run.info.start_time
    assert run.data.tags["deepcustom.error"] == why
    assert run.data.params == {"train_dgn.optimizer.lr": "0.1"}
    assert marks(root) == []


HANGS = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_tracking_live as t
t.live.BEGIN_AFTER = t.live.EVERY = 0.05
t.live.SHARE = 1e9
root = Path(sys.argv[1])
with t.followed(root, t.facts(root)):
    t.epochs(root, {"loss": [1.0]})
    time.sleep(600)
"""


@contextmanager
def hanging(root: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose stage never ends, and whose run MLflow shows."""
    command = [sys.executable, "-c", HANGS, str(root), str(Path(__file__).parent)]
    process = subprocess.Popen(command)
    try:
        until(lambda: shown(root) == [(1, 1.0)])
        until(lambda: marks(root))
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("who", ["sync", "a quick stage", "a long stage"])
def test_a_run_whose_process_was_killed_is_marked_by_whoever_comes_next(root, who):
    with hanging(root) as process:
        sync(root / "runs", root)
        assert all_runs(root)[0].info.status == "RUNNING", "its process lives"
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert all_runs(root)[0].info.status == "RUNNING"
        if who == "sync":
            sync(root / "runs", root)
        elif who == "a quick stage":
            send(finished(root, item="mnist-nce"), root)
        else:
            with followed(root, facts(root, "mnist-nce")):
                until(lambda: len(all_runs(root)) == 2)
                send(finished(root, item="mnist-nce"), root)
    (run,) = [run for run in all_runs(root) if run.info.run_name == "train_dgn@mnist-lrp"]
    assert run.info.status == "KILLED"
    assert run.data.params == {"train_dgn.optimizer.lr": "0.1"}
    assert marks(root) == []


@pytest.mark.parametrize("text", ["", "[]", '{"run": "x"}', '{"store": "another"}'])
def test_a_damaged_mark_stops_nothing(root, text):
    (root / FOLDER).mkdir(parents=True)
    (root / FOLDER / "a.json").write_text(text)
    finished(root)
    assert [sent.new for sent in sync(root / "runs", root)] == [True]
    assert marks(root) == []


# Servers


def test_a_dead_server_neither_fails_nor_stalls_a_stage(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{mute.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        longest, last = 0.0, time.monotonic()
        with followed(tmp_path, facts(tmp_path)):
            for epoch in range(1, 40):
                epochs(tmp_path, {"loss": [1.0] * epoch})
                time.sleep(0.05)
                now = time.monotonic()
                longest, last = max(longest, now - last), now
            with pytest.raises(TrackingError, match="runs sync"):
                send(finished(tmp_path), tmp_path)
        assert time.monotonic() - last < 15
    assert longest < 3
    assert marks(tmp_path) == []


def test_a_server_that_dies_meanwhile_gets_the_same_run_completed_later(root, monkeypatch):
    with followed(root, facts(root)):
        epochs(root, {"loss": [1.0]})
        until(lambda: shown(root) == [(1, 1.0)])
        (run,) = all_runs(root)
        folder = finished(root, history={"loss": [1.0, 0.5]}, metrics={"loss": 0.5})
        with monkeypatch.context() as away:
            away.setattr(store, "_probe", refuse)
            with pytest.raises(TrackingError, match=f"is kept in {folder} and"):
                send(folder, root)
    assert all_runs(root)[0].info.status == "RUNNING"
    (sent,) = sync(root / "runs", root)
    (after,) = all_runs(root)
    assert sent.run_id == after.info.run_id == run.info.run_id
    assert after.info.status == "FINISHED"
    assert shown(root) == [(1, 1.0), (2, 0.5)]
    assert marks(root) == []


def refuse(_uri: str) -> None:
    raise OSError(111, "Connection refused")


def test_a_slow_server_gets_no_more_than_its_share(root, monkeypatch):
    from mlflow import MlflowClient

    times: list[float] = []

    def slowly(*_args: Any, **_kwargs: Any) -> None:
        times.append(time.monotonic())
        time.sleep(0.1)

    monkeypatch.setattr(live, "SHARE", 0.1)
    monkeypatch.setattr(MlflowClient, "log_batch", slowly)
    with followed(root, facts(root)):
        until(lambda: len(times) == 3)
    assert all(b - a > 1.0 for a, b in pairwise(times))


# The command line


def test_a_trained_stage_is_followed_and_its_bytes_are_the_same(tmp_path, monkeypatch):
    threads = set()
    from mlflow import MlflowClient

    log = MlflowClient.log_batch

    def watched(self: Any, run_id: str, **given: Any) -> Any:
        if given.get("metrics"):
            threads.add(threading.current_thread().name)
        return log(self, run_id, **given)

    monkeypatch.setattr(MlflowClient, "log_batch", watched)
    tree = merged(tiny_params(), {"train_target": {"mnist": {"epochs": 60}}})
    md5s = set()
    for name, after in (("live", 0.05), ("alone", 600.0)):
        root = tmp_path / name
        make_project(root, tree)
        store.experiment_id(root)  # so that the run begins before the training has ended
        monkeypatch.setattr(live, "BEGIN_AFTER", after)
        assert call_main(root, "train_target", "--subject", "mnist") == 0
        md5s.add(dvc_md5(root / "models/target/mnist.safetensors"))
        (run,) = all_runs(root)
        assert run.info.status == "FINISHED"
        assert ("deepcustom.live" in run.data.tags) == (name == "live")
        assert [step for step, _ in shown(root)] == list(range(1, 61))
    assert len(md5s) == 1
    assert threads == {"live run", "MainThread"}


def test_a_stage_with_a_mistake_in_its_row_says_so_as_ever(tmp_path, capfd):
    root = tmp_path / "p"
    make_project(root)
    with environment(MLFLOW_TRACKING_URI=f"sqlite:///{root}/mlflow.db"):
        assert call_main(root, "train_target", "--subject", "nobody") == 2
    assert "train_target" in capfd.readouterr().err
    tree = yaml.safe_load((root / "params.yaml").read_text())
    assert "nobody" not in tree["train_target"]
    assert not (root / ".checkpoints").exists()
