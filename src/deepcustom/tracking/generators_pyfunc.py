"""How MLflow loads generators: a copy of this file lies in the artifact, and needs torch and numpy alone.

MLflow's own loader of torch's networks hands on one array; generators take images and labels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch


class Generators:
    """Adversarial images from images and labels."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module

    def predict(self, given: Any, params: dict[str, Any] | None = None) -> np.ndarray:
        """Adversarial images, float32 (N, C, H, W) in [0, 1].

        Args:
            given: ``images``, float32 (N, C, H, W) in [0, 1], and ``labels``, int64 (N,).
            params: none are known.
        """
        images = torch.from_numpy(np.asarray(given["images"], dtype=np.float32))
        labels = torch.from_numpy(np.asarray(given["labels"], dtype=np.int64).reshape(-1))
        with torch.no_grad():
            made: np.ndarray = self._module(images, labels).numpy()
        return made


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> Generators:
    """What MLflow calls, with the artifact's data."""
    return Generators(torch.export.load(Path(path) / "model.pt2").module())
