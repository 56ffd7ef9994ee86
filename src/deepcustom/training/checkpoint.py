"""What an interrupted training had finished, in files from which the next run goes on."""

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
        folder: where the states lie, created with the first one; ``None``: nothing is kept.
        fingerprint: identifies everything that decides the training's numbers. A state that was saved
            under another fingerprint counts as absent, and so does a damaged file.
        writes: False: this only reads, as processes do that help another to train.
    """

    folder: Path | None
    fingerprint: str
    writes: bool = True

    def part(self, name: str) -> Checkpoint:
        """A separate checkpoint, in a subfolder, for a part of the work."""
        return Checkpoint(self.folder and self.folder / name, self.fingerprint, self.writes)

    def save(self, name: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Keep ``tensors`` and ``about`` (anything JSON can hold) as ``name``, replacing what was there."""
        if self.folder is None or not self.writes:
            return
        path, sealed = self.folder / f"{name}{SUFFIX}", self._sealed(tensors, about)
        try:
            _write(path, tensors, sealed)
        except (OutputError, FileNotFoundError):
            # The same stage was started twice, and the other run ended and cleared this folder.
            _write(path, tensors, sealed)

    def load(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What ``save`` kept under ``name``, on the CPU; ``None`` where there is no valid state."""
        if self.folder is None:
            return None
        try:
            tensors, metadata = load_tensors(self.folder / f"{name}{SUFFIX}")
        except InputError:
            return None
        about = metadata.get("about", {})
        return (tensors, about) if metadata == self._sealed(tensors, about) else None

    def clear(self) -> None:
        """Remove every state, and all parts."""
        if self.folder is not None and self.writes:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _sealed(self, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> dict[str, Any]:
        """``about`` with the fingerprint, and a digest of every byte.

        The format's own checks notice a file that was cut short, but not changed bytes.
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
