"""docs/models.md as it stands: its commands, in clones, with S3, WebDAV and a web server of this machine."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from pipeline_fixtures import ROOT

if TYPE_CHECKING:
    from conftest import ObjectStore

pytestmark = pytest.mark.services

DOC = ROOT / "docs/models.md"
MODEL = "models/target/mnist.safetensors"
STAGE = "train_target@mnist"  # DVC finds it quicker than the model by its path
STORE = "dvc-store"
ACCOUNTS = ".dvc/config.local"
# The page's own command for a pull from elsewhere names this one.
PAGE_REMOTE = "--remote bucket"
# The page's sections, and the remotes that they add.
SERVERS = {"S3": "bucket", "WebDAV": "dav", "Plain web server": "web"}
SECONDS = 120
IDENTITY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "t"), ("EMAIL", "t@example.org"))
}


# The page


def section(title: str) -> str:
    """The text below a heading, up to the next one."""
    (found,) = re.findall(
        rf"^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)", DOC.read_text(), re.MULTILINE | re.DOTALL
    )
    return str(found)


def commands(title: str, here: Mapping[str, str] | None = None) -> list[list[str]]:
    """The commands of a section but make's and pip's, with what ``here`` has for the page's own names."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", section(title), re.MULTILINE | re.DOTALL)
    text = "".join(blocks)
    for there, ours in (here or {}).items():
        assert there in text, f"{title} does not say {there}"
        text = text.replace(there, ours)
    words = [shlex.split(line, comments=True) for line in text.splitlines()]
    return [line for line in words if line and line[0] not in ("make", "pip")]


def account(title: str, values: Mapping[str, str]) -> str:
    """The section's lines for config.local, with ``values`` for each ``<what to put here>``."""
    (text,) = re.findall(r"^```ini\n(.*?)^```$", section(title), re.MULTILINE | re.DOTALL)
    named = dict(re.findall(r"^ *(\w+) = <(.*)>$", text, re.MULTILINE))
    assert named.keys() == values.keys()
    for name, value in values.items():
        text = text.replace(f"{name} = <{named[name]}>", f"{name} = {value}")
    return str(text)


# Clones


