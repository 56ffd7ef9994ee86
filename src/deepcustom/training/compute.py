"""Device, precision and seeds: chosen once, recorded with the run."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from deepcustom.base.cores import cores
from deepcustom.base.errors import ParamsError
from deepcustom.base.settings import ComputeParams
from deepcustom.training.together import ALONE, Together, start

N = TypeVar("N", bound=nn.Module)


@dataclass(frozen=True)
class Compute:
    """Where tensors live, the type that convolutions run in, and the processes that train together."""

    device: torch.device
    precision: torch.dtype
    together: Together = ALONE

    @classmethod
    def of(cls, params: ComputeParams, *, together: bool = False) -> Compute:
        """Resolve ``auto``, set the number of threads, and call :func:`keep_freed_memory`.

        Args:
            params: the settings.
            together: whether to start as many processes as ``params.devices`` says, for a training.

        Raises:
            ParamsError: this machine does not have the named device, or not so many.
        """
        device = _device(params.device)
        count = _devices(params.devices, device) if together else 1
        processes, device = start(count, device)
        if params.threads != "auto":
            torch.set_num_threads(params.threads)
        keep_freed_memory()
        return cls(device, _precision(params.precision, device), processes)

    @staticmethod
    def check(params: ComputeParams) -> None:
        """Find out whether this machine has the devices that the settings name; changes nothing.

        Raises:
            ParamsError: it does not have the named device, or not so many.
        """
        _devices(params.devices, _device(params.device))

    def autocast(self) -> AbstractContextManager[None]:
        """Mixed precision for convolutions and matrix products; does nothing in float32."""
        mixed = self.precision is not torch.float32
        return torch.autocast(self.device.type, dtype=self.precision, enabled=mixed)

    def place(self, net: N) -> N:
        """Move ``net`` to the device in place, in the layout that convolutions are fast in, and return it."""
        return net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def describe(self) -> dict[str, str]:
        """What was chosen, for the run's record."""
        found = {
            "device": self.device.type,
            "precision": str(self.precision).removeprefix("torch."),
            "threads": str(torch.get_num_threads()),
            "capability": torch.backends.cpu.get_cpu_capability(),
        }
        if self.together.count > 1:
            found["processes"] = str(self.together.count)
        if self.device.type == "cuda":  # another kind of GPU may round sums differently
            found["gpu"] = torch.cuda.get_device_name(self.device)
        return found


# From glibc's malloc.h: the size above which an allocation gets a mapping of its own, and how much free
# memory there is at the top of the heap before it goes back to the system.
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1

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


def _devices(count: int | str | None, device: torch.device) -> int:
    """How many processes train together: one for each GPU, or as many on the CPU as the settings say."""
    gpus = torch.cuda.device_count() if device.type == "cuda" else None
    if count == "auto":
        return gpus or 1
    found = int(count or 1)
    has = f"{gpus} GPUs" if gpus is not None else f"{cores()} cores"
    most = gpus if gpus is not None else max(cores(), 2)
    if found > most:
        raise ParamsError(
            f"params.yaml: compute.devices is {found}, but this machine has {has}: at most {most}"
        )
    return found


def _precision(name: str, device: torch.device) -> torch.dtype:
    if name != "auto":
        return {
            "float32": torch.float32,
            "bfloat16": torch.bfloat16,
            "float16": torch.float16,
        }[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if _has_bfloat16() else torch.float32


def _has_bfloat16() -> bool:
    """Whether the processor has instructions that multiply in bfloat16.

    oneDNN calls every AVX-512 processor supported. Without these instructions it emulates them, 2.5 to 4
    times slower than float32.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def keep_freed_memory() -> bool:
    """Have the C library reuse freed memory instead of returning it to the system each time.

    A network's intermediate results take megabytes, allocated and freed at every step. By default glibc
    gets each from the system and gives it back, and the system clears every page again: training and
    generation on a CPU take 15 % longer. The process never keeps more memory than its own peak use.

    Returns:
        Whether it does so now; False if the user's environment tunes the allocator, or without glibc.
    """
    tuned = "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", "")
    if tuned or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        libc = ctypes.CDLL(None)
        _ = libc.gnu_get_libc_version
        mallopt = libc.mallopt
    except (AttributeError, OSError, TypeError):
        return False
    # Older versions of glibc refuse a mapping threshold above their own maximum, 32 MiB.
    mapped = any(mallopt(_M_MMAP_THRESHOLD, size) == 1 for size in (2**30, 2**25))
    return bool(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1) == 1 and mapped)


def derive_seed(seed: int, *names: str) -> int:
    """A separate seed for every piece of work, so that adding one never changes another's.

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
