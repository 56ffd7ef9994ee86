"""How long a training waits for its images, which it reads from memory maps.

60,000 random images of 32 x 32 pixels lie in a temporary folder. Steps of a network's training are timed,
and so is the time in them that goes into reading their batches. *cold*: the system has forgotten the file
before, so that images come from the disk, until all of it has been read; *warm*: it remembers them. Run it
on Linux, on an otherwise idle machine. It writes a CSV beside itself::

    python docs/experiments/loader.py
"""

from __future__ import annotations

import csv
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from deepcustom.base.settings import ComputeParams
from deepcustom.data.mapped import MappedImages
from deepcustom.training import fit
from deepcustom.training.compute import Compute
from deepcustom.training.nets.cifar10 import Cifar10Classifier
from deepcustom.training.nets.resnet import ResNet

OUT = Path(__file__).with_suffix(".csv")
BATCH = 128
COUNT, SHAPE = 60_000, (3, 32, 32)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "the study's CNN": (Cifar10Classifier, COUNT // BATCH),
    "ResNet-20": (partial(ResNet, SHAPE, 10), 40),
}
"""Network → how it is made, and how many batches are timed: of the quick one a whole epoch."""


def forget(file: Path) -> None:
    """Have the system drop what it remembers of a file."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def steps(net: nn.Module, x: MappedImages, batches: int, compute: Compute) -> tuple[float, float]:
    """Seconds of the first batches of an epoch, and how many of them went into reading."""
    optimizer = torch.optim.Adam(net.parameters(), fused=True)
    order = torch.Generator().manual_seed(0)
    read: Iterator[tuple[torch.Tensor, ...]] = fit._batches([x], BATCH, order)
    begin, reading = time.monotonic(), 0.0
    for _ in range(batches):
        asked = time.monotonic()
        (some,) = next(read)
        reading += time.monotonic() - asked
        with compute.autocast():
            loss = net(some).float().logsumexp(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.monotonic() - begin, reading


def main() -> None:
    """Measure and write."""
    compute = Compute.of(ComputeParams(device="auto", precision="auto", threads="auto"))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x.npy"
        draw = np.random.default_rng(0)
        np.save(file, draw.integers(0, 256, (COUNT, *SHAPE), dtype=np.uint8))
        for name, (make, batches) in NETWORKS.items():
            net = compute.place(make()).train()
            for files in ("cold", "warm"):
                if files == "cold":
                    forget(file)
                x = MappedImages.on(np.load(file, mmap_mode="r"), compute.device)
                total, reading = steps(net, x, batches, compute)
                figures = {"seconds": f"{total:.2f}", "share_waiting": f"{reading / total:.4f}"}
                rows.append({"network": name, "file": files, "images": BATCH * batches, **figures})
                print(rows[-1], flush=True)
    with OUT.open("w", newline="") as out:
        table = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    main()
