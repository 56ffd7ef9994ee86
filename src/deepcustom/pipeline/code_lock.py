"""``deepcustom.lock``: a hash of each stage's code, for a project without the package's sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import deepcustom
from deepcustom.base.errors import InputError
from deepcustom.base.files import replace_file
from deepcustom.base.once import read_yaml
from deepcustom.pipeline.code import (
    PREFIX,
    closure,
    closure_of,
    code_digest,
    hashes,
    loaded_package,
    stages_of,
)

LOCK = "deepcustom.lock"
FIRST_LINE = (
    "# Made by `deepcustom upgrade`, not by hand: the package's version, and a hash of the code that each\n"
    "# stage runs.\n"
)
REMEDY = "`deepcustom upgrade` writes it, and says what will run again"

FINDERS = {
    "attacks/losses/base.py": "attacks/losses",
    "base/names.py": "training/nets",
    "data/own/function.py": "data/own",  # a function of the user's own, in ``own/data``
    "data/sources.py": "data",
    "hardening/ways.py": "hardening",
}
"""Modules that find others by name while a stage runs, and the folder that they search."""


@dataclass(frozen=True)
class CodeLock:
    """What ``deepcustom.lock`` holds.

    Attributes:
        version: the package's.
        stages: stage → digest of the code that it may run.
    """

    version: str
    stages: Mapping[str, str]


def has_sources(root: Path) -> bool:
    """Whether the package's own sources lie in the project, where DVC hashes them."""
    return (root / PREFIX).is_dir()


def may_run(stage: str) -> set[str]:
    """The modules that a stage may run, also those found by name; relative to the package's folder."""
    found, left = set(closure(stage)), [*closure(stage)]
    while left:
        more = _found_by(left.pop()) - found
        found |= more
        left += more
    return found


def _found_by(module: str) -> set[str]:
    """The modules that ``module`` may find by name, and what they import; none if FINDERS lacks it."""
    if module not in FINDERS:
        return set()
    package = loaded_package()
    files = (package / FINDERS[module]).glob("[!_]*.py")
    paths = [PREFIX + file.relative_to(package).as_posix() for file in files]
    return {one.removeprefix(PREFIX) for path in paths for one in closure_of(path)}


def stage_digest(stage: str) -> str:
    """The digest of all code that a stage may run, from the package that Python loaded."""
    return code_digest(hashes(may_run(stage), loaded_package()))


def write_lock(root: Path) -> None:
    """Write the lock for the package that Python loaded, whole or not at all."""
    digests = {stage: stage_digest(stage) for stage in stages_of(loaded_package())}
    tree = {"version": deepcustom.__version__, "stages": digests}
    replace_file(root / LOCK, (FIRST_LINE + yaml.safe_dump(tree, sort_keys=False)).encode())


def read_code_lock(root: Path) -> CodeLock:
    """Read the lock of a project.

    Raises:
        InputError: the file is missing, or holds something else.
    """
    path = root / LOCK
    if not path.is_file():
        raise InputError(
            f"neither {PREFIX.rstrip('/')} nor {LOCK} is here, so DVC could not tell which code ran: {REMEDY}"
        )
    found = parse_lock(path.read_bytes())
    if found is None:
        raise InputError(f"{LOCK} is not readable: {REMEDY}")
    return found


def parse_lock(content: bytes) -> CodeLock | None:
    """Parse the bytes of a lock; None if they are something else."""
    try:
        tree: Any = read_yaml(content)
    except (yaml.YAMLError, UnicodeDecodeError):
        return None
    stages = tree.get("stages") if isinstance(tree, dict) else None
    if not isinstance(stages, dict) or not all(isinstance(one, str) for one in stages.values()):
        return None
    return CodeLock(str(tree.get("version")), stages)


def check_lock(root: Path, stage: str) -> str:
    """Check the lock against a stage's code in the package that Python loaded; return the code's digest.

    Raises:
        InputError: the lock is missing, or is for another version or other code; the message is one line.
    """
    lock, version = read_code_lock(root), deepcustom.__version__
    if lock.version != version:
        raise InputError(f"{LOCK} is for version {lock.version}, this is {version}: {REMEDY}")
    digest = stage_digest(stage)
    if lock.stages.get(stage) != digest:
        raise InputError(
            f"{LOCK} is for other code of the stage {stage} than {loaded_package()} has: {REMEDY}"
        )
    return digest


def update_lock(root: Path) -> list[str]:
    """Write the lock anew for the package that Python loaded.

    Returns:
        The stages whose code differs from what the lock said before; all of them if there was none.

    Raises:
        InputError: the package's sources lie in this project.
    """
    if has_sources(root):
        raise InputError(
            f"{PREFIX.rstrip('/')} is here, and DVC hashes it: this project needs no {LOCK}"
        )
    path = root / LOCK
    before = parse_lock(path.read_bytes()) if path.is_file() else None
    write_lock(root)
    old = before.stages if before else {}
    return [name for name, digest in read_code_lock(root).stages.items() if old.get(name) != digest]
