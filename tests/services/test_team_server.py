"""docs/team-server.md as it stands: its server, on a real PostgreSQL and a bucket, used by a team at once."""

from __future__ import annotations

import base64
import contextlib
import functools
import gzip
import hashlib
import io
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from pipeline_fixtures import DATASET, ROOT, environment
from test_record import STARTED, record

from deepcustom.base.errors import TrackingError
from deepcustom.base.rows import TRAINING
from deepcustom.evaluation.results import read_csv
from deepcustom.pipeline import workspace
from deepcustom.pipeline.code_lock import write_lock
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.workspace import Workspace
from deepcustom.tracking import store as tracking
from deepcustom.tracking.models import metric_name, network_name, set_name
from deepcustom.tracking.record import RunRecord
from deepcustom.tracking.ui import serve_ui

if TYPE_CHECKING:
    from conftest import ObjectStore
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

pytestmark = pytest.mark.services

DOC = ROOT / "docs/team-server.md"
FIGURE = b"\x89PNG of nobody"
START_SECONDS = 300  # where other work has the processor; it takes a tenth alone
COMMITTED = ("train_target", "adversarial_train/nce", "adversarial_train/pgd", "evaluate", "report")
# A busy machine may answer later than a stage is willing to wait for.
PATIENT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "60", "MLFLOW_DISABLE_TELEMETRY": "true"}

# As a stage does it: what went wrong is a line of warning. MLflow is slow to import, so it comes first.
SEND = """
import sys
from pathlib import Path
from mlflow import MlflowClient
from deepcustom.base.errors import TrackingError
from deepcustom.tracking.store import send
print("ready", flush=True)
input()
for folder in sys.argv[1:]:
    try:
        send(Path(folder), Path.cwd())
    except TrackingError as error:
        print(f"warning: {error}", file=sys.stderr)
"""
SYNC = """
import sys
from mlflow import MlflowClient
from deepcustom.cli import main
print("ready", flush=True)
input()
sys.argv[1:] = ["runs", "sync"]
main()
"""


# The page


def block(language: str, start: str) -> str:
    """The one fenced block of the page that has a line beginning with ``start``."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", DOC.read_text(), re.MULTILINE | re.DOTALL)
    (text,) = [text for text in found if any(line.startswith(start) for line in text.splitlines())]
    return str(text)


def settings(start: str, given: Mapping[str, str]) -> dict[str, str]:
    """A block of ``NAME=value``, with ``given`` for each ``<what to put here>`` and no other."""
    lines = (line.split("=", 1) for line in block("ini", start).splitlines())
    pairs = dict(lines)
    assert {name for name, value in pairs.items() if value.startswith("<")} == given.keys()
    return pairs | dict(given)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


# The services


@dataclass(frozen=True)
class Database:
    """A PostgreSQL with the page's user and databases; ``environment`` leads its owner there."""

    port: int
    password: str
    environment: dict[str, str]

    def here(self, text: str) -> str:
        """The page's addresses, with this one's port."""
        return text.replace("127.0.0.1:5432", f"127.0.0.1:{self.port}")


@dataclass(frozen=True)
class Server:
    """MLflow, and the secrets it was started with."""

    uri: str
    secrets: dict[str, str]

    def environment(self, name: str | None = None, password: str | None = None) -> dict[str, str]:
        """What a member sets; whoever gives no name is nobody."""
        account = {"MLFLOW_TRACKING_USERNAME": name, "MLFLOW_TRACKING_PASSWORD": password}
        given = {key: value for key, value in account.items() if value is not None}
        return {"MLFLOW_TRACKING_URI": self.uri, **PATIENT, **given}


@dataclass(frozen=True)
class Team:
    """The server with its accounts; ``home`` holds anna's, as the page advises."""

    server: Server
    experiment: str
    passwords: dict[str, str]
    home: Path

    def environment(self, name: str) -> dict[str, str]:
        """Anna has her account in a file, everybody else in variables."""
        if name == "anna":
            return self.server.environment() | {"HOME": str(self.home)}
        return self.server.environment(name, self.passwords[name])


