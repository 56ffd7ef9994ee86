"""What ``dvc.lock`` says of a project: what is not here, and what is out of date."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from deepcustom.base.hashes import dvc_md5
from deepcustom.base.once import read_yaml

HASHED = ("src/", "own/", "examples/")
"""What is small enough to be hashed while one waits: code."""


def absent(root: Path, lock: Mapping[str, Any]) -> dict[str, int]:
    """Output → its bytes, of all that the lock names and that are not here."""
    return {
        out["path"]: int(out.get("size", 0))
        for entry in lock.values()
        for out in entry.get("outs", ())
        if not (root / out["path"]).exists()
    }


def stale(root: Path, lock: Mapping[str, Any], stages: list[str]) -> list[str]:
    """The stages that will run anew, as far as settings, code and the lock itself tell.

    Data are not hashed, as ``dvc status`` does: a file that was changed by hand goes unnoticed.
    """
    made = {out["path"]: out.get("md5") for entry in lock.values() for out in entry.get("outs", ())}
    trees = cache(lambda name: _tree(root / name))
    hashes = cache(lambda path: dvc_md5(root / path) if (root / path).exists() else None)

    def changed(entry: Mapping[str, Any]) -> Iterator[bool]:
        for name, values in (entry.get("params") or {}).items():
            yield from (_value(trees(name), key) != value for key, value in values.items())
        for dep in entry.get("deps", ()):
            path = dep["path"]
            if path in made:
                yield made[path] != dep.get("md5")
            elif path.startswith(HASHED):
                yield hashes(path) != dep.get("md5")

    return [name for name in stages if name not in lock or any(changed(lock[name]))]


def _tree(path: Path) -> Any:
    try:
        return read_yaml(path.read_bytes())
    except (OSError, ValueError):
        return {}


def _value(tree: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        if not isinstance(tree, Mapping) or part not in tree:
            return None
        tree = tree[part]
    return tree
