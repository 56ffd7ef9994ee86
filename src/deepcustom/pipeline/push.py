"""Pushes the trained models to a DVC remote, but no large ones into a store that git keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepcustom.base.errors import InputError
from deepcustom.pipeline import dvc, provenance
from deepcustom.tracking.record import TRAINING

LARGEST = 10_000_000
"""The most bytes of a model that goes into a store inside the project."""


@dataclass(frozen=True)
class Published:
    """A model as ``dvc.lock`` names it.

    Attributes:
        path: where it lies, relative to the project.
        md5: its hash.
        size: its bytes.
    """

    path: str
    md5: str
    size: int


def push(root: Path, remote: str | None = None) -> int:
    """Push the models that ``dvc.lock`` names.

    Args:
        root: the project.
        remote: the remote's name; None: the default remote.

    Returns:
        The exit code of ``dvc push``.

    Raises:
        InputError: there are no models or no such remote, or the remote lies inside the project, or in its
            git repository, and lacks a model of more than :data:`LARGEST` bytes. Nothing was pushed then.
    """
    there = dvc.stage_names(root)
    lock = {
        name: entry
        for name, entry in dvc.read_lock(root).items()
        if name in there and name.split("@")[0] in TRAINING
    }
    models = list(_models(lock))
    if not models:
        raise InputError("dvc.lock names no models: `dvc repro` trains them")
    name, url = dvc.remote(root, remote)
    _check_store(root, name, url, models)
    trained = {stage.split("@")[0] for stage in lock}
    stages = [stage for stage in TRAINING if stage in trained]
    return dvc.run_dvc(root, ["push", "--remote", name, *stages], check=False)


def _models(lock: Mapping[str, Any]) -> Iterator[Published]:
    for entry in lock.values():
        for out in entry.get("outs", []):
            if out["path"].startswith("models/"):
                yield Published(out["path"], out["md5"], int(out["size"]))


def _check_store(root: Path, name: str, url: str, models: list[Published]) -> None:
    """Refuse a store inside the project if a large model would newly go into it."""
    store = _inside(root, url)
    if store is None:
        return
    large = [one for one in models if one.size > LARGEST and not _holds(store, one.md5)]
    if large:
        more = f" (and {len(large) - 1} more)" if large[1:] else ""
        raise InputError(
            f"{large[0].path} has {large[0].size / 1e6:.1f} MB{more}, and {LARGEST / 1e6:g} MB is the most "
            f"that goes into the remote {name!r}, since it lies inside the project, where git would keep it "
            "for ever: `dvc remote add --default NAME URL` adds a remote elsewhere"
        )


def _inside(root: Path, url: str) -> Path | None:
    """The folder of a remote that lies in the project, or in the git repository around it; else None."""
    local = url.removeprefix("file://")
    if "://" in local:
        return None
    store = (root / local).resolve()
    around = [root.resolve(), *filter(None, [provenance.repository(root)])]
    return store if any(store.is_relative_to(folder) for folder in around) else None


def _holds(store: Path, md5: str) -> bool:
    return (store / "files/md5" / md5[:2] / md5[2:]).is_file()
