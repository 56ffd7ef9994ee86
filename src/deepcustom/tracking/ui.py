"""MLflow's web page of the runs: its address, and a server for it if none is running."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from deepcustom.base.errors import TrackingError
from deepcustom.base.progress import hushed
from deepcustom.tracking.store import artifact_root, experiment_id, shown, tracking_uri

FIRST_PORT = 5000
PORTS_TRIED = 100
START_SECONDS = 60.0
STOP_SECONDS = 5.0
SERVERS = ("http://", "https://")
SERVER_OPTIONS = {
    *("MLFLOW_REGISTRY_STORE_URI", "MLFLOW_READ_REPLICA_BACKEND_STORE_URI", "MLFLOW_STATIC_PREFIX"),
    *("MLFLOW_ARTIFACTS_ONLY", "MLFLOW_ARTIFACTS_DESTINATION", "MLFLOW_SERVE_ARTIFACTS"),
    *("MLFLOW_EXPOSE_PROMETHEUS", "MLFLOW_GUNICORN_OPTS", "MLFLOW_WORKSPACE_STORE_URI"),
}
"""Variables that stand for options of ``mlflow server`` which :func:`ui_command` leaves out."""
ANY_INTERFACE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}


def ui_command(root: Path, host: str = "127.0.0.1", port: int = FIRST_PORT) -> list[str]:
    """The command that serves the store of ``root``, with the same Python that runs this."""
    uri = tracking_uri(root)
    artifacts = artifact_root(uri)
    return [
        *(sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri),
        *(("--default-artifact-root", artifacts) if artifacts else ()),
        *("--host", host, "--port", str(port), "--workers", "1"),
        "--uvicorn-opts=--log-level warning",
    ]


def ui_address(root: Path, host: str = "127.0.0.1", port: int = FIRST_PORT) -> str:
    """Where a browser finds the table of runs; makes store and experiment if need be.

    Raises:
        TrackingError: The store cannot be reached.
    """
    uri = tracking_uri(root)
    here = f"http://{ANY_INTERFACE.get(host, host)}:{port}"
    base = shown(uri).rstrip("/") if uri.startswith(SERVERS) else here
    return f"{base}/#/experiments/{experiment_id(root)}/runs?workflowType=machine_learning"


def free_port(host: str = "127.0.0.1", first: int = FIRST_PORT) -> int:
    """The first port from ``first`` on that nobody listens on.

    Raises:
        TrackingError: Too many in a row are taken.
    """
    ports = range(first, first + PORTS_TRIED)
    found = next((port for port in ports if _is_free(host, port)), None)
    if found is None:
        raise TrackingError(f"no free port on {host} from {ports[0]} to {ports[-1]}")
    return found


def serve_ui(
    root: Path,
    host: str = "127.0.0.1",
    port: int | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Serves MLflow's page until interrupted, and says its address once it answers.

    If ``MLFLOW_TRACKING_URI`` names a server, this starts none and only says that server's address.

    Args:
        root: The repository's root, where the default store lies.
        host: The interface to listen on.
        port: The port to listen on; None takes the first free one from 5000 on.
        say: Called with each line meant for the user.

    Raises:
        TrackingError: The store cannot be reached, the port is taken, or the server did not start.
    """
    if tracking_uri(root).startswith(SERVERS):
        say(f"MLFLOW_TRACKING_URI names a running server: {ui_address(root)}")
        return
    if port is None:
        port = free_port(host)
    elif not _is_free(host, port):
        raise TrackingError(f"port {port} on {host} is taken: choose another, or none")
    address = ui_address(root, host, port)
    with _stop_on_signals(), _server(ui_command(root, host, port)) as server:
        _wait_until_ready(server, ANY_INTERFACE.get(host, host), port)
        say(f"MLflow: {address} (Ctrl-C stops it)")
        with hushed():
            code = server.wait()
        if code != 0:
            raise TrackingError(f"the MLflow server ended by itself with {code}")


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


@contextmanager
def _stop_on_signals() -> Iterator[None]:
    """Ends the block quietly on Ctrl-C or SIGTERM."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)


def server_environment() -> dict[str, str]:
    """This process's environment for a server that the command line alone describes.

    Options of ``mlflow server`` may also be variables; such ones were set for another server.
    """
    kept = {name: value for name, value in os.environ.items() if name not in SERVER_OPTIONS}
    return {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PYTHONWARNINGS": "ignore",
        **kept,
    }


@contextmanager
def _server(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Runs the server in a process group of its own, so that all its workers end with the block."""
    server = subprocess.Popen(
        command, env=server_environment(), stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield server
    finally:
        try:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(STOP_SECONDS)
        except ProcessLookupError:
            pass
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _wait_until_ready(server: subprocess.Popen[bytes], host: str, port: int) -> None:
    end = time.monotonic() + START_SECONDS
    while not _answers(host.strip("[]"), port):
        if server.poll() is not None:
            raise TrackingError(f"the MLflow server did not start on {host}:{port}; see above")
        if time.monotonic() > end:
            raise TrackingError(f"the MLflow server did not answer in {START_SECONDS:.0f} s")
        time.sleep(0.2)


def _answers(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=1)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
