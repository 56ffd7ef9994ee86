"""Connects a stage to a cluster, or starts one on this machine."""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepcustom.base.errors import InputError, one_line
from deepcustom.base.params import validate
from deepcustom.base.settings import ComputeParams, EngineParams, host_and_port
from deepcustom.pipeline.cluster.seal import packed
from deepcustom.pipeline.cluster.tasks import Cluster
from deepcustom.pipeline.code import PREFIX, closure_of, is_code
from deepcustom.pipeline.template import own_code

if TYPE_CHECKING:
    from deepcustom.pipeline.run import StageRun
    from deepcustom.training.compute import Compute

TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
"""Variables in which Ray looks for a cluster's token, before it looks into a file of the home folder."""


def is_asked(stage: StageRun) -> bool:
    """Whether independent pieces of the stage's work are tasks on a cluster."""
    return engine_of(stage.tree).kind == "ray"


def engine_of(tree: Mapping[str, Any]) -> EngineParams:
    """The section ``engine`` of a whole ``params.yaml``; where it is missing, this process does the work."""
    return validate(EngineParams, tree.get("engine", {"kind": "local"}), "engine")


def check_reachable(engine: EngineParams) -> None:
    """Find out, before any work, whether Ray is there and something listens at the cluster's address.

    Raises:
        InputError: Ray is not installed, or no cluster answers.
    """
    if find_spec("ray") is None:
        raise InputError(
            "params.yaml: engine.kind is ray, and Ray is not installed: pip install 'deepcustom[ray]'"
        )
    if (address := _address(engine)) is not None:
        _knock(address, "engine.address" if engine.address else "RAY_ADDRESS")


@contextmanager
def engine(stage: StageRun, compute: Compute, *, whole: bool = False) -> Iterator[Cluster | None]:
    """The cluster that does pieces of the stage's work; None where this process does them.

    Tasks compute as this process does, on the same kind of device and in the same precision, but each with
    one thread. The record tells the nodes with the machine.

    Args:
        stage: the running stage.
        compute: its device and precision.
        whole: whether all work is a single task. It stays here if several processes do it together, and if
            the cluster would be this machine, whose other threads would then do nothing.

    Raises:
        InputError: Ray is not installed, or no cluster answers.
    """
    asked = engine_of(stage.tree)
    alone = compute.together.count > 1 or not _address(asked)
    if not is_asked(stage) or (whole and alone):
        yield None
        return
    settings = {"device": compute.device.type, "precision": compute.describe()["precision"]}
    params = validate(ComputeParams, {**settings, "threads": 1}, "compute")
    root, name = stage.ws.root, stage.stage
    named = [path for path in stage.row.files if is_code(path, name)]
    own = {*named, *own_code(root, name)}
    for path in [path for path in named if path.endswith(".py")]:
        own |= {one for one in closure_of(path, root) if not one.startswith(PREFIX)}
    with cluster(asked, params, root, sorted(own)) as found:
        yield found
        here = stage.machine({"nodes": json.dumps(found.nodes, sort_keys=True)})
    for node in found.differing(here):
        print(
            f"warning: {stage.name}: node {node} has another kind of processor or device: its results may "
            "differ in the last bits from those of here",
            file=sys.stderr,
        )


def _address(engine: EngineParams) -> str | None:
    """The address of a cluster that others started; None: there is none."""
    return engine.address or os.environ.get("RAY_ADDRESS")


@contextmanager
def cluster(
    engine: EngineParams, params: ComputeParams, root: Path, own: Iterable[str]
) -> Iterator[Cluster]:
    """Connect to a cluster, or start one on this machine, and send it the code.

    Args:
        engine: its address.
        params: how tasks compute.
        root: the project.
        own: files and folders of the user's own code in it.

    Raises:
        InputError: Ray is not installed, or no cluster answers at the address.
    """
    check_reachable(engine)
    code = packed(root, own)
    _connect(engine)
    import ray

    try:
        yield Cluster(code, params, engine.patience)
    finally:
        ray.shutdown()


def _connect(engine: EngineParams) -> None:
    """Connect this process; Ray listens on every address of a machine, so it must ask for a token."""
    address = _address(engine)
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers
    if address is None and not any(name in os.environ for name in TOKENS):
        os.environ[TOKENS[0]] = secrets.token_hex(32)  # of this cluster alone
    try:
        import ray
    except ImportError as error:
        raise InputError(
            f"params.yaml: engine.kind is ray, and Ray cannot be loaded: {one_line(error)}"
        ) from error

    os.environ.setdefault("RAY_COLOR_PREFIX", "0")
    common: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        address, common["include_dashboard"] = "local", False
    try:
        ray.init(address=address, **common)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        why = str(error).strip().partition("\n")[0]
        what = (
            "starts on this machine"
            if address == "local"
            else f"takes this process in at {address} (is its token the one in RAY_AUTH_TOKEN?)"
        )
        raise InputError(f"no Ray cluster {what}: {why}") from error


def _knock(address: str, name: str) -> None:
    """Try an address quickly: Ray itself would try for a minute.

    Args:
        address: of a cluster.
        name: of the setting or variable that holds it.

    Raises:
        InputError: it is no address, or nothing listens there.
    """
    try:
        where = host_and_port(address)
    except ValueError as error:
        raise InputError(f"{name} {error} (found {address!r})") from error
    if where is None:
        return
    try:
        socket.create_connection(where, 10).close()
    except OSError as error:
        raise InputError(
            f"no Ray cluster answers at {address} ({name}): {error.strerror or error}"
        ) from error
