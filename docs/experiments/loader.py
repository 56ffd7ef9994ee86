"""How long a training waits for its images, which it reads from memory maps.

60,000 random images of 32 x 32 pixels lie in a temporary folder. Some batches of a network's training are timed,
and so is the time in it that goes into reading them. *cold*: the system has forgotten the file before, so that
images come from the disk; *warm*: it remembers them. Linux only. Writes a CSV beside itself::

    python docs/experiments/loader.py
"""

from __future__ import annotations

import csv
import os
import tempfile
import time
from collections.abc import Iterator
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
BATCH, BATCHES = 128, 20
COUNT, SHAPE = 60_000, (3, 32, 32)
NETWORKS = {
    "the study's CNN": Cifar10Classifier,
    "ResNet-20": partial(ResNet, SHAPE, 10),
}


def forget(file: Path) -> None:
    """Have the system drop what it remembers of a file."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def epoch(net: nn.Module, x: MappedImages, compute: Compute) -> tuple[float, float]:
    """Seconds of some batches of training, and how many of them went into reading."""
    optimizer = torch.optim.Adam(net.parameters(), fused=True)
    order = torch.Generator().manual_seed(0)
    batches: Iterator[tuple[torch.Tensor, ...]] = fit._batches([x], BATCH, order)
    begin, reading = time.monotonic(), 0.0
    for _ in range(BATCHES):
        asked = time.monotonic()
        (some,) = next(batches)
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
        for name, make in NETWORKS.items():
            net = compute.place(make()).train()
            for files in ("cold", "warm"):
                if files == "cold":
                    forget(file)
                x = MappedImages.on(np.load(file, mmap_mode="r"), compute.device)
                total, reading = epoch(net, x, compute)
                figures = {"seconds": f"{total:.2f}", "share_waiting": f"{reading / total:.4f}"}
                rows.append({"network": name, "file": files, "images": BATCH * BATCHES, **figures})
                print(rows[-1], flush=True)
    with OUT.open("w", newline="") as out:
        table = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    main()
