"""Stores that cannot be used as they are, and variables of MLflow that the user set for other work."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from mlflow import MlflowClient, get_tracking_uri, set_tracking_uri
from mlflow.exceptions import MlflowException
from tracking_fixtures import all_runs, client, written

from deepcustom.base.errors import TrackingError
from deepcustom.tracking import store as tracking
from deepcustom.tracking.address import sqlite_file, sqlite_uri, tracking_uri
from deepcustom.tracking.failures import LONGEST, cause
from deepcustom.tracking.store import send, sync
from deepcustom.tracking.ui import serve_ui, server_environment, ui_address, ui_command

pytestmark = pytest.mark.usefixtures("own_store")


def refusal(root: Path) -> str:
    """What is said where a run cannot be sent: one line, which ends in where the run is."""
    folder = written(root)
    with pytest.raises(TrackingError) as caught:
        send(folder, root)
    message = str(caught.value)
    end = f"; the run is kept in {folder} and 'deepcustom runs sync' sends it later"
    assert "\n" not in message
    assert message.endswith(end)
    return message.removesuffix(end).removeprefix(f"MLflow at {tracking_uri(root)}: ")


def mlflow(command: str) -> None:
    """Run a command that a message names, with this Python's MLflow."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = os.environ | {"PATH": path}
    subprocess.run(command, shell=True, check=True, env=env, capture_output=True)


def named(message: str) -> str:
    """The command between backticks."""
    found = re.search(r"`([^`]+)`", message)
    assert found, message
    return found[1]


# The experiment


def test_a_deleted_experiment_comes_back_by_the_command_that_the_message_names(root: Path) -> None:
    send(written(root, "first", run_key="f" * 32), root)
    number = tracking.experiment_id(root)
    client(root).delete_experiment(number)
    message = refusal(root)
    assert message.startswith("the experiment 'deepcustom' was deleted there: ")
    assert "MLFLOW_EXPERIMENT_NAME=NAME begins another" in message
    with pytest.raises(TrackingError, match="was deleted there"):
        ui_address(root)
    mlflow(named(message))
    assert [run.new for run in sync(root / "runs", root)] == [True, False]
    assert len(all_runs(root)) == 2


# The path


@pytest.mark.parametrize(
    "name", ["feature%2Flogin", "100% it's #1 (ünï)", "what?now=1", "a+b & c;d", "%%"]
)
def test_any_folder_may_hold_a_store(tmp_path: Path, empty_store: Path, name: str) -> None:
    root = tmp_path / name
    root.mkdir()
    shutil.copy(empty_store, root / "mlflow.db")
    folder = written(root, figures=["curve.png"])
    (folder / "curve.png").write_bytes(b"png")
    run_id = send(folder, root)
    assert [run.info.run_id for run in all_runs(root)] == [run_id]
    assert (root / "mlartifacts" / run_id / "artifacts/figures/curve.png").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == [name], "nothing lies elsewhere"


@pytest.mark.parametrize("name", ["plain", "feature%2Flogin", "what?now=1", "ünï #1"])
def test_an_address_leads_back_to_its_file(tmp_path: Path, name: str) -> None:
    database = tmp_path / name / "mlflow.db"
    assert sqlite_file(sqlite_uri(database)) == database


def test_the_page_is_served_for_such_a_folder(tmp_path: Path) -> None:
    command = ui_command(tmp_path / "feature%2Flogin")
    uri = command[command.index("--backend-store-uri") + 1]
    assert sqlite_file(uri) == tmp_path / "feature%2Flogin/mlflow.db"


# Other versions


def set_version(root: Path, version: str) -> None:
    with sqlite3.connect(root / "mlflow.db") as database:
        database.execute("update alembic_version set version_num = ?", [version])


def test_a_newer_store_is_not_to_be_upgraded(root: Path) -> None:
    set_version(root, "ffff00000000")
    message = refusal(root)
    assert message.startswith("a newer MLflow than the one here (")
    assert message.endswith("install that MLflow, or set MLFLOW_TRACKING_URI to another store")
    assert "upgrade" not in message


