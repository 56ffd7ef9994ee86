"""Where a result came from: hashes as DVC computes them, the code's commit, the machine."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from deepcustom.base.files import replace_file
from deepcustom.base.hashes import listing_md5

# These decide a result, besides its inputs; a change elsewhere does not make a run dirty.
CODE = (
    *("src", "examples", "own", "profiles"),
    *("dvc.yaml", "params.yaml", "deepcustom.lock", "requirements.lock"),
)
PACKAGES = (
    "deepcustom",
    "torch",
    "numpy",
    "adversarial-robustness-toolbox",
    "captum",
    "pyautoattack",
    "scikit-learn",
    "safetensors",
    "dvc",
    "mlflow",
)
CPUINFO = Path("/proc/cpuinfo")  # only Linux has it
# Its lines that tell one kind of processor from another, on x86 and on ARM.
CPU_LINES = (
    *("vendor_id", "cpu family", "model", "model name", "flags"),
    *("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "Features"),
)


GIT_SECONDS = 30
NO_REPOSITORY = ("(or any of the parent", "(or any parent up to")
"""How git says that a folder lies in no repository; of one that it cannot read it says something else."""

ORIGIN = "copied-from.json"
"""A file of a workspace: which project its code and settings are a copy of, and in which state that was."""


class Origin(NamedTuple):
    """Where a workspace's copy of the code comes from.

    Attributes:
        project: the project's folder.
        commit: the one that was checked out there.
        dirty: whether code or settings differed from it.
    """

    project: str
    commit: str | None
    dirty: bool | None


def note_origin(root: Path, project: Path) -> None:
    """Note in the workspace ``root`` that its code was just copied from ``project``."""
    made = Origin(str(project.resolve()), *_state(project))
    replace_file(root / ORIGIN, (json.dumps(made._asdict(), indent=1) + "\n").encode())


def origin(root: Path) -> Origin | None:
    """What a workspace, or an experiment's copy of it, notes of its origin; None for a project."""
    try:
        return Origin(**json.loads((root / ORIGIN).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def checkout(root: Path) -> Path:
    """The project whose git history has the commits that the records in ``root`` name."""
    made = origin(root)
    return Path(made.project) if made and Path(made.project).is_dir() else root


def git_state(folder: Path) -> tuple[str | None, bool | None]:
    """The commit that code and settings in ``folder`` come from, and whether they differ from it.

    For a project, and an experiment's copy of one, it is the commit checked out there. A workspace has
    commits of its own, but runs a copy of a project's code: for it the project's commit is told.

    Returns:
        The commit is None outside a git repository and before its first commit. Where git fails, what it
        does not say is None, and :func:`trouble` says why.
    """
    made = origin(folder)
    if made is None:
        return _state(folder)
    changed = _state(folder)[1]
    return made.commit, None if made.dirty is None else made.dirty or bool(changed)


def _state(folder: Path) -> tuple[str | None, bool | None]:
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None, None
    changed = _git(folder, "status", "--porcelain", "--", *CODE)
    return commit, None if changed is None else bool(changed)


def trouble(folder: Path) -> str | None:
    """Why git cannot read the repository that ``folder`` lies in; None where it can, or where there is none.

    Returns:
        One line in git's own words, which for a repository that belongs to another user end with the remedy.
    """
    words = ["git", "status", "--porcelain", "--", *CODE]
    told = {**os.environ, "LC_ALL": "C", "LANGUAGE": "C"}
    try:
        done = subprocess.run(words, cwd=folder, env=told, capture_output=True, timeout=GIT_SECONDS)
    except subprocess.TimeoutExpired:
        return f"git gave no answer in {GIT_SECONDS} seconds"
    except OSError as error:
        return f"git cannot be run: {error.strerror}" if _marked(folder) else None
    said = " ".join(done.stderr.decode(errors="replace").split()).removeprefix("fatal: ")
    if not done.returncode or any(words in said for words in NO_REPOSITORY):
        return None
    return said or f"git ended with {done.returncode}"


def repositories(folder: Path) -> list[Path]:
    """The top folders of the git repositories around ``folder``, the innermost first."""
    found: list[Path] = []
    while (top := repository(found[-1].parent if found else folder)) is not None:
        if top in found:
            break
        found.append(top)
    return found


def repository(folder: Path) -> Path | None:
    """The top folder of the git repository that ``folder`` lies in; None where there is none."""
    top = _git(folder, "rev-parse", "--show-toplevel")
    if top:
        return Path(top).resolve()
    return _marked(folder) if trouble(folder) else None


def _marked(folder: Path) -> Path | None:
    """The nearest folder above that looks like the top of a repository, whatever git says."""
    whole = folder.resolve()
    return next((one for one in (whole, *whole.parents) if (one / ".git").exists()), None)


def shallow(folder: Path) -> bool:
    """Whether the repository lacks older commits, as that of ``git clone --depth``."""
    return _git(folder, "rev-parse", "--is-shallow-repository") == "true"


def _git(folder: Path, *words: str) -> str | None:
    said = _git_bytes(folder, *words)
    return None if said is None else said.decode(errors="replace").strip()


def file_at(folder: Path, commit: str, path: str) -> bytes | None:
    """The content of a file in ``commit`` of the project in ``folder``; None if the commit lacks it."""
    return _git_bytes(folder, "show", f"{commit}:{path}")


def last_change(folder: Path, path: str) -> str | None:
    """The commit that last changed a file of the project in ``folder``; None where git knows of none."""
    return _git(folder, "log", "-1", "--format=%H", "--", path) or None


def md5_at(folder: Path, commit: str, path: str) -> str | None:
    """The hash that DVC gives a file or folder in ``commit``; None if the commit lacks it."""
    kind = _git(folder, "cat-file", "-t", f"{commit}:{path}")
    if kind == "tree":
        listed = _git_bytes(folder, "ls-tree", "-rz", "--name-only", f"{commit}:{path}") or b""
        names = [name for name in os.fsdecode(listed).split("\0") if name]
        return listing_md5({name: _md5_of(folder, commit, f"{path}/{name}") for name in names})
    return _md5_of(folder, commit, path) if kind else None


def _md5_of(folder: Path, commit: str, path: str) -> str:
    content = file_at(folder, commit, path) or b""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _git_bytes(folder: Path, *words: str) -> bytes | None:
    try:
        done = subprocess.run(
            ["git", *words], cwd=folder, capture_output=True, timeout=GIT_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def machine() -> dict[str, str]:
    """Kind of machine, without anything that identifies this one."""
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
    }


def processor() -> str:
    """Hash of the processor's model and instruction sets, which decide how sums are rounded."""
    try:
        lines = CPUINFO.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    kept = {" ".join(line.split()) for line in lines if line.partition(":")[0].strip() in CPU_LINES}
    text = "\n".join(sorted(kept)) or platform.processor()
    return hashlib.sha256(text.encode()).hexdigest()


def packages() -> dict[str, str]:
    """Versions of the packages that a result depends on."""
    return {name: metadata.version(name) for name in PACKAGES}
