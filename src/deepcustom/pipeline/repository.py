"""The git repository of a profile's workspace, without which DVC runs and shows no experiments there."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from deepcustom.base.errors import InputError
from deepcustom.base.files import replace_file
from deepcustom.pipeline.dvc import run_dvc

OF_RUNS = """/mlflow.db
/mlflow.db.lock
/mlartifacts/
/mlruns/
/reports/runs/**/*.png
/reports/own/
.*.partial*
/.checkpoints/
"""
"""Lines of a project's ``.gitignore``: what runs leave that git is not to keep."""
IGNORED = f"""__pycache__/
# DVC keeps the models. The rest can be made anew from what they and the settings say.
/data/**
!/data/**/
!/data/**/.gitignore
/models/**
!/models/**/
!/models/**/.gitignore
{OF_RUNS}"""
SETTINGS = {"user.name": "deepcustom", "user.email": "deepcustom@localhost"}
"""Who commits where git does not know the user."""


def begin(root: Path) -> None:
    """Make ``root`` a repository of git and of DVC, if it is not one yet.

    Where git is not installed, it becomes one of DVC alone. So were all workspaces of earlier versions.

    Raises:
        InputError: git refuses, in git's own words.
        DeepCustomError: DVC failed.
    """
    if shutil.which("git") is None:
        if not (root / ".dvc").exists():
            run_dvc(root, ["init", "--quiet", "--no-scm"])
        return
    replace_file(root / ".gitignore", IGNORED.encode())
    if not (root / ".git").exists():
        _git(root, "init", "--quiet")
        _git(root, "config", "core.autocrlf", "false")  # code and settings are hashed as they are
    if not (root / ".dvc").exists():
        run_dvc(root, ["init", "--quiet"])
        run_dvc(
            root, ["config", "core.autostage", "true"]
        )  # or DVC says after each run what to add
    elif "no_scm" in (root / ".dvc/config").read_text():
        run_dvc(root, ["config", "--unset", "core.no_scm"])
    for key, value in SETTINGS.items():
        if not _git(root, "config", "--default", "", "--get", key):
            _git(root, "config", key, value)


def commit(root: Path, message: str, links: Sequence[str] = ()) -> None:
    """Commit all that has changed in a workspace, if anything has.

    Args:
        root: the workspace.
        message: the commit's.
        links: paths that lead out of the workspace. An experiment's copy has them too, since git tracks
            them, although it ignores their folders.

    Raises:
        InputError: git refuses, in git's own words.
    """
    if not (root / ".git").exists():
        return
    _git(root, "add", "--all")
    there = [path for path in links if (root / path).is_symlink()]
    if there:
        _git(root, "add", "--force", "--", *there)
    if _git(root, "status", "--porcelain", "--untracked-files=no"):
        words = ("--quiet", "--no-verify", "--no-gpg-sign", "--message", message)
        _git(root, "commit", *words)


def _git(root: Path, *words: str) -> str:
    """Run git on the repository in ``root``, even if a hook of another one started this program."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, env=environ)
    if done.returncode:
        why = " ".join((done.stderr or done.stdout).split())
        raise InputError(f"git {words[0]} failed in {root}: {why}")
    return done.stdout.strip()