def test_an_older_store_is_upgraded_by_the_command_that_the_message_names(
    tmp_path: Path, empty_store: Path
) -> None:
    root = tmp_path / "it's #1"
    root.mkdir()
    shutil.copy(empty_store, root / "mlflow.db")
    older = "cc1f77228345"
    with sqlite3.connect(root / "mlflow.db") as database:
        (newest,) = database.execute("select version_num from alembic_version").fetchone()
    set_version(root, older)
    message = refusal(root)
    assert message.startswith("an older MLflow than the one here (")
    assert f"its schema is {older}, and this one wants {newest}" in message
    command = shlex.split(named(message))
    assert command == ["mlflow", "db", "upgrade", tracking_uri(root)]


def test_a_folder_as_a_store_is_refused_with_the_whole_remedy(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(root / "mlruns"))
    message = refusal(root)
    assert "MLFLOW_ALLOW_FILE_STORE=true" in message
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    assert send(written(root), root)


def test_a_cause_without_end_is_cut_between_words() -> None:
    text = cause(ValueError("word " * LONGEST), "http://127.0.0.1:9")
    assert text.endswith("word ...")
    assert len(text) < LONGEST + 10


# Stores that cannot be written


def test_a_store_that_may_only_be_read_says_what_to_do(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "(sqlite3.OperationalError) attempt to write a readonly database"

    def refuse(*_: object, **__: object) -> None:
        raise MlflowException(f"{said}\n[SQL: INSERT INTO runs]")

    monkeypatch.setattr(MlflowClient, "create_run", refuse)
    remedy = f"make {root}/mlflow.db and its folder writable, or set MLFLOW_TRACKING_URI"
    assert refusal(root) == f"{said}: {remedy} to another store"


def test_a_folder_that_may_only_be_read_is_one_line(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", f"{root}/mlflow.db.lock")

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    assert refusal(root) == f"Permission denied: {root}/mlflow.db.lock"


FULL = """
import resource, signal, sys
from pathlib import Path
from deepcustom.base.errors import TrackingError
from deepcustom.tracking.store import send
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    send(Path(sys.argv[1]), Path(sys.argv[2]))
except TrackingError as error:
    print(error)
"""


def test_a_full_disk_is_one_line_and_the_run_is_sent_later(root: Path) -> None:
    folder = written(root)
    words = [sys.executable, "-c", FULL, str(folder), str(root)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    (line,) = done.stdout.splitlines()
    assert done.stderr == ""
    assert re.search("disk I/O error|disk is full|File too large", line), line
    assert "runs sync" in line
    assert send(folder, root)


def test_another_programs_lock_is_told(root: Path) -> None:
    other = sqlite3.connect(root / "mlflow.db", isolation_level=None)
    other.execute("begin exclusive")
    try:
        message = refusal(root)
    finally:
        other.execute("rollback")
        other.close()
    assert "database is locked: another program is writing to" in message


def test_another_process_that_holds_the_store_is_told(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "LOCK_SECONDS", 0.1)
    code = "import sys, filelock\nwith filelock.FileLock(sys.argv[1]): print(flush=True); sys.stdin.read()"
    held = [sys.executable, "-c", code, f"{root}/mlflow.db.lock"]
    with subprocess.Popen(held, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        message = refusal(root)
        other.communicate()
    assert message.startswith("another process of DeepCustom has held the store too long: ")
    with FileLock(f"{root}/mlflow.db.lock", timeout=5):
        pass


# Variables for other work


def test_a_project_that_is_gone_does_not_come_back(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/gone/mlflow.db")
    message = refusal(root)
    assert message == (
        f"No such file or directory: {root}/gone (MLFLOW_TRACKING_URI names a place that is not there)"
    )
    assert not (root / "gone").exists()


@pytest.fixture
def other(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """The store of some other project."""
    folder = tmp_path_factory.mktemp("other")
    shutil.copy(empty_store, folder / "mlflow.db")
    return folder


MODEL = {
    "stage": "train_target",
    "item": "mnist",
    "outputs": {"models/target/mnist.safetensors": "b" * 32},
}


def test_a_registry_of_other_work_gets_no_model_of_this_project(
    root: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = f"sqlite:///{other}/mlflow.db"
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", theirs)
    send(written(root, **MODEL), root)
    monkeypatch.delenv("MLFLOW_REGISTRY_URI")
    assert MlflowClient(theirs).search_registered_models() == []
    assert [model.name for model in client(root).search_registered_models()] == ["mnist-target"]


def test_an_address_that_the_process_was_told_gets_no_model_of_this_project(
    root: Path, other: Path
) -> None:
    theirs = f"sqlite:///{other}/mlflow.db"
    try:
        set_tracking_uri(theirs)
        del os.environ["MLFLOW_TRACKING_URI"]
        send(written(root, **MODEL), root)
        assert get_tracking_uri() == theirs
        assert "MLFLOW_TRACKING_URI" not in os.environ
    finally:
        set_tracking_uri(None)
    assert MlflowClient(theirs).search_registered_models() == []
    assert [model.name for model in client(root).search_registered_models()] == ["mnist-target"]


def test_a_registry_beside_an_address_is_taken(
    root: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = f"sqlite:///{other}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri(root))
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", theirs)
    with tracking._connection(root, "") as ours:
        assert ours._registry_uri == theirs


def test_a_run_and_an_experiment_of_other_work_are_left_alone(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = client(root)
    number = ours.create_experiment("theirs", (root / "theirs").as_uri())
    theirs = ours.create_run(number)
    values = {
        "MLFLOW_RUN_ID": theirs.info.run_id,
        "MLFLOW_EXPERIMENT_ID": number,
        "MLFLOW_ACTIVE_MODEL_ID": "m-0123",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    with tracking._connection(root, ""):
        assert not values.keys() & os.environ.keys()
    assert values.items() <= os.environ.items()
    run_id = send(written(root, **MODEL), root)
    (run,) = all_runs(root)
    assert run.info.run_id == run_id
    left = ours.get_run(theirs.info.run_id)
    assert (left.info.status, left.data.metrics, left.data.params) == ("RUNNING", {}, {})


def test_the_page_is_not_bent_by_a_servers_variables(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MLFLOW_REGISTRY_STORE_URI", "MLFLOW_STATIC_PREFIX", "MLFLOW_ARTIFACTS_ONLY"):
        monkeypatch.setenv(name, "/theirs")
        assert name not in server_environment()
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "bob")
    assert server_environment()["MLFLOW_TRACKING_USERNAME"] == "bob"


def test_a_server_elsewhere_is_named_by_its_variable(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(TrackingError, match="Connection refused"):
        serve_ui(root)


# Models of experiments


def test_an_experiments_network_is_not_the_current_one(root: Path) -> None:
    send(written(root, **MODEL), root)
    copy = root / ".dvc/tmp/exps/tmpx"
    more = {"models/target/mnist.safetensors": "c" * 32}
    later = {**MODEL, "run_key": "d" * 32, "outputs": more, "dvc_exp": "bold-tit"}
    folder = written(copy, **later)
    send(folder, copy)
    assert not list(copy.rglob("mlflow.db"))

    def aliases() -> dict[str, str]:
        (model,) = client(root).search_registered_models()
        md5 = {v.version: v.tags["dvc.md5"] for v in client(root).search_model_versions("")}
        return {alias: md5[version][0] for alias, version in model.aliases.items()}

    assert aliases() == {"current": "b", "bold-tit": "c"}
    shutil.copytree(folder, root / "runs/applied")  # as `dvc exp apply` does
    sync(root / "runs", root)
    assert aliases() == {"current": "c", "bold-tit": "c"}
