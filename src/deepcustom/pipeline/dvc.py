"""Runs DVC through its command line, and reads ``dvc.lock``."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import yaml

from deepcustom.base.errors import DeepCustomError, InputError, OutputError, one_line
from deepcustom.base.once import OnceLoader
from deepcustom.base.progress import hushed


def run_dvc(
    root: Path, words: Sequence[str], *, check: bool = True, env: Mapping[str, str] | None = None
) -> int:
    """Run ``dvc`` in ``root``; the user sees its output.

    Args:
        root: a folder with ``.dvc``, or one where ``dvc init`` will make it.
        words: the command line after ``dvc``.
        check: whether a failure is an error.
        env: environment variables to add to this process's own.

    Returns:
        DVC's exit code.

    Raises:
        DeepCustomError: DVC failed, and ``check`` is true.
    """
    with hushed() if words[0] == "repro" else nullcontext():  # its stages report for themselves
        code = subprocess.run(_command(words), cwd=root, env=_environment(env)).returncode
    if check and code:
        raise DeepCustomError(f"dvc {words[0]} failed in {root.name}, see above")
    return code


def status(root: Path) -> dict[str, list[Any]]:
    """Ask ``dvc status`` which stages would run again, and why.

    It is asked for the whole project: for many stages by name, with those that they need, DVC would go
    through the same files again for each (52 s instead of 7 s for this repository).

    Raises:
        DeepCustomError: DVC failed; the message is its own.
    """
    found: dict[str, list[Any]] = json.loads(_ask(root, "status", "--json"))
    return found


def absent(root: Path, remote: str) -> list[str]:
    """The outputs that are here, and not in a remote.

    Raises:
        DeepCustomError: DVC failed; the message is its own.
    """
    words = [
        "status",
        "--cloud",
        "--json",
        "--remote",
        remote,
    ]  # of all: by name DVC takes far longer
    found: dict[str, str] = json.loads(_ask(root, *words))
    return [path for path, how in found.items() if how == "new"]


def stage_names(root: Path) -> list[str]:
    """The stages of ``dvc.yaml``, as DVC resolves it.

    Raises:
        DeepCustomError: DVC failed; the message is its own.
    """
    return _ask(root, "stage", "list", "--name-only").split()


def remote(root: Path, name: str | None = None) -> tuple[str, str]:
    """The name and the address of a remote; a folder's address is an absolute path.

    Args:
        root: the project.
        name: the remote's name; None: the default remote.

    Raises:
        InputError: there is no such remote.
    """
    from dvc.config import Config, ConfigError

    try:
        config = Config(dvc_dir=str(root / ".dvc"))
    except ConfigError as error:
        raise InputError(f".dvc/config: {' '.join(str(error).split())}") from None
    chosen = name or config["core"].get("remote")
    if chosen is None:
        raise InputError("no default remote: `dvc remote add --default NAME URL` adds one")
    if chosen not in config["remote"]:
        known = ", ".join(config["remote"]) or "none"
        raise InputError(f"no remote {chosen!r}: `dvc remote list` lists them; there are: {known}")
    return chosen, str(config["remote"][chosen]["url"])


def is_at_work(root: Path) -> bool:
    """Whether a living process of DVC works in a project: it holds the lock, or runs a stage there.

    While a stage runs, DVC lets go of its lock, and notes in ``.dvc/tmp/rwlock`` what it reads and writes.
    """
    import psutil

    notes = root / ".dvc/tmp"
    try:
        found = json.loads((notes / "rwlock").read_text())
        written, read = found.get("write", {}).values(), found.get("read", {}).values()
        pids = [one["pid"] for one in (*written, *(one for some in read for one in some))]
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        pids = []
    if any(psutil.pid_exists(pid) for pid in pids if isinstance(pid, int)):
        return True
    return (notes / "lock").is_file() and _is_locked(notes / "lock")


@contextmanager
def kept_out(root: Path) -> Iterator[None]:
    """Hold DVC's lock, so that no command of DVC changes a project meanwhile.

    Raises:
        DeepCustomError: DVC is at work there.
    """
    from zc.lockfile import LockError, SimpleLockFile

    path = root / ".dvc/tmp/lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = None if is_at_work(root) else SimpleLockFile(str(path))
    except LockError:
        lock = None
    if lock is None:
        raise DeepCustomError(f"DVC is at work in {root.name}: try again when it has ended")
    try:
        yield
    finally:
        lock.close()


def keep_outputs(root: Path, stages: Iterable[str]) -> None:
    """Put what ``stages`` made into DVC's cache, where it is what ``dvc.lock`` says; change nothing else.

    ``dvc commit`` does this too, but writes ``dvc.lock`` anew for every stage, which takes 4 s each.

    Raises:
        OutputError: the cache cannot be written; DVC then makes the rest again when it needs it.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with chdir(root), Repo() as repo:  # DVC looks for names from the current folder
            for name in stages:
                for stage in repo.stage.collect(name):
                    _keep(stage.outs)
    except (DvcException, OSError) as error:
        raise OutputError(f"DVC's cache cannot be written: {one_line(error)}") from error


def _keep(outs: Iterable[Any]) -> None:
    for out in outs:
        locked = out.hash_info
        if out.use_cache and out.exists:
            out.save()
            if out.hash_info == locked:
                out.commit()


def _is_locked(path: Path) -> bool:
    from zc.lockfile import LockError, SimpleLockFile

    try:
        SimpleLockFile(str(path)).close()
    except LockError:
        return True
    except OSError:
        pass
    return False


def read_lock(root: Path) -> dict[str, Any]:
    """The stages of ``dvc.lock``, by name; none if the file is missing.

    Raises:
        InputError: the file is not a ``dvc.lock`` as DVC writes it.
    """
    path = root / "dvc.lock"
    try:
        lock = read_value(path.read_bytes()) if path.is_file() else {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"dvc.lock is not readable: {reason}") from None
    stages = lock.get("stages", {}) if isinstance(lock, dict) else None
    if not isinstance(stages, dict) or not all(isinstance(one, dict) for one in stages.values()):
        raise InputError("dvc.lock holds no stages: `git checkout dvc.lock` brings it back")
    return stages


def parse_stages(content: bytes | None) -> dict[str, Any]:
    """The stages in the bytes of a ``dvc.lock``; none if the bytes are something else."""
    try:
        lock = read_value(content or b"")
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}
    stages = lock.get("stages") if isinstance(lock, dict) else None
    return stages if isinstance(stages, dict) else {}


class _Loader(OnceLoader):
    """Reads 1e-06 as a number. DVC writes YAML 1.2, where it is one; PyYAML alone would read text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def read_value(text: str | bytes) -> Any:
    """Parse YAML as DVC does, with 1e-06 as a number.

    Raises:
        yaml.YAMLError: the text is not YAML, or a key stands twice.
    """
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _ask(root: Path, *words: str) -> str:
    """Run DVC and return what it prints."""
    done = subprocess.run(
        _command(words), cwd=root, env=_environment({}), capture_output=True, text=True
    )
    if done.returncode:
        reason = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise DeepCustomError(f"dvc {words[0]} failed in {root.name}: {reason}")
    return done.stdout


def _command(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "dvc", *words]


def _environment(more: Mapping[str, str] | None) -> dict[str, str]:
    """This process's environment, where stages find the scripts beside its Python first."""
    scripts = str(Path(sys.executable).parent)
    path = os.pathsep.join([scripts, os.environ.get("PATH", "")])
    return {"DVC_NO_ANALYTICS": "1", **os.environ, "PATH": path, **(more or {})}