@dataclass(frozen=True)
class Project:
    """A clone; what it runs sees this clone's accounts and nobody else's."""

    folder: Path

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs a command of the page, whatever comes of it."""
        program = [sys.executable, "-m", "dvc"] if words[0] == "dvc" else [words[0]]
        return subprocess.run(
            [*program, *words[1:]],
            cwd=self.folder,
            env={**os.environ, **IDENTITY, "DVC_NO_ANALYTICS": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )

    def must(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def follow(self, title: str, here: Mapping[str, str] | None = None) -> None:
        """Does what a section of the page says."""
        for line in commands(title, here):
            self.must(*line)

    def clone(self, folder: Path) -> Project:
        self.must("git", "clone", "--quiet", str(self.folder), str(folder))
        return Project(folder)

    def log_in(self, title: str, accounts: Mapping[str, str]) -> None:
        (self.folder / ACCOUNTS).write_text(account(title, accounts))

    def forget(self) -> None:
        """As in a clone that has pulled nothing."""
        for name in ("models/target", "models/dgn", "models/robust", ".dvc/cache"):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    @functools.cached_property
    def published(self) -> dict[str, str]:
        """The md5 of each model in dvc.lock, by its path."""
        stages = yaml.safe_load((self.folder / "dvc.lock").read_text())["stages"].values()
        outs = [out for stage in stages for out in stage.get("outs", [])]
        return {out["path"]: out["md5"] for out in outs if out["path"].startswith("models/")}

    @property
    def models(self) -> dict[str, str]:
        """The md5 of each model that is here, by its path."""
        found = (self.folder / "models").rglob("*.safetensors")
        return {
            path.relative_to(self.folder).as_posix(): hashlib.md5(path.read_bytes()).hexdigest()
            for path in found
        }

    def stored(self, path: str) -> str:
        """Where a remote keeps a model, below its own address."""
        md5 = self.published[path]
        return f"files/md5/{md5[:2]}/{md5[2:]}"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, nothing_of_the_user: None) -> Project:
    """A clone of the last commit with its models, pulled from the store in the repository."""
    project = Project(ROOT).clone(tmp_path_factory.mktemp("home") / "deepcustom")
    project.follow("Fetch them")
    return project


# Servers


@dataclass(frozen=True)
class Server:
    """A running server, empty: what it is called on the page, who may in, and how to alter a file."""

    here: dict[str, str]
    write: Callable[[str, bytes], object]
    accounts: dict[str, str] = field(default_factory=dict)


def overwrite(file: Path, content: bytes) -> None:
    """DVC keeps what it has read-only."""
    file.chmod(0o644)
    file.write_bytes(content)


@pytest.fixture(scope="module")
def bucket(object_store: ObjectStore) -> Server:
    """The S3-compatible server."""
    return Server(
        {
            "s3://my-bucket": object_store.bucket("models"),
            "https://s3.example.org": object_store.endpoint,
        },
        lambda name, content: object_store.client().put_object(
            Bucket="models", Key=f"deepcustom/{name}", Body=content
        ),
        {"access_key_id": object_store.key_id, "secret_access_key": object_store.secret},
    )


@pytest.fixture(scope="module")
def dav(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A WebDAV server for anna alone."""
    from cheroot import wsgi
    from wsgidav.wsgidav_app import WsgiDAVApp

    folder = tmp_path_factory.mktemp("dav")
    (folder / "models").mkdir()
    app = WsgiDAVApp(
        {
            "provider_mapping": {"/": str(folder)},
            "simple_dc": {"user_mapping": {"*": {"anna": {"password": "hers"}}}},
            "http_authenticator": {"accept_digest": False, "default_to_digest": False},
            "logging": {"enable": False},
            "verbose": 0,
        }
    )
    server = wsgi.Server(("127.0.0.1", 0), app)
    server.prepare()
    threading.Thread(target=server.serve, daemon=True).start()
    yield Server(
        {"webdavs://dav.example.org": f"webdav://127.0.0.1:{server.bind_addr[1]}"},
        lambda name, content: overwrite(folder / "models" / name, content),
        {"user": "anna", "password": "hers"},
    )
    server.stop()


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A web server that only reads."""
    folder = tmp_path_factory.mktemp("web")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Server(
        {
            "https://www.example.org": f"http://127.0.0.1:{server.server_address[1]}",
            "/var/www": str(folder),
        },
        lambda name, content: overwrite(folder / "models" / name, content),
    )
    server.shutdown()


@dataclass(frozen=True)
class Elsewhere:
    """A clone that has no models and no store, and the remote that it knows instead."""

    title: str
    server: Server
    project: Project

    @property
    def name(self) -> str:
        return SERVERS[self.title]

    def pull(self, *targets: str) -> subprocess.CompletedProcess[str]:
        """As the page says, with this remote's name; with ``targets``, those alone."""
        self.project.forget()
        (line,) = commands("Keep them elsewhere", {PAGE_REMOTE: f"--remote {self.name}"})
        command = line[: line.index(self.name) + 1]
        return self.project.run(*command, *(targets or line[len(command) :]))

    def log_in(self, **changes: str) -> None:
        """Does nothing where there are no accounts."""
        if self.server.accounts:
            self.project.log_in(self.title, {**self.server.accounts, **changes})


@pytest.fixture(scope="module")
def elsewhere(
    request: pytest.FixtureRequest, home: Project, tmp_path_factory: pytest.TempPathFactory
) -> Elsewhere:
    """After another clone set the remote up as the page says, and brought the models there."""
    title: str = request.param
    server: Server = request.getfixturevalue(SERVERS[title])
    if server.accounts:
        home.log_in(title, server.accounts)
    home.follow(title, server.here)
    home.must("git", "commit", "--quiet", "--message", title, ".dvc/config")
    project = home.clone(tmp_path_factory.mktemp("elsewhere") / "deepcustom")
    shutil.rmtree(project.folder / STORE)
    remote = Elsewhere(title, server, project)
    remote.log_in()
    return remote


# The store in the repository


def test_a_clone_pulls_every_published_model_from_the_store_inside_it(home: Project) -> None:
    assert home.models == home.published
    for path in home.published:
        stored = home.folder / STORE / home.stored(path)
        assert stored.read_bytes() == (home.folder / path).read_bytes(), path


def test_the_page_says_how_many_models_there_are_and_how_large(home: Project) -> None:
    size = sum((home.folder / path).stat().st_size for path in home.published)
    assert f"{len(home.published)} files, {size / 1e6:.0f} MB" in DOC.read_text()


def test_make_pull_is_the_command_of_the_page() -> None:
    line, _ = commands("Fetch them")
    assert f"$(BIN)/{shlex.join(line)}\n" in (ROOT / "Makefile").read_text()


def test_one_model_comes_by_its_path_and_into_another_folder(home: Project, tmp_path: Path) -> None:
    pull, get = commands("One model", {"../deepcustom": str(home.folder)})
    (home.folder / MODEL).unlink()
    home.must(*pull)
    assert home.models == home.published
    Project(tmp_path).must(*get)
    (got,) = tmp_path.iterdir()
    assert hashlib.md5(got.read_bytes()).hexdigest() == home.published[MODEL]