@pytest.fixture(scope="module", autouse=True)
def _own_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing of the user's: neither variables nor the account in the home folder."""
    mine = [name for name in os.environ if name.startswith(("MLFLOW_", "PG"))]
    nowhere = {"HOME": str(tmp_path_factory.mktemp("home"))}
    with environment(**dict.fromkeys(mine) | tracking.PATIENCE | nowhere):
        yield


def postgres_programs() -> Path:
    # Debian keeps them apart, a folder per version, and puts only the clients on the path.
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parts[-2])
    on_path = shutil.which("postgres")
    found = [*([Path(on_path).parent] if on_path else []), *folders]
    whole = [folder for folder in found if (folder / "createuser").exists()]
    if not whole:
        pytest.skip("no PostgreSQL here: apt-get install postgresql")
    return whole[-1]


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """A new PostgreSQL with the page's user and databases; gone after the last test."""
    programs, port, superuser = postgres_programs(), free_port(), secrets.token_hex(8)
    # The account it runs as may not look into pytest's folders.
    folder = Path(tempfile.mkdtemp(prefix="deepcustom-postgres-"))
    data, password_file = folder / "data", folder / "password"
    password_file.write_text(superuser)
    run: dict[str, Any] = {"cwd": folder}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        run |= {"user": "nobody", "group": "nogroup", "extra_groups": []}
        for path in (folder, password_file):
            shutil.chown(path, "nobody", "nogroup")
    make = ["initdb", "-D", data, "-U", "postgres", "-A", "scram-sha-256", "-E", "UTF8", "-N"]
    make = [programs / make[0], *make[1:], "--locale", "C", "--pwfile", password_file]
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL, **run)
    serve = [programs / "postgres", "-D", data, "-p", str(port), "-k", folder]
    serve += ["-h", "127.0.0.1", "-F"]  # -F: a crash may lose this one
    log = folder / "log"
    with log.open("wb") as out:
        server = subprocess.Popen(serve, stdout=out, stderr=out, **run)
    try:
        environment = {"PATH": f"{programs}:{os.environ['PATH']}", "PGHOST": "127.0.0.1"}
        environment |= {"PGPORT": str(port), "PGUSER": "postgres", "PGPASSWORD": superuser}
        ask = [programs / "pg_isready", "--quiet"]
        wait(lambda: subprocess.run(ask, check=False, env=environment).returncode == 0, server, log)
        found = Database(port, secrets.token_hex(32), environment)
        for line in block("sh", "sudo -u postgres createuser").splitlines():
            subprocess.run(
                shlex.split(line.removeprefix("sudo -u postgres ")),
                check=True,
                env=environment,
                input=f"{found.password}\n" * 2,
                text=True,
                capture_output=True,
                start_new_session=True,  # without a terminal it asks standard input
            )
        yield found
    finally:
        server.send_signal(signal.SIGINT)  # ends without waiting for clients
        server.wait(30)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def server(
    database: Database, object_store: ObjectStore, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """MLflow as the page's service starts it."""
    folder = tmp_path_factory.mktemp("server")
    given = {
        "PGPASSWORD": database.password,
        "MLFLOW_AUTH_ADMIN_PASSWORD": secrets.token_hex(32),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32),
        "AWS_ACCESS_KEY_ID": object_store.key_id,
        "AWS_SECRET_ACCESS_KEY": object_store.secret,
        "AWS_DEFAULT_REGION": object_store.region,
        "MLFLOW_S3_ENDPOINT_URL": object_store.endpoint,
    }
    accounts = folder / "auth.ini"
    accounts.write_text(database.here(block("ini", "database_uri")))
    variables = settings("PGPASSWORD", given) | {"MLFLOW_AUTH_CONFIG_PATH": str(accounts)}
    unit = block("ini", "[Service]").replace("\\\n", " ")
    (command,) = [
        shlex.split(line.removeprefix("ExecStart="))
        for line in database.here(unit).splitlines()
        if line.startswith("ExecStart=")
    ]
    program, port = command.pop(0), free_port()
    assert program == "/opt/mlflow/bin/mlflow"
    command[command.index("--port") + 1] = str(port)
    bucket = command[command.index("--artifacts-destination") + 1]
    assert object_store.bucket(bucket.removeprefix("s3://")) == bucket
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *command],
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": str(folder), **variables},
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    uri = f"http://127.0.0.1:{port}"
    try:
        wait(functools.partial(answers, uri), process, log)
        yield Server(uri, given)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@pytest.fixture(scope="module")
