"""Pushes models and analyses to a DVC remote, but nothing large into a store that git keeps; and pulls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deepcustom.base.errors import InputError
from deepcustom.base.rows import TRAINING
from deepcustom.pipeline import dvc, provenance
from deepcustom.pipeline.workspace import OWN_IMAGES

PUBLISHED = (*TRAINING, "relevance", "suspiciousness", "gallery")
"""The stages whose outputs DVC keeps copies of."""
LARGEST = 10_000_000
"""The most bytes of a model, or of all images together, that go into a store inside the project."""


@dataclass(frozen=True)
class Published:
    """A model or an analysis as ``dvc.lock`` names it, or images as ``dvc add`` does.

    Attributes:
        path: where it lies, relative to the project.
        md5: its hash.
        size: its bytes, those of all files of a folder together.
    """

    path: str
    md5: str
    size: int


def push(root: Path, remote: str | None = None, *, quiet: bool = False) -> int:
    """Push models and analyses that ``dvc.lock`` names, and the user's own images where DVC keeps them.

    Args:
        root: the project.
        remote: the remote's name; None: the default remote.
        quiet: print no progress.

    Returns:
        The exit code of ``dvc push``.

    Raises:
        InputError: there are no models or no such remote, or the remote lies inside the project, or in its
            git repository, and lacks a model, or images, of more than :data:`LARGEST` bytes. Nothing was
            pushed then.
    """
    models, stages = _trained(root)
    images = _added(root)
    name, url = dvc.remote(root, remote)
    _check_store(root, name, url, [*models, *images.values()])
    words = ["push", *_quietly(quiet), "--remote", name, *stages, *images]
    return dvc.run_dvc(root, words, check=False)


def unsent(root: Path, remote: str | None = None) -> tuple[str, str, list[Published]]:
    """The name and the address of a remote, and what :func:`push` would send there.

    Raises:
        InputError: there are no models, or no such remote.
        DeepCustomError: DVC failed; the message is its own.
    """
    models, _ = _trained(root)
    images = _added(root)
    name, url = dvc.remote(root, remote)
    lacking = dvc.absent(root, name)
    return name, url, [one for one in (*models, *images.values()) if one.path in lacking]


def pull(root: Path, remote: str | None = None, *, quiet: bool = False) -> int:
    """Fetch models and analyses that ``dvc.lock`` names, and the user's own images where DVC keeps them.

    Args:
        root: the project.
        remote: the remote's name; None: the default remote.
        quiet: print no progress.

    Returns:
        The exit code of ``dvc pull``.

    Raises:
        InputError: there are no models, or no such remote.
    """
    _trained(root)
    name = dvc.remote(root, remote)[0]
    return dvc.run_dvc(root, ["pull", *_quietly(quiet), "--remote", name], check=False)


def _quietly(quiet: bool) -> list[str]:
    return ["--quiet"] if quiet else []


def _trained(root: Path) -> tuple[list[Published], list[str]]:
    """Models and analyses of ``dvc.lock``, and the stages that make them.

    Raises:
        InputError: there are none.
    """
    there = dvc.stage_names(root)
    lock = {
        name: entry
        for name, entry in dvc.read_lock(root).items()
        if name in there and name.split("@")[0] in PUBLISHED
    }
    models = list(_models(lock))
    if not any(one.path.startswith("models/") for one in models):
        raise InputError("dvc.lock names no models: `dvc repro` trains them")
    trained = {stage.split("@")[0] for stage in lock}
    return models, [stage for stage in PUBLISHED if stage in trained]


def _added(root: Path) -> dict[str, Published]:
    """The user's own images that DVC keeps, by the file that ``dvc add`` wrote beside them.

    Raises:
        InputError: such a file is not as DVC writes it.
    """
    found = {}
    for path in sorted((root / OWN_IMAGES).glob("*.dvc")):
        name = path.relative_to(root).as_posix()
        try:
            (out,) = dvc.read_value(path.read_bytes())["outs"]
            found[name] = Published(f"{OWN_IMAGES}/{out['path']}", out["md5"], int(out["size"]))
        except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, ValueError):
            raise InputError(f"{name} is not as `dvc add` writes it: run that anew") from None
    return found


def _models(lock: Mapping[str, Any]) -> Iterator[Published]:
    for entry in lock.values():
        for out in entry.get("outs", []):
            if out["path"].startswith(("models/", "data/analysis/", "data/gallery/")):
                yield Published(out["path"], out["md5"], int(out["size"]))


def _check_store(root: Path, name: str, url: str, wanted: list[Published]) -> None:
    """Refuse a store inside the project if a large model, or images, would newly go into it."""
    store = _inside(root, url)
    if store is None:
        return
    large = [one for one in wanted if one.size > LARGEST and not _holds(store, one.md5)]
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
    around = [root.resolve(), *provenance.repositories(root)]
    return store if any(store.is_relative_to(folder) for folder in around) else None


def _holds(store: Path, md5: str) -> bool:
    return (store / "files/md5" / md5[:2] / md5[2:]).is_file()