def test_a_damaged_model_of_the_store_is_refused_and_git_restores_it(
    home: Project, tmp_path: Path
) -> None:
    project = home.clone(tmp_path / "clone")
    stored = project.folder / STORE / project.stored(MODEL)
    stored.write_bytes(damaged(stored.read_bytes()))
    line, _ = commands("Fetch them")
    done = project.run(*line)
    assert done.returncode == 1, done.stdout + done.stderr
    assert MODEL in done.stderr
    assert project.models == {p: md5 for p, md5 in project.published.items() if p != MODEL}
    project.must("git", "restore", STORE)
    project.must("dvc", "pull", STAGE)
    assert project.models == project.published


def test_collecting_garbage_takes_what_no_model_needs_and_nothing_else(
    home: Project, tmp_path: Path
) -> None:
    """After training anew the store has the old model too."""
    project = home.clone(tmp_path / "clone")
    old = project.folder / STORE / "files/md5/00" / ("0" * 30)
    old.parent.mkdir()
    old.write_bytes(b"of an older model")
    look, collect = commands("After training anew")
    assert look == [*collect, "--dry"]
    assert str(old) in project.must(*look)
    assert old.exists()
    # Without a terminal nobody can be asked.
    project.must(*collect, "--force")
    assert not old.exists()
    assert project.must("git", "status", "--porcelain", STORE) == ""


# Elsewhere


def damaged(content: bytes) -> bytes:
    """One byte of it is another."""
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def refused(remote: Elsewhere, done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode != 0, done.stdout + done.stderr
    assert "ERROR" in done.stderr
    assert remote.project.models == {}


@pytest.mark.parametrize("elsewhere", SERVERS, indirect=True)
def test_models_come_back_from_elsewhere_to_the_byte(elsewhere: Elsewhere, home: Project) -> None:
    done = elsewhere.pull()
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (elsewhere.project.folder / STORE).exists()
    assert elsewhere.project.models == home.models == home.published


@pytest.mark.parametrize("elsewhere", SERVERS, indirect=True)
def test_a_damaged_model_from_elsewhere_is_refused(elsewhere: Elsewhere, home: Project) -> None:
    whole = (home.folder / MODEL).read_bytes()
    elsewhere.server.write(home.stored(MODEL), damaged(whole))
    try:
        done = elsewhere.pull(STAGE)
    finally:
        elsewhere.server.write(home.stored(MODEL), whole)
    refused(elsewhere, done)
    assert MODEL in done.stderr


@pytest.mark.parametrize("elsewhere", ["S3", "WebDAV"], indirect=True)
def test_a_wrong_password_is_an_error_and_fetches_nothing(elsewhere: Elsewhere) -> None:
    elsewhere.log_in(**{list(elsewhere.server.accounts)[-1]: "wrong"})
    try:
        done = elsewhere.pull(STAGE)
    finally:
        elsewhere.log_in()
    refused(elsewhere, done)


@pytest.mark.parametrize("elsewhere", ["Plain web server"], indirect=True)
def test_a_server_that_is_away_is_an_error(elsewhere: Elsewhere) -> None:
    """The one whose absence DVC takes for missing files, and `--allow-missing` for all in order."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        away = f"http://127.0.0.1:{taken.getsockname()[1]}/models"
    file = elsewhere.project.folder / ACCOUNTS
    file.write_text(f"['remote \"web\"']\n    url = {away}\n")
    try:
        done = elsewhere.pull()
    finally:
        file.unlink()
    refused(elsewhere, done)


@pytest.mark.parametrize("elsewhere", ["Plain web server"], indirect=True)
def test_models_that_moved_for_good_are_fetched_by_a_clone_and_from_a_git_address(
    elsewhere: Elsewhere, tmp_path: Path
) -> None:
    moved = elsewhere.project.clone(tmp_path / "moved")
    moved.follow("Move them for good")
    assert not (moved.folder / STORE).exists()
    clone = moved.clone(tmp_path / "clone")
    clone.must("dvc", "pull", STAGE)
    assert clone.models == {MODEL: clone.published[MODEL]}
    (tmp_path / "other").mkdir()
    get = commands("One model", {"../deepcustom": f"file://{moved.folder}"})[1]
    Project(tmp_path / "other").must(*get)
    (got,) = (tmp_path / "other").iterdir()
    assert hashlib.md5(got.read_bytes()).hexdigest() == clone.published[MODEL]


@pytest.mark.parametrize(("title", "name"), [*SERVERS.items(), ("SSH", "server")])
def test_dvc_hashes_what_it_fetches_from_any_remote_of_the_page(title: str, name: str) -> None:
    lines = commands(title)
    assert [line[3] for line in lines if line[:3] == ["dvc", "remote", "add"]] == [name]
    assert ["dvc", "remote", "modify", name, "verify", "true"] in lines
    assert [line[2:] for line in lines if line[1] == "push"] in ([["--remote", name]], [])
