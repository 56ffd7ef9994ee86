"""DVC, asked through its command line, and what ``dvc.lock`` says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from deepcustom.errors import DeepCustomError


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
    code = subprocess.run(_command(words), cwd=root, env=_environment(env)).returncode
    if check and code:
        raise DeepCustomError(f"dvc {words[0]} failed in {root.name}, see above")
    return code


def status(root: Path, stages: Sequence[str]) -> dict[str, list[Any]]:
    """What ``dvc status`` says of ``stages``: those that would run again, with the reasons.

    Raises:
        DeepCustomError: DVC failed; the message is its own.
    """
    done = subprocess.run(
        _command(["status", "--json", *stages]),
        cwd=root,
        env=_environment({}),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        reason = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise DeepCustomError(f"dvc status failed in {root.name}: {reason}")
    found: dict[str, list[Any]] = json.loads(done.stdout)
    return found


def read_lock(root: Path) -> dict[str, Any]:
    """The stages of ``dvc.lock``, by name; none where there is no such file."""
    path = root / "dvc.lock"
    lock = yaml.safe_load(path.read_text()) if path.is_file() else None
    return dict((lock or {}).get("stages", {}))


def _command(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "dvc", *words]


def _environment(more: Mapping[str, str] | None) -> dict[str, str]:
    """This process's, with the scripts beside its Python first, for the commands of stages."""
    scripts = str(Path(sys.executable).parent)
    path = os.pathsep.join([scripts, os.environ.get("PATH", "")])
    return {"DVC_NO_ANALYTICS": "1", **os.environ, "PATH": path, **(more or {})}
