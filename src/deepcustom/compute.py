"""Device, precision and seeds: chosen once, recorded with the run."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from deepcustom.errors import ParamsError
from deepcustom.params import ComputeParams


@dataclass(frozen=True)
class Compute:
    """Where tensors live and the type that convolutions run in."""

    device: torch.device
    precision: torch.dtype

    @classmethod
    def of(cls, params: ComputeParams) -> Compute:
        """Resolve ``auto``.

        Raises:
            ParamsError: a device was named that this machine does not have.
        """
        device = _device(params.device)
        return cls(device, _precision(params.precision, device))

    def autocast(self) -> AbstractContextManager[None]:
        """Mixed precision for convolutions and matrix products; nothing in float32."""
        mixed = self.precision is not torch.float32
        return torch.autocast(self.device.type, dtype=self.precision, enabled=mixed)

    def describe(self) -> dict[str, str]:
        """What was chosen, for the run's record."""
        return {
            "device": str(self.device),
            "precision": str(self.precision).removeprefix("torch."),
            "threads": str(torch.get_num_threads()),
            "capability": torch.backends.cpu.get_cpu_capability(),
        }


FLOAT32 = Compute(torch.device("cpu"), torch.float32)


def _device(name: str) -> torch.device:
    available = {
        "cuda": torch.cuda.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(device for device, there in available.items() if there)
    if not available[name]:
        there = ", ".join(device for device, yes in available.items() if yes)
        raise ParamsError(f"params.yaml: compute.device is {name!r}, but this machine has: {there}")
    return torch.device(name)


def _precision(name: str, device: torch.device) -> torch.dtype:
    if name != "auto":
        return {
            "float32": torch.float32,
            "bfloat16": torch.bfloat16,
            "float16": torch.float16,
        }[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return torch.bfloat16
    return torch.float32


def derive_seed(seed: int, *names: str) -> int:
    """A seed of its own for every piece of work, so that adding one never shifts another's.

    Returns:
        An integer in [0, 2**31).
    """
    text = json.dumps([seed, *names])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def seed_everything(seed: int) -> None:
    """Seed torch and numpy (ART draws from numpy); on a GPU ask for deterministic algorithms too.

    On a CPU every operation used here is deterministic, and asking costs 1.5 s of imports.
    """
    import numpy as np

    torch.manual_seed(seed)
    np.random.seed(seed)
    if torch.cuda.is_available():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
