"""Where a result came from: hashes as DVC computes them, the code's commit, the machine."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

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


CHECKOUT = "DEEPCUSTOM_CHECKOUT"  # set for workspaces, which run a copy of the project's code


def checkout(root: Path) -> Path:
    """The project that the code of the workspace ``root`` belongs to."""
    return Path(os.environ.get(CHECKOUT, root))


def git_state(folder: Path) -> tuple[str | None, bool | None]:
    """The commit checked out in a project's ``folder``, and whether code or settings differ from it.

    Returns:
        ``(None, None)`` outside a git repository, or where git is not installed.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None, None
    changed = _git(folder, "status", "--porcelain", "--", *CODE)
    return commit, bool(changed)


def repository(folder: Path) -> Path | None:
    """The top folder of the git repository that ``folder`` lies in; None where there is none."""
    top = _git(folder, "rev-parse", "--show-toplevel")
    return Path(top).resolve() if top else None


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
        names = [name for name in listed.decode().split("\0") if name]
        return listing_md5({name: _md5_of(folder, commit, f"{path}/{name}") for name in names})
    return _md5_of(folder, commit, path) if kind else None


def _md5_of(folder: Path, commit: str, path: str) -> str:
    content = file_at(folder, commit, path) or b""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _git_bytes(folder: Path, *words: str) -> bytes | None:
    try:
        done = subprocess.run(
            ["git", *words], cwd=folder, capture_output=True, timeout=30, check=True
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
