"""What a cluster costs and gains: the price of a task that does nothing, and a bank on one node and on two.

Nodes have one core each, and all are on this machine. The bank has ten DGNs for grey images of 28 x 28
pixels, which learn against a fresh network from random images: the numbers mean nothing, and take as long as
others. Run it on an otherwise idle machine with two cores. It writes a CSV beside itself::

    python docs/experiments/cluster.py
"""

from __future__ import annotations

import csv
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch

from deepcustom.attacks.losses.base import contexts
from deepcustom.attacks.threat import ThreatModel
from deepcustom.attacks.train_bank import train_bank
from deepcustom.base.progress import silent
from deepcustom.base.settings import ComputeParams, EngineParams, TrainDgnParams
from deepcustom.pipeline.cluster.connection import cluster
from deepcustom.pipeline.cluster.idle import nothing
from deepcustom.pipeline.cluster.tasks import Cluster
from deepcustom.training.compute import Compute, seed_everything
from deepcustom.training.engine import Task
from deepcustom.training.job import Job
from deepcustom.training.nets.mnist import MnistClassifier

OUT = Path(__file__).with_suffix(".csv")
ROOT = Path(__file__).resolve().parents[2]
TINY, ROUNDS, IMAGES = 2000, 3, 12000
GENERATOR = "deepcustom.training.nets.mnist:MnistGenerator"
PARAMS = ComputeParams(device="cpu", precision="float32", threads=1)
BANK = TrainDgnParams.model_validate(
    {
        "loss": "nce",
        "options": {"mse_weight": 1.0, "cross_entropy_weight": 1.0},
        "output": "perturbation",
        "generator": "per_class",
        "training": {
            "learning_rate": 1e-3,
            "epochs": 4,
            "batch_size": 50,
            "schedule": "one_cycle",
            "momentum": 0.9,
            "weight_decay": 0.0,
        },
    }
)


@contextmanager
def nodes(count: int) -> Iterator[Cluster]:
    """A cluster of ``count`` nodes with one core each, whose processes have been started."""
    from ray.cluster_utils import Cluster as Local

    local = Local(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for _ in range(count - 1):
            local.add_node(num_cpus=1)
        with cluster(EngineParams(kind="ray", address=local.address), PARAMS, ROOT, []) as found:
            list(found.do(None, [Task("first", nothing)] * 4 * count, silent))
            yield found
    finally:
        local.shutdown()


def tiny(on: Cluster) -> float:
    """Seconds for each of many tasks that do nothing."""
    begin = time.monotonic()
    list(on.do(None, [Task("nothing", nothing)] * TINY, silent))
    return (time.monotonic() - begin) / TINY


def bank(on: Cluster) -> float:
    """Seconds to train a bank."""
    compute = Compute.of(PARAMS)
    seed_everything(0)
    images = torch.rand(IMAGES, 1, 28, 28), torch.arange(IMAGES) % 10
    net = compute.place(MnistClassifier()).eval().requires_grad_(False)
    known = contexts(net, ThreatModel(0.3), {}, 10)
    few = images[0][:100], images[1][:100]
    begin = time.monotonic()
    train_bank(GENERATOR, "mnist", known, images, few, BANK, Job(0, compute, engine=on))
    return time.monotonic() - begin


def main() -> None:
    """Measure and write."""
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    prices, times = [], []
    for number in range(ROUNDS):
        with nodes(1) as one:
            alone = bank(one)
        with nodes(2) as two:
            times.append((alone, bank(two)))
            prices.append(tiny(two))
        print(f"round {number + 1}: {times[-1]}, {1000 * prices[-1]:.1f} ms a task", flush=True)
    capability = Compute.of(PARAMS).describe()["capability"]
    with OUT.open("w", newline="") as out:
        table = csv.writer(out, lineterminator="\n")
        table.writerow(["what", "capability", "value"])
        table.writerow(
            [f"milliseconds a task, of {TINY}", capability, f"{1000 * median(prices):.2f}"]
        )
        for place, name in enumerate(("one node", "two nodes")):
            seconds = median(pair[place] for pair in times)
            table.writerow([f"seconds for a bank on {name}", capability, f"{seconds:.2f}"])
        share = median(b / a for a, b in times)
        table.writerow(["two nodes, in times of one", capability, f"{share:.3f}"])


if __name__ == "__main__":
    main()
