"""A Ray cluster of several nodes on this machine, as ``ray start`` makes it."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

RAY = Path(sys.executable).parent / "ray"

WAIT = """
import sys, time, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
while sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[2]):
    time.sleep(0.1)
"""
"""A program that ends when the cluster has so many nodes."""


@dataclass
class Nodes:
    """Running nodes of one core each.

    Attributes:
        address: of the cluster.
        environ: variables with which a process may join it.
        processes: one for each node, the head first.
    """

    address: str
    environ: dict[str, str]
    processes: list[subprocess.Popen[bytes]]

    def add(self) -> None:
        """Start one more node."""
        self._start("--address", self.address)

    def _start(self, *words: str) -> None:
        command = [RAY, "start", *words, "--num-cpus", "1", "--block", "--disable-usage-stats"]
        self.processes.append(
            subprocess.Popen(
                command,
                env={**os.environ, **self.environ},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )

    def kill(self, place: int) -> None:
        """End a node and all its processes at once."""
        _kill_tree(self.processes.pop(place))

    def workers(self, place: int, name: str = "ray::work") -> list[psutil.Process]:
        """The processes of a node that are doing a task, or what else ``name`` says."""
        below = psutil.Process(self.processes[place].pid).children(recursive=True)
        return [one for one in below if _name(one).startswith(name)]


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _kill_tree(process: subprocess.Popen[bytes]) -> None:
    try:
        below = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        below = []
    for one in [*below, process]:
        try:
            os.kill(one.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def kill_all(token: str) -> None:
    """End every process of the cluster that asks for ``token``."""
    for one in psutil.process_iter():
        try:
            if one.pid != os.getpid() and one.environ().get("RAY_AUTH_TOKEN") == token:
                one.kill()
        except psutil.Error:
            continue


@contextmanager
def nodes(count: int) -> Iterator[Nodes]:
    """A cluster of ``count`` nodes with one core each, which asks for a token; it ends with the context."""
    port = free_port()
    environ = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    found = Nodes(f"127.0.0.1:{port}", environ, [])
    try:
        found._start("--head", "--port", str(port), "--include-dashboard=false")
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with socket.socket() as knocking:
                if not knocking.connect_ex(("127.0.0.1", port)):
                    break
            time.sleep(0.1)
        for _ in range(count - 1):
            found.add()
        program = [sys.executable, "-c", WAIT, found.address, str(count)]
        subprocess.run(program, env={**os.environ, **environ}, check=True, timeout=120)
        yield found
    finally:
        while found.processes:
            found.kill(-1)
