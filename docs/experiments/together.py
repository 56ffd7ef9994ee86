"""How much quicker two processes train one network: seconds an epoch of three ways, in turns.

Each way trains a ResNet-20 on the same random images with the training loop of the package: one process of
one thread, one process of two threads, and two processes of one thread each. Run it on an otherwise idle
machine with two cores. It writes a CSV beside itself::

    python docs/experiments/together.py
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch

from deepcustom.base.helper import is_helper
from deepcustom.base.settings import ComputeParams, TrainingParams
from deepcustom.training.compute import Compute, seed_everything
from deepcustom.training.fit import train_classifier
from deepcustom.training.job import Job
from deepcustom.training.nets.resnet import ResNet

OUT = Path(__file__).with_suffix(".csv")
SHAPE, IMAGES, BATCH, EPOCHS, ROUNDS = (3, 32, 32), 2560, 128, 3, 7
WAYS = {
    "1 process, 1 thread": (1, 1),
    "1 process, 2 threads": (1, 2),
    "2 processes, 1 thread": (2, 1),
}


def train(devices: int, threads: int) -> None:
    """Train in one way; the first process prints the median of seconds an epoch, without the first one."""
    params = ComputeParams(device="cpu", precision="auto", threads=threads, devices=devices)
    compute = Compute.of(params, together=True)
    seed_everything(0)
    images = torch.rand(IMAGES, *SHAPE), torch.arange(IMAGES) % 10
    budget = TrainingParams(
        learning_rate=1e-3,
        epochs=EPOCHS,
        batch_size=BATCH,
        schedule="constant",
        momentum=0.9,
        weight_decay=0,
    )
    marks = [time.monotonic()]

    def advance(note: str = "", steps: int = 1, *, resumed: bool = False) -> None:
        marks.append(time.monotonic())

    nothing = images[0][:0], images[1][:0]
    train_classifier(
        compute.place(ResNet(SHAPE, 10)), images, nothing, budget, Job(0, compute, advance)
    )
    if not is_helper():
        seconds = median(b - a for a, b in pairwise(marks[1:]))
        print(json.dumps({"seconds": seconds, **compute.describe()}))


def main() -> None:
    """Measure and write."""
    found: dict[str, list[dict[str, str]]] = {way: [] for way in WAYS}
    for _ in range(ROUNDS):
        for way, (devices, threads) in WAYS.items():
            environ = {**os.environ, "OMP_NUM_THREADS": str(threads)}
            words = [sys.executable, __file__, str(devices), str(threads)]
            done = subprocess.run(words, env=environ, capture_output=True, text=True, check=True)
            found[way].append(json.loads(done.stdout.splitlines()[-1]))
            print(way, found[way][-1]["seconds"], flush=True)
    base = [float(one["seconds"]) for one in found["1 process, 1 thread"]]
    with OUT.open("w", newline="") as out:
        table = csv.writer(out, lineterminator="\n")
        table.writerow(["way", "capability", "precision", "seconds_an_epoch", "times_as_fast"])
        for way, runs in found.items():
            seconds = [float(one["seconds"]) for one in runs]
            quicker = median(a / b for a, b in zip(base, seconds, strict=True))
            row = [way, runs[0]["capability"], runs[0]["precision"], f"{median(seconds):.2f}"]
            table.writerow([*row, f"{quicker:.2f}"])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        train(*(int(word) for word in sys.argv[1:]))
    else:
        main()
