"""The MLflow runs made from ``run.json``, in a store of each test's own, and their page."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from itertools import pairwise
from uuid import UUID

import pytest
from test_record import STARTED, record
from tracking_fixtures import all_models, all_runs, client, written

from deepcustom.base.errors import InputError, TrackingError
from deepcustom.tracking import store as tracking
from deepcustom.tracking.store import send, sync
from deepcustom.tracking.ui import free_port, serve_ui, ui_address, ui_command

pytestmark = pytest.mark.usefixtures("own_store")


def test_importing_is_cheap():
    code = "import sys, deepcustom.tracking.ui as t; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# sending


def test_run_shows_what_the_file_says(root, capfd):
    folder = written(root, figures=["curve.png", "gone.png"], dvc_exp="bold-tit")
    (folder / "curve.png").write_bytes(b"png")
    run_id = send(folder, root)
    run = client(root).get_run(run_id)
    begin = int(STARTED.timestamp() * 1000)
    assert (run.info.run_name, run.info.status) == ("train_dgn@mnist-lrp bold-tit", "FINISHED")
    assert (run.info.start_time, run.info.end_time) == (begin, begin + 12_500)
    params = {"optimizer.lr": "0.1", "optimizer.name": "adam", "sizes": "[1, 2]", "note": "null"}
    assert run.data.params == params
    assert run.data.metrics == {"loss": 0.25, "val": 0.2, "fooled": 0.75, "seconds": 12.5}
    expected = {
        "deepcustom.run_key": "0123456789abcdef" * 2,
        "deepcustom.stage": "train_dgn",
        "deepcustom.dataset": "mnist",
        "deepcustom.restored": "false",
        "dvc.stage": "train_dgn@mnist-lrp",
        "dvc.exp": "bold-tit",
        "git.commit": "c" * 40,
        "git.dirty": "false",
        "mlflow.source.git.commit": "c" * 40,
        "input.data/prepared/mnist": "a" * 32 + ".dir",
        "output.models/dgn/mnist/lrp.safetensors": "b" * 32,
        "machine.cpu": "two cores",
        "package.torch": "2.13.0",
    }
    assert expected.items() <= run.data.tags.items()
    files = root / "mlartifacts" / run_id / "artifacts"
    assert (files / "figures" / "curve.png").read_bytes() == b"png"
    assert (files / "run.json").read_bytes() == (folder / "run.json").read_bytes()
    assert not (files / "figures" / "gone.png").exists()
    assert capfd.readouterr() == ("", "")


def test_histories_are_exact(root):
    long = [math.sin(step) for step in range(2500)]
    before = record(history={"loss": long, "val": [0.1, math.nan]}, metrics={"loss": long[-1]})
    before.write(root / "run")
    run_id = send(root / "run", root)
    for name, curve in before.history.items():
        points = client(root).get_metric_history(run_id, name)
        points.sort(key=lambda point: point.step)
        assert [point.step for point in points] == list(range(1, len(curve) + 1))
        assert list(map(repr, (point.value for point in points))) == list(map(repr, curve))
        assert all(a.timestamp <= b.timestamp for a, b in pairwise(points))


def test_final_value_wins_over_its_curve(root):
    folder = written(root, history={"val": [0.1, 0.9, 0.7]}, metrics={"val": 0.5}, seconds=0.0)
    run = client(root).get_run(send(folder, root))
    assert run.data.metrics["val"] == 0.5


def test_awkward_names_and_long_values_are_taken(root):
    params = {"a+b": 1, "a*b": 2, "x" * 300: 3, "long": "y" * 7000, "empty": {}}
    folder = written(root, params=params, metrics={"top-1 (%)": 1.0}, machine={"os": "z" * 9000})
    run = client(root).get_run(send(folder, root))
    assert sorted(run.data.params.values()) == ["1", "2", "3", "y" * 6000, "{}"]
    assert len(run.data.tags["machine.os"]) == 8000


def test_many_params_are_taken(root):
    folder = written(root, params={f"p{i}": i for i in range(250)})
    assert len(client(root).get_run(send(folder, root)).data.params) == 250


def test_second_send_changes_nothing(root):
    folder = written(root)
    assert send(folder, root) == send(folder, root)
    assert len(all_runs(root)) == 1


def test_what_a_broken_send_left_is_finished(root, monkeypatch):
    from mlflow import MlflowClient

    folder = written(root)
    with monkeypatch.context() as broken:

        def fail(*_args, **_kwargs):
            raise OSError(28, "No space left on device")

        broken.setattr(MlflowClient, "log_artifact", fail)
        with pytest.raises(TrackingError, match=r"No space left on device; the run is kept in .*a"):
            send(folder, root)
    (leftover,) = all_runs(root)
    assert leftover.info.status == "RUNNING"
    run_id = send(folder, root)
    (run,) = all_runs(root)
    assert run_id == run.info.run_id == leftover.info.run_id
    assert run.info.status == "FINISHED"
    assert len(client(root).get_metric_history(run_id, "loss")) == 3


@pytest.mark.parametrize("other", ["0" * 32, "f" * 32])
def test_run_that_two_make_at_the_same_moment_is_left_once(root, monkeypatch, other):
    """A server has no lock: both have looked already when they make it, with any ids."""
    from mlflow import MlflowClient

    folder, create = written(root), MlflowClient.create_run

    def both(*args, **kwargs):
        racing.setattr("uuid.uuid4", lambda: UUID(other))
        create(*args, **kwargs)
        racing.undo()
        return create(*args, **kwargs)

    with monkeypatch.context() as racing:
        racing.setattr(MlflowClient, "create_run", both)
        kept = send(folder, root)
    assert kept == min(kept, other)
    assert send(folder, root) == kept
    assert [(run.info.run_id, run.info.status) for run in all_runs(root)] == [(kept, "FINISHED")]


def test_run_removed_for_another_of_its_kind_is_no_failure(root, monkeypatch):
    """Another process finished its own first, and removed what it took for left over."""
    from mlflow import MlflowClient

    folder, made = written(root), []

    def lose(client, run_id, *_args):
        run = client.get_run(run_id)
        tags = {"deepcustom.run_key": run.data.tags["deepcustom.run_key"]}
        made.append(client.create_run(run.info.experiment_id, tags=tags).info.run_id)
        client.set_terminated(made[0], "FINISHED")
        client.delete_run(run_id)
        client.log_metric(run_id, "late", 1.0)

    with monkeypatch.context() as racing:
        racing.setattr(MlflowClient, "log_artifact", lose)
        assert send(folder, root) == made[0]
    assert [run.info.run_id for run in all_runs(root)] == made


def test_sync_sends_each_once(root):
    first = send(written(root, "a"), root)
    written(root, "b", run_key="b" * 32, item="")
    done = sync(root / "runs", root)
    assert [(sent.name, sent.new) for sent in done] == [
        ("train_dgn@mnist-lrp", False),
        ("train_dgn", True),
    ]
    assert done[0].run_id == first
    tags = client(root).get_run(done[1].run_id).data.tags
    assert tags["deepcustom.restored"] == "true"
    again = sync(root / "runs", root)
    assert again == [sent._replace(new=False) for sent in done]


def test_send_names_a_broken_or_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"run\.json: No such file"):
        send(tmp_path, tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(InputError, match=r"run\.json: not a run record: Invalid JSON"):
        send(tmp_path, tmp_path)


def test_sync_names_a_broken_file_before_it_sends(tmp_path):
    written(tmp_path, "a")
    written(tmp_path, "b")
    (tmp_path / "runs" / "b" / "run.json").write_text("{")
    with pytest.raises(InputError, match=r"b/run\.json"):
        sync(tmp_path / "runs", tmp_path)
    assert not (tmp_path / "mlflow.db").exists()


def test_experiment_name_from_the_environment(root, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    send(written(root), root)
    assert client(root).get_experiment_by_name("mine") is not None
    assert client(root).get_experiment_by_name("deepcustom") is None


def test_two_processes_may_create_the_store_at_once(tmp_path):
    code = "import sys; from pathlib import Path; from deepcustom.tracking.store import send;"
    code += "send(Path(sys.argv[1]), Path(sys.argv[2]))"
    folders = [written(tmp_path, key, run_key=key * 32) for key in "ab"]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(folder), str(tmp_path)], stderr=subprocess.PIPE
        )
        for folder in folders
    ]
    assert [process.communicate(timeout=60)[1] for process in running] == [b"", b""]
    assert [process.returncode for process in running] == [0, 0]
    assert len(all_runs(tmp_path)) == 2


# servers that are not there


@pytest.mark.parametrize(
    ("uri", "shown", "cause"),
    [
        ("http://127.0.0.1:9", "http://127.0.0.1:9", "Connection refused"),
        ("http://bob:s3cret@127.0.0.1:9", "http://127.0.0.1:9", "Connection refused"),
        ("http://bob:s3cret/x@127.0.0.1:9", "http://127.0.0.1:9", ""),
        ("http://[bob:s3cret@x", "http://x", ""),
        ("foo://bob:s3cret@x", "foo://x", "unsupported URI"),
        ("http://127.0.0.1:9/?token=s3cret", "http://127.0.0.1:9/", "Connection refused"),
        ("sqlite:////dev/null/s/x.db", "sqlite:////dev/null/s/x.db", "Not a directory"),
    ],
)
def test_unreachable_server_fails_fast_in_one_line(tmp_path, monkeypatch, capfd, uri, shown, cause):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    folder = written(tmp_path)
    begin = time.monotonic()
    with pytest.raises(TrackingError) as caught:
        send(folder, tmp_path)
    message = str(caught.value)
    assert time.monotonic() - begin < 10
    assert message.startswith(f"MLflow at {shown}: ")
    assert cause in message
    assert message.endswith(f"kept in {folder} and 'deepcustom runs sync' sends it later")
    assert "\n" not in message
    assert "s3cret" not in message
    assert capfd.readouterr() == ("", "")


def test_silent_server_is_not_waited_for_longer_than_told(tmp_path, monkeypatch):
    tries = 1 + int(tracking.PATIENCE["MLFLOW_HTTP_REQUEST_MAX_RETRIES"])
    assert tries * int(tracking.PATIENCE["MLFLOW_HTTP_REQUEST_TIMEOUT"]) <= 8
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as mute:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{mute.getsockname()[1]}")
        begin = time.monotonic()
        with pytest.raises(TrackingError, match="timed out"):
            send(written(tmp_path), tmp_path)
        assert time.monotonic() - begin < 5


def test_file_that_is_no_database(tmp_path):
    (tmp_path / "mlflow.db").write_text("not a database" * 100)
    begin = time.monotonic()
    with pytest.raises(TrackingError, match="file is not a database"):
        send(written(tmp_path), tmp_path)
    assert time.monotonic() - begin < 5


# the page


def test_command_serves_the_default_store(tmp_path):
    command = ui_command(tmp_path, port=5003)
    assert command[:4] == [sys.executable, "-m", "mlflow", "server"]
    given = dict(zip(command[4:-1:2], command[5::2], strict=False))
    assert given["--backend-store-uri"] == f"sqlite:///{tmp_path}/mlflow.db"
    assert given["--default-artifact-root"] == f"file://{tmp_path}/mlartifacts"
    assert (given["--host"], given["--port"]) == ("127.0.0.1", "5003")


def test_address_opens_the_table_of_runs(root):
    address = ui_address(root, "0.0.0.0", 5003)
    page = "runs?workflowType=machine_learning"
    assert address == f"http://127.0.0.1:5003/#/experiments/{tracking.experiment_id(root)}/{page}"


def test_taken_ports_are_passed_over(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert free_port("127.0.0.1", port) > port
        with pytest.raises(TrackingError, match=f"port {port} on 127.0.0.1 is taken"):
            serve_ui(tmp_path, port=port)


def test_served_page_takes_runs_and_ends_on_request(tmp_path, empty_store, monkeypatch):
    """Starts the server, sends a run through it by HTTP, and ends it as Ctrl-C does."""
    root = tmp_path / "feature%2Flogin #1?"
    root.mkdir()
    shutil.copy(empty_store, root / "mlflow.db")
    code = "import sys; from pathlib import Path; from deepcustom.tracking.ui import serve_ui;"
    code += "serve_ui(Path(sys.argv[1]), say=lambda line: print(line, flush=True))"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        base = process.stdout.readline().removeprefix("MLflow: ").split("/#/")[0]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", base)
        folder = written(root, figures=["curve.png"])
        (folder / "curve.png").write_bytes(b"png")
        run_id = send(folder, root)
        assert send(folder, root) == run_id
        said: list[str] = []
        serve_ui(root, say=said.append)
        assert said[0].startswith(f"MLFLOW_TRACKING_URI names a running server: {base}/#/")
    finally:
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(20) == 0
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", int(base.rpartition(":")[2])), timeout=2)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert client(root).get_run(run_id).data.metrics["fooled"] == 0.75
    (model,) = all_models(root).values()
    (link,) = json.loads(model.tags["mlflow.modelVersions"])
    assert (link["name"], str(link["version"])) == ("mnist-dgn-lrp", "1")
    version = client(root).get_model_version_by_alias("mnist-dgn-lrp", "current")
    assert (version.run_id, version.source) == (run_id, f"models:/{model.model_id}")
