"""Whether torch.compile makes a training quicker: seconds a step with it and without, in turns.

Both train the same network with the same batches. The seconds of compiling, which are those of the first
step less a usual one, are paid once in each process that trains. Run it on an otherwise idle machine with a
C++ compiler. It writes a CSV beside itself::

    python docs/experiments/compiled.py
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepcustom.base.settings import ComputeParams
from deepcustom.training.compute import Compute
from deepcustom.training.nets.cifar10 import Cifar10Classifier
from deepcustom.training.nets.resnet import ResNet

OUT = Path(__file__).with_suffix(".csv")
BATCH, STEPS, ROUNDS = 128, 10, 5
SHAPE = (3, 32, 32)
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "the study's CNN": Cifar10Classifier,
    "ResNet-20": partial(ResNet, SHAPE, 10),
}


class Training:
    """A network that is trained on one batch again and again; ``run`` may be its compiled form."""

    def __init__(self, net: nn.Module, compute: Compute, *, compiled: bool) -> None:
        self.compute = compute
        self.run: Callable[[Tensor], Tensor] = torch.compile(net) if compiled else net
        self.optimizer = torch.optim.Adam(net.parameters(), fused=True)
        self.x = torch.rand(BATCH, *SHAPE)
        self.y = torch.arange(BATCH) % 10

    def steps(self, count: int) -> float:
        """Seconds of so many steps."""
        begin = time.monotonic()
        for _ in range(count):
            with self.compute.autocast():
                loss = F.cross_entropy(self.run(self.x).float(), self.y)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return time.monotonic() - begin


def main() -> None:
    """Measure and write."""
    compute = Compute.of(ComputeParams(device="auto", precision="auto", threads="auto"))
    rows = []
    for name, make in NETWORKS.items():
        plain, compiled = (
            Training(compute.place(make()).train(), compute, compiled=which)
            for which in (False, True)
        )
        plain.steps(2)
        first = compiled.steps(1)
        compiled.steps(1)
        turns = [(plain.steps(STEPS), compiled.steps(STEPS)) for _ in range(ROUNDS)]
        each, other = (median(one) / STEPS for one in zip(*turns, strict=True))
        rows.append(
            {
                "network": name,
                "precision": compute.describe()["precision"],
                "capability": compute.describe()["capability"],
                "threads": compute.describe()["threads"],
                "seconds_a_step": f"{each:.4f}",
                "seconds_a_step_compiled": f"{other:.4f}",
                "times_as_fast": f"{median(a / b for a, b in turns):.3f}",
                "seconds_to_compile": f"{first - other:.1f}",
            }
        )
        print(rows[-1], flush=True)
    with OUT.open("w", newline="") as out:
        table = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    main()