def team(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Team:
    """The accounts that the page's code makes, and one without a role."""
    from mlflow.server.auth.client import AuthServiceClient

    admin = server.environment("admin", server.secrets["MLFLOW_AUTH_ADMIN_PASSWORD"])
    with environment(**admin):
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            names: dict[str, Any] = {}
            exec(block("python", "from mlflow import"), names)
        passwords = dict(line.split() for line in said.getvalue().splitlines())
        passwords["carla"] = "only looks, never touches"
        AuthServiceClient(server.uri).create_user("carla", passwords["carla"])
    account = block("ini", "mlflow_tracking_username").replace("<hers>", passwords["anna"])
    home = tmp_path_factory.mktemp("anna")
    (home / ".mlflow").mkdir()
    (home / ".mlflow/credentials").write_text(account)
    return Team(server, str(names["experiment"]), passwords, home)


def wait(ready: Callable[[], bool], process: subprocess.Popen[Any], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while not ready():
        assert process.poll() is None, f"ended by itself: {log.read_text()}"
        assert time.monotonic() < end, f"not ready in {START_SECONDS} s: {log.read_text()}"
        time.sleep(0.1)


def answers(uri: str) -> bool:
    with contextlib.suppress(OSError):
        return status(f"{uri}/health") == 200
    return False


def status(uri: str, headers: Mapping[str, str] | None = None, data: bytes | None = None) -> int:
    request = urllib.request.Request(uri, headers=dict(headers or {}), data=data)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


# Machines and members


def machine(folder: Path, records: Mapping[str, RunRecord]) -> Path:
    """A project's folder with records and their figures; returns it."""
    for name, one in records.items():
        one.write(folder / "reports/runs" / name)
        for figure in one.figures:
            (folder / "reports/runs" / name / figure).write_bytes(FIGURE + one.run_key.encode())
    (folder / "dvc.yaml").write_text("stages: {}\n")
    (folder / "params.yaml").write_text(f"seed: 0\nprepare: {{{DATASET}: {{reads: mine.py}}}}\n")
    write_lock(folder)
    return folder


class Work(NamedTuple):
    """One process: code, its arguments, its folder, and whose account it has."""

    code: str
    arguments: list[str]
    folder: Path
    environment: Mapping[str, str]


class Ended(NamedTuple):
    code: int
    said: str
    warned: str


def at_once(work: list[Work]) -> list[Ended]:
    """Runs all of it, begun at one moment."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", one.code, *one.arguments],
            cwd=one.folder,
            env={**os.environ, **one.environment},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for one in work
    ]
    try:
        for process in running:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in running:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        ended = [process.communicate(timeout=300) for process in running]
    finally:
        for process in running:
            process.kill()
    return [
        Ended(one.returncode, out, re.sub(r"^.*: at work for \d+ s\n", "", err, flags=re.MULTILINE))
        for one, (out, err) in zip(running, ended, strict=True)
    ]


@contextlib.contextmanager
def looking(team: Team) -> Iterator[MlflowClient]:
    """A client of whoever may only read."""
    from mlflow import MlflowClient

    with environment(**team.environment("carla")):
        yield MlflowClient(team.server.uri)


def all_runs(client: MlflowClient, experiment: str) -> dict[str, Run]:
    """Run key to run, of the runs of stages; two of one key are a mistake."""
    found = [
        (run.data.tags["deepcustom.run_key"], run)
        for run in client.search_runs([experiment], max_results=1000)
        if "deepcustom.run_key" in run.data.tags
    ]
    assert doubled(key for key, _ in found) == []
    assert {run.info.status for _, run in found} <= {"FINISHED"}
    return dict(found)


def doubled(things: Any) -> list[Any]:
    return [thing for thing, count in Counter(things).items() if count > 1]


def parents(client: MlflowClient, experiment: str, one: RunRecord) -> list[Run]:
    """The runs that stand for the ``dvc repro`` of a record."""
    query = f"tags.`deepcustom.repro` = '{one.repro}'"
    return list(client.search_runs([experiment], query))


def models(client: MlflowClient, experiment: str, name: str) -> dict[str, list[LoggedModel]]:
    """Md5 to the models of these weights."""
    found: dict[str, list[LoggedModel]] = {}
    for one in client.search_logged_models([experiment], filter_string=f"name = '{name}'"):
        found.setdefault(one.tags["dvc.md5"], []).append(client.get_logged_model(one.model_id))
    return found


def versions(client: MlflowClient, name: str) -> list[str]:
    """Md5 of each version of that name in the registry."""
    found = client.search_model_versions(f"name = '{name}'")
    return sorted(version.tags["dvc.md5"] for version in found)


def in_bucket(object_store: ObjectStore, run: Run) -> dict[str, bytes]:
    """What lies in the bucket itself for a run; its server is asked, not MLflow."""
    s3 = object_store.client()
    prefix = f"{run.info.experiment_id}/{run.info.run_id}/artifacts/"
    found = s3.list_objects_v2(Bucket="mlflow", Prefix=prefix).get("Contents", [])
    return {
        one["Key"].removeprefix(prefix): s3.get_object(Bucket="mlflow", Key=one["Key"])[
            "Body"
        ].read()
        for one in found
    }


# The page and what it says


def test_page_names_the_version_that_runs_here() -> None:
    import mlflow

    assert f"'mlflow[auth]=={mlflow.__version__}'" in block("sh", "apt-get install")


def test_no_secret_is_in_a_command_line(server: Server) -> None:
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    ours = [line for line in lines if b"mlflow" in line]
    assert any(b"postgresql+psycopg2://mlflow@" in line for line in ours)
    for name in ("PGPASSWORD", "MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY"):
        assert not any(server.secrets[name].encode() in line for line in ours)


def test_proxy_is_let_in_and_strange_pages_are_not(team: Team) -> None:
    name, login = "mlflow.example.org", f"anna:{team.passwords['anna']}"
    assert f"server_name {name};" in block("nginx", "server {")
    known = {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}
    known |= {"Host": name, "Content-Type": "application/json"}
    search = f"{team.server.uri}/ajax-api/2.0/mlflow/runs/search"
    data = json.dumps({"experiment_ids": [team.experiment]}).encode()
    assert status(search, known | {"Origin": f"https://{name}"}, data) == 200
    assert status(search, known | {"Origin": "https://evil.example.org"}, data) == 403
    assert status(search, known | {"Host": "evil.example.org"}, data) == 403
    assert status(search, {"Host": name, "Content-Type": "application/json"}, data) == 401


def test_databases_are_brought_up_to_date_as_the_page_says(
    server: Server, database: Database
) -> None:
    for line in database.here(block("sh", "mlflow db upgrade")).splitlines():
        words = shlex.split(line)
        words = words[2:] if words[0] == "python" else words
        variables = {**os.environ, "PGPASSWORD": database.password}
        subprocess.run(
            [sys.executable, "-m", *words], check=True, env=variables, capture_output=True
        )


def test_backup_holds_runs_and_accounts(team: Team, database: Database, tmp_path: Path) -> None:
    line = block("sh", "sudo -u postgres pg_dumpall").splitlines()[0]
    line = line.removeprefix("sudo -u postgres ").replace("/var/backups", str(tmp_path))
    subprocess.run(["bash", "-o", "pipefail", "-c", line], check=True, env=database.environment)
    (file,) = tmp_path.iterdir()
    text = gzip.decompress(file.read_bytes()).decode()
    for made in ("CREATE DATABASE mlflow ", "CREATE DATABASE mlflow_auth ", "CREATE ROLE mlflow;"):
        assert made in text
    assert re.search(r"\banna\b.*\bscrypt:", text)
    assert f"{team.experiment}\tdeepcustom\t" in text


def test_ui_is_the_servers_own(team: Team, tmp_path: Path) -> None:
    said: list[str] = []
    with environment(**team.environment("carla")):
        serve_ui(tmp_path, say=said.append)
    (line,) = said
    page = f"{team.server.uri}/#/experiments/{team.experiment}/runs"
    assert line.startswith(f"MLFLOW_TRACKING_URI names a running server: {page}")


# Who may do what


@pytest.mark.parametrize(("name", "password"), [(None, None), ("anna", "not her password")])
def test_stage_of_a_stranger_ends_well_with_one_line(
    team: Team,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    name: str | None,
    password: str | None,
) -> None:
    root = machine(tmp_path, {})
    with environment(**team.server.environment(name, password)):
        with StageRun(Workspace(root), "prepare", DATASET) as stage:
            stage.write("models/a.bin").write_text("one")
        (line,) = capfd.readouterr().err.splitlines()
        with pytest.raises(TrackingError, match="401"):
            tracking.sync(root / "reports/runs", root)
    assert line.startswith(f"warning: MLflow at {team.server.uri}: ")
    assert "401" in line
    assert line.endswith("'deepcustom runs sync' sends it later")
    assert (root / "models/a.bin").read_text() == "one"


def test_who_may_only_read_changes_nothing(
    team: Team, tmp_path: Path, object_store: ObjectStore
) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.server.auth.client import AuthServiceClient
    from requests import HTTPError

    hers = record(run_key=secrets.token_hex(16), outputs={}, figures=["curve.png"])
    theirs = record(run_key=secrets.token_hex(16), outputs={})
    root = machine(tmp_path, {"hers": hers, "theirs": theirs})
    with environment(**team.environment("anna")):
        run_id = tracking.send(root / "reports/runs/theirs", root)
    with looking(team) as client:
        may = AuthServiceClient(team.server.uri).get_user_permission(
            "carla", "experiment", team.experiment
        )
        assert may.permission == "READ"
        with pytest.raises(TrackingError, match=r"403.*Permission denied"):
            tracking.send(root / "reports/runs/hers", root)
        for write in (
            lambda: client.set_tag(run_id, "hers", "1"),
            lambda: client.log_metric(run_id, "hers", 1.0),
            lambda: client.log_artifact(run_id, str(root / "params.yaml")),
            lambda: client.delete_run(run_id),
            lambda: client.create_run(team.experiment),
            lambda: client.create_logged_model(team.experiment, "hers"),
            lambda: AuthServiceClient(team.server.uri).create_user("dora", "x" * 12),
        ):
            with pytest.raises((MlflowException, HTTPError), match=r"403|Permission denied"):
                write()
        runs = all_runs(client, team.experiment)
        assert hers.run_key not in runs
        assert in_bucket(object_store, runs[theirs.run_key]).keys() == {"run.json"}


def test_member_changes_the_password_and_may_be_removed(team: Team) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.server.auth.client import AuthServiceClient

    auth, old, new = AuthServiceClient(team.server.uri), "her first one", "and her second"
    secret = team.server.secrets["MLFLOW_AUTH_ADMIN_PASSWORD"]
    with environment(**team.server.environment("admin", secret)):
        auth.create_user("dora", old)
    with environment(**team.server.environment("dora", old)):
        auth.update_user_password("dora", new, current_password=old)
    with environment(**team.server.environment("dora", new)):
        assert auth.get_user("dora").username == "dora"
    with environment(**team.server.environment("admin", secret)):
        auth.delete_user("dora")
        with pytest.raises(MlflowException, match="dora"):
            auth.get_user("dora")


# At once


def test_runs_from_two_machines_at_once_are_there_once(
    team: Team, tmp_path: Path, object_store: ObjectStore
) -> None:
    """Two members with two processes each train networks of one name, so that all meet there."""
    records = {
        f"{name}/{process}/{i}": record(
            run_key=secrets.token_hex(16),
            repro=None if i else hashlib.md5(name.encode()).hexdigest(),
            item="mnist-team",
            figures=["curve.png"],
            outputs={"models/dgn/mnist/team.safetensors": secrets.token_hex(16)},
            started=STARTED + timedelta(minutes=10 * process + i),
        )
        for name in ("anna", "ben")
        for process in range(2)
        for i in range(3)
    }
    work = []
    for name in ("anna", "ben"):
        own = {place: one for place, one in records.items() if place.startswith(name)}
        root = machine(tmp_path / name, own)
        for process in range(2):
            folders = [f"reports/runs/{name}/{process}/{i}" for i in range(3)]
            work.append(Work(SEND, folders, root, team.environment(name)))
    assert at_once(work) == [Ended(0, "", "")] * 4
    with looking(team) as client:
        runs = all_runs(client, team.experiment)
        for place, one in records.items():
            name, run = place.split("/")[0], runs[one.run_key]
            text = (tmp_path / name / "reports/runs" / place / "run.json").read_bytes()
            figures = {"figures/curve.png": FIGURE + one.run_key.encode()}
            assert in_bucket(object_store, run) == {"run.json": text, **figures}
            assert run.info.user_id == name
            assert run.data.metrics.items() >= one.metrics.items()
        assert [len(parents(client, team.experiment, one)) for one in records.values()].count(
            1
        ) == 4
        md5s = {md5 for one in records.values() for md5 in one.outputs.values()}
        made = models(client, team.experiment, "mnist-dgn-team")
        assert {md5: len(same) for md5, same in made.items()} == dict.fromkeys(md5s, 1)
        assert versions(client, "mnist-dgn-team") == sorted(md5s)
        current = client.get_model_version_by_alias("mnist-dgn-team", "current")
        newest = {place for place in records if place.endswith("/1/2")}
        assert current.tags["dvc.md5"] in {
            md5 for place in newest for md5 in records[place].outputs.values()
        }


def test_two_clones_may_sync_the_same_records_at_once(
    team: Team, tmp_path: Path, object_store: ObjectStore
) -> None:
    """What ``git clone`` gives two members; the server ends with each run, network and accuracy once."""
    roots = {name: clone(tmp_path / name) for name in ("anna", "ben")}
    records = [RunRecord.read(file.parent) for file in (tmp_path / "anna").rglob("run.json")]
    work = [Work(SYNC, [], root, team.environment(name)) for name, root in roots.items()]
    # The clones hold records, and no network's file; that is all there is to warn of.
    absent = r"MLflow cannot load \d+ networks, such as \S+, whose files are not here: [^\n]+\n"
    assert all(re.fullmatch(absent, ended.warned) for ended in at_once(work))
    with looking(team) as client:
        before = shown(client, team.experiment, records, object_store)
    for ended in at_once(work):
        assert re.fullmatch(absent, ended.warned)
        assert ended.said.splitlines()[-1] == f"0 sent, {len(records)} there already"
    with looking(team) as client:
        assert shown(client, team.experiment, records, object_store) == before


def clone(folder: Path) -> Path:
    """Some committed records, with the pictures that their run made and git does not hold."""
    places = [f"{DATASET}/{name}" for name in COMMITTED]
    records = {place: RunRecord.read(ROOT / "reports/runs" / place) for place in places}
    for name in ("results", "cards"):
        shutil.copytree(ROOT / "reports" / name, folder / "reports" / name)
    return machine(folder, records)


def shown(
    client: MlflowClient, experiment: str, records: list[RunRecord], object_store: ObjectStore
) -> dict[str, Any]:
    """All that MLflow has of ``records``, found to be whole and nothing twice."""
    runs = all_runs(client, experiment)
    found: dict[str, Any] = {}
    assert any(workspace.results(DATASET) in one.outputs for one in records)
    scores = [one for one in read_csv(ROOT / workspace.results(DATASET)) if not one.empty]
    (scored,) = [runs[one.run_key].info.run_id for one in records if one.stage == "evaluate"]
    for one in records:
        run = runs[one.run_key]
        files = {"run.json", *(f"figures/{name}" for name in one.figures)}
        assert in_bucket(object_store, run).keys() == files
        assert len(parents(client, experiment, one)) == 1
        found[one.run_key] = run.info.run_id
        if one.stage not in TRAINING:
            continue
        ((path, md5),) = [out for out in one.outputs.items() if out[0].startswith("models/")]
        name = network_name(path)
        (model,) = models(client, experiment, name)[md5]
        assert versions(client, name).count(md5) == 1
        points = [(point.key, point.dataset_name) for point in model.metrics]
        expected = [(metric_name(s), set_name(s)) for s in scores if s.network_md5 == md5]
        assert sorted(points) == sorted(expected) != []
        assert {point.run_id for point in model.metrics} == {scored}
        assert md5 in model.tags["mlflow.note.content"]
        found[name] = model.model_id
    return found
