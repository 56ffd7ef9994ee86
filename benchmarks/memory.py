"""Memory of a whole generation, files in and files out, as the number of images grows."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.inputs import DGN_BATCH, Inputs, own_compute
from benchmarks.race import Contender, once
from benchmarks.worker import Work
from deepcustom.base.errors import InputError
from deepcustom.base.progress import Advance, silent
from deepcustom.data.sources import find_source

DATASET = "cifar10"
SIZES, QUICK_SIZES = (10_000, 100_000, 1_000_000), (100, 200)
_CHUNK = 10_000


def settings(sizes: Sequence[int], dataset: str = DATASET) -> dict[str, Any]:
    """What the figures depend on."""
    return {"dataset": dataset, "sizes": list(sizes)}


def room(size: int, shape: tuple[int, ...]) -> int:
    """Bytes on disk for ``size`` images in and out: uint8, labels and rows; and float32 besides."""
    pixels = int(np.prod(shape))
    return size * (2 * (pixels + 1 + 8) + 4 * pixels)


def measure(
    root: Path,
    sizes: Sequence[int],
    *,
    scratch: Path | None = None,
    dataset: str = DATASET,
    advance: Advance = silent,
) -> list[dict[str, Any]]:
    """Each size in a fresh process, one after the other; their files are removed again.

    Raises:
        InputError: see :func:`demand_room`.
        RaceError: a run failed.
    """
    demand_room(sizes, scratch, dataset)
    inputs = Inputs(root, dataset)
    with tempfile.TemporaryDirectory(prefix="deepcustom-bench-", dir=scratch) as name:
        folder = Path(name)
        results = []
        for size in sizes:
            write_inputs(inputs, size, folder / "in")
            results.append(
                once(
                    Contender(
                        str(size),
                        f"{size:,} images",
                        "benchmarks.memory:generate",
                        {"root": str(root), "dataset": dataset, "folder": str(folder)},
                    )
                )
            )
            shutil.rmtree(folder / "out")
            shutil.rmtree(folder / "in")
            advance(f"{size:,} images")
        return results


def demand_room(sizes: Sequence[int], scratch: Path | None, dataset: str = DATASET) -> None:
    """Whether there is a folder for the files of the largest size, with room for them.

    Raises:
        InputError: there is not; the message says what to do.
    """
    folder = scratch or Path(tempfile.gettempdir())
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: name another with --scratch")
    need = room(max(sizes), find_source(dataset).spec.shape)
    free = shutil.disk_usage(folder).free
    if free < 1.1 * need:
        raise InputError(
            f"{max(sizes):,} images take {need / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB "
            "are free: name another folder with --scratch, or fewer images with --sizes"
        )


def write_inputs(inputs: Inputs, size: int, folder: Path) -> None:
    """A split of ``size`` images: the test images over and over."""
    split = inputs.split("test")
    folder.mkdir()
    for name, array in (("x", split.x), ("y", split.y), ("index", split.index)):
        file = np.lib.format.open_memmap(
            folder / f"{name}.npy", "w+", array.dtype, (size, *array.shape[1:])
        )
        for start in range(0, size, _CHUNK):
            rows = np.arange(start, min(start + _CHUNK, size)) % len(array)
            file[start : start + len(rows)] = array[rows]
        file.flush()


def generate(root: str, dataset: str, folder: str) -> Work:
    """What the stage ``generate`` does between opening its inputs and recording: ``perturb_split``."""
    from torch import Tensor

    from deepcustom.attacks.perturb import Effect, SplitAttack, perturb_split
    from deepcustom.data.arrays import Split

    inputs, compute = Inputs(Path(root), dataset), own_compute()
    spec, threat = inputs.spec, inputs.threat
    bank, target_net = inputs.bank(compute), inputs.target_net(compute)
    # Mapped as Split.load maps, which would not have it that a row occurs twice.
    arrays = {
        name: np.load(Path(folder) / "in" / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        for name in ("x", "y", "index")
    }
    split = Split(**arrays)

    def perturb(x: Tensor, y: Tensor, start: int) -> Tensor:
        return bank.generate(x, y, threat, compute=compute, batch_size=DGN_BATCH)

    attack = SplitAttack(
        perturb,
        target_net,
        threat,
        compute,
        only_changed=False,
        chunk=spec.num_classes * DGN_BATCH,
    )

    def call() -> Effect:
        return perturb_split(split, spec, Path(folder) / "out", attack)

    def judge(effect: Effect) -> dict[str, Any]:
        if effect.images != len(split):
            raise InputError(f"{effect.images} of {len(split)} images were written")
        return {
            "peak_bytes": peak_memory(),
            "accuracy": effect.target_accuracy,
            **compute.describe(),
        }

    return Work(call, len(split), judge)


def peak_memory() -> int:
    """The most bytes that this process ever had in memory, pages of mapped files included.

    ``ru_maxrss`` where there is nothing better: on Linux it starts at the parent's, so that the kernel's
    figure for this program alone (VmHWM) is taken there.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
