"""DVC, asked through its command line, and what ``dvc.lock`` says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import yaml

from deepcustom.base.errors import DeepCustomError, InputError
from deepcustom.base.progress import hushed


def run_dvc(
    root: Path, words: Sequence[str], *, check: bool = True, env: Mapping[str, str] | None = None
) -> int:
    """Run ``dvc`` in ``root``, its output before the user's eyes.

    Args:
        root: a folder with ``.dvc``, or one to be made so.
        words: its command line.
        check: whether a failure is an error.
        env: variables next to this process's own.

    Returns:
        Its exit code.

    Raises:
        DeepCustomError: it failed, and ``check``.
    """
    with hushed() if words[0] == "repro" else nullcontext():  # its stages speak for themselves
        code = subprocess.run(_command(words), cwd=root, env=_environment(env)).returncode
    if check and code:
        raise DeepCustomError(f"dvc {words[0]} failed in {root.name}, see above")
    return code


def status(root: Path, stages: Sequence[str]) -> dict[str, list[Any]]:
    """What ``dvc status`` says of ``stages`` and all that they need: what would run again, and why.

    Args:
        root: the project.
        stages: at least one; DVC takes none for all.

    Raises:
        DeepCustomError: DVC failed; the message is its own.
    """
    found: dict[str, list[Any]] = json.loads(_ask(root, "status", "--json", "--with-deps", *stages))
    return found


def stage_names(root: Path) -> list[str]:
    """The stages of ``dvc.yaml``, as DVC resolves it.

    Raises:
        DeepCustomError: DVC failed; the message is its own.
    """
    return _ask(root, "stage", "list", "--name-only").split()


def read_lock(root: Path) -> dict[str, Any]:
    """The stages of ``dvc.lock``, by name; none where there is no such file.

    Raises:
        InputError: it is no such file as DVC writes.
    """
    path = root / "dvc.lock"
    try:
        lock = read_value(path.read_text()) if path.is_file() else {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"dvc.lock is not readable: {reason}") from None
    stages = lock.get("stages", {}) if isinstance(lock, dict) else None
    if not isinstance(stages, dict) or not all(isinstance(one, dict) for one in stages.values()):
        raise InputError("dvc.lock holds no stages: `git checkout dvc.lock` brings it back")
    return stages


def parse_stages(content: bytes | None) -> dict[str, Any]:
    """The stages of a ``dvc.lock`` with these bytes; none where they are none of it."""
    try:
        lock = read_value(content or b"")
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}
    stages = lock.get("stages") if isinstance(lock, dict) else None
    return stages if isinstance(stages, dict) else {}


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Takes 1e-06 for a number, as YAML 1.2 has it, in which DVC writes."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def read_value(text: str | bytes) -> Any:
    """YAML as DVC reads it, in which 1e-06 is a number.

    Raises:
        yaml.YAMLError: it is none.
    """
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _ask(root: Path, *words: str) -> str:
    """What DVC prints."""
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
    """This process's, with the scripts beside its Python first, for the commands of stages."""
    scripts = str(Path(sys.executable).parent)
    path = os.pathsep.join([scripts, os.environ.get("PATH", "")])
    return {"DVC_NO_ANALYTICS": "1", **os.environ, "PATH": path, **(more or {})}
