"""What a training that was interrupted had finished: files from which the next run goes on."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepcustom.base.errors import InputError, OutputError
from deepcustom.base.files import beside
from deepcustom.training.weights import load_tensors, save_tensors

SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """A folder of named states, each written whole or not at all.

    Attributes:
        folder: where they lie, made with the first of them; ``None``: nothing is kept.
        fingerprint: of everything that decides the training's numbers. A state that was saved under
            another one counts as absent, and so does a file that is damaged.
    """

    folder: Path | None
    fingerprint: str

    def part(self, name: str) -> Checkpoint:
        """A place of its own for a part of the work."""
        return Checkpoint(self.folder and self.folder / name, self.fingerprint)

    def save(self, name: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Keep ``tensors`` and ``about`` (anything JSON can hold) in place of what ``name`` held."""
        if self.folder is None:
            return
        path, sealed = self.folder / f"{name}{SUFFIX}", self._sealed(tensors, about)
        try:
            _write(path, tensors, sealed)
        except (OutputError, FileNotFoundError):
            # The same stage, started twice: the other run has ended and cleared this folder.
            _write(path, tensors, sealed)

    def load(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What ``save`` kept under ``name``, on the CPU; ``None`` where there is nothing to rely on."""
        if self.folder is None:
            return None
        try:
            tensors, metadata = load_tensors(self.folder / f"{name}{SUFFIX}")
        except InputError:
            return None
        about = metadata.get("about", {})
        return (tensors, about) if metadata == self._sealed(tensors, about) else None

    def clear(self) -> None:
        """Forget everything, parts too."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _sealed(self, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> dict[str, Any]:
        """``about`` with the fingerprint, and a digest of every byte.

        The format's own checks see that a file was cut short, but not that bytes in it changed.
        """
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
        for name, tensor in sorted(tensors.items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        return {"fingerprint": self.fingerprint, "digest": digest.hexdigest(), "about": about}


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    with beside(path) as partial:
        save_tensors(partial, tensors, metadata)


NOWHERE = Checkpoint(None, "")
