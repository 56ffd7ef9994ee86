"""How far one driver and a cluster go: a million images, 1,000 classes and a ResNet-50 on 8 and 64 GPUs.

No GPU is measured. The script counts the arithmetic of each stage, assumes what a GPU does in a second, and
has tasks that only wait stand for the work, on a Ray cluster of as many logical cores, much faster than in
reality. What it adds is measured here: what Ray and the driver take for the tasks of a stage, and what the
driver does with each image that comes back. Run it on an otherwise idle machine; it needs 16 GB of memory. It
writes a CSV beside itself::

    python docs/experiments/scale.py
"""

from __future__ import annotations

import csv
import heapq
import os
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from deepcustom.attacks.perturb import chunk_size
from deepcustom.attacks.threat import ThreatModel
from deepcustom.base import rows
from deepcustom.base.params import read_params, validate
from deepcustom.base.progress import silent
from deepcustom.base.settings import ComputeParams, EngineParams, EvaluateParams
from deepcustom.data.arrays import AdversarialSet, SetWriter
from deepcustom.data.sources import find_source
from deepcustom.evaluation.price import bound
from deepcustom.pipeline.cluster.connection import cluster
from deepcustom.pipeline.cluster.idle import pixels, take, wait
from deepcustom.pipeline.cluster.tasks import Cluster
from deepcustom.training.compute import keep_freed_memory
from deepcustom.training.engine import Task
from deepcustom.training.nets.unet import UNetConditional

OUT = Path(__file__).with_suffix(".csv")
ROOT = Path(__file__).resolve().parents[2]
IMAGES, CLASSES, SHAPE = 1_000_000, 1000, (3, 224, 224)
GPUS = (8, 64)
A_SECOND = 60e12  # floating-point operations that a GPU does in a second: assumed
EPOCHS = {"train_target": 90, "train_dgn": 8, "goodfellow": 20, "madry": 20}
INNER = 7  # steps of PGD in each step of madry
RIGHT = {"target": 0.03, "goodfellow": 0.1, "madry": 0.5}
"""Networks, and the share of the attacked images that each gets right against every attack: assumed."""
SIMULATED = 20.0  # seconds that the tasks of a stage are to take at least
MOST = 4000  # tasks that are simulated of one stage
STARTED = 2.5  # seconds in which one of the processes has surely started
SENT, RETURNED = 20, 30  # classes that the driver sends, and chunks that come back to it


class Block(nn.Module):
    """A bottleneck of a residual network (He et al. 2016, arXiv:1512.03385, figure 5)."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        sizes = ((inputs, width, 1, 1), (width, width, 3, stride), (width, 4 * width, 1, 1))
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, kernel, step, kernel // 2, bias=False) for a, b, kernel, step in sizes
        )
        fits = inputs == 4 * width and stride == 1
        self.short = nn.Identity() if fits else nn.Conv2d(inputs, 4 * width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, 4 · width, H / stride, W / stride)."""
        h = x
        for conv in self.convs:
            h = conv(h)
        return torch.relu(h + self.short(x))


def resnet50() -> nn.Module:
    """A ResNet-50 without batch norm, whose arithmetic counts for nothing."""
    inputs, parts = 64, [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.MaxPool2d(3, 2, 1)]
    blocks: list[nn.Module] = list(parts)
    for width, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for place in range(count):
            blocks.append(Block(inputs, width, 1 if place else stride))
            inputs = 4 * width
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, CLASSES))


@dataclass(frozen=True)
class Price:
    """Floating-point operations for one image.

    Attributes:
        shown: the network looks at it.
        gradient: a gradient of the network's loss by the image.
        step: the network trains on it.
        made: the generator perturbs it.
        taught: the generator trains on it.
    """

    shown: float
    gradient: float
    step: float
    made: float
    taught: float

    @classmethod
    def counted(cls) -> Price:
        """Of a ResNet-50 and of the default generator, which is told the label."""
        with torch.device("meta"):
            net, generator = resnet50(), UNetConditional(SHAPE, CLASSES)
            x, y = torch.zeros(2, *SHAPE), torch.zeros(2, dtype=torch.int64)
        with FlopCounterMode(display=False) as shown, torch.no_grad():
            net(x)
        with FlopCounterMode(display=False) as step:
            net(x).sum().backward()
        with FlopCounterMode(display=False) as made, torch.no_grad():
            generator(x, y)
        net.requires_grad_(False)
        with FlopCounterMode(display=False) as gradient:
            net(x.clone().requires_grad_()).sum().backward()
        with FlopCounterMode(display=False) as taught:
            net(generator(x, y)).sum().backward()
        return cls(*(one.get_total_flops() / 2 for one in (shown, gradient, step, made, taught)))


@dataclass(frozen=True)
class Stage:
    """A stage's work.

    Attributes:
        name: what the table calls it.
        tasks: floating-point operations of each of its tasks.
        sent: images that the driver sends, of which none comes back.
        returned: images that it sends, and that come back perturbed.
    """

    name: str
    tasks: Sequence[float]
    sent: int = 0
    returned: int = 0


def stages(price: Price) -> list[Stage]:
    """The work of each stage."""
    chunk = chunk_size(2000, SHAPE, 64)
    chunks = -(-IMAGES // chunk)
    told, own = EPOCHS["train_dgn"] * price.taught, IMAGES // CLASSES
    by_dgns = chunk * (price.made + 2 * price.shown)
    by_fgsm = chunk * (price.gradient + 2 * price.shown)
    hard = {
        "goodfellow": 2 * price.step,
        "madry": INNER * price.gradient + price.step,
    }
    return [
        Stage("train_target", [IMAGES * EPOCHS["train_target"] * price.step], sent=IMAGES),
        Stage("train_dgn, told the label", [IMAGES * told], sent=IMAGES),
        Stage("train_dgn, one per class", [own * told] * CLASSES, sent=IMAGES),
        Stage("generate", [by_dgns] * chunks, returned=IMAGES),
        Stage("attack with FGSM", [by_fgsm] * chunks, returned=IMAGES),
        *(
            Stage(f"adversarial_train, {name}", [IMAGES * EPOCHS[name] * each], sent=IMAGES)
            for name, each in hard.items()
        ),
        Stage("evaluate", list(evaluations(price))),
    ]


def evaluations(price: Price) -> Iterator[float]:
    """The work of each network's evaluation, as ``price.py`` bounds it, with the study's settings."""
    row = rows.row(read_params(ROOT / "params.yaml"), "evaluate", "cifar10")
    params = validate(EvaluateParams, row.settings, row.place)
    for share in RIGHT.values():
        most = bound(params, round(share * params.n), CLASSES, surrogates=len(RIGHT) - 1)
        yield most.gradients * price.gradient + most.queries * price.shown


def shortest(seconds: Sequence[float], workers: int) -> float:
    """How long tasks take that begin in their order, each as soon as a worker is free."""
    free = [0.0] * workers
    for each in seconds:
        heapq.heappush(free, heapq.heappop(free) + each)
    return max(free)


@contextmanager
def slots(count: int) -> Iterator[Cluster]:
    """A cluster of ``count`` logical cores on this machine, whose processes have been started."""
    from ray.cluster_utils import Cluster as Local

    head = {"num_cpus": count, "include_dashboard": False}
    local = Local(initialize_head=True, head_node_args=head)
    params = ComputeParams(device="cpu", precision="float32", threads=1)
    try:
        engine = EngineParams(kind="ray", address=local.address, patience=300)
        with cluster(engine, params, ROOT, []) as found:
            until_all_are_there = [Task("first", wait, lambda: (STARTED * count,))] * count
            list(found.do(None, until_all_are_there, silent))
            yield found
    finally:
        local.shutdown()


def added(on: Cluster, tasks: Sequence[float], workers: int) -> float:
    """Seconds that Ray and the driver add to tasks that take so many seconds, all of them together."""
    few = tasks[:MOST]
    faster = max(shortest(few, workers) / SIMULATED, 1.0)
    waits = [each / faster for each in few]
    begin = time.monotonic()
    for _ in on.do(None, [Task("wait", wait, lambda s=s: (s,)) for s in waits], silent):
        pass
    more = time.monotonic() - begin - shortest(waits, workers)
    return more * len(tasks) / len(few)


def sent_a_second(on: Cluster) -> float:
    """Images a second that the driver reads from a file and sends."""
    n = IMAGES // CLASSES
    with tempfile.TemporaryDirectory(dir=ROOT) as folder:
        file = Path(folder, "x.npy")
        np.save(file, np.zeros((n, *SHAPE), dtype=np.uint8))
        mapped = np.load(file, mmap_mode="r")
        begin = time.monotonic()
        for _ in on.do(None, [Task("class", take, lambda: (np.array(mapped),))] * SENT, silent):
            pass
        return SENT * n / (time.monotonic() - begin)


def returned_a_second(on: Cluster) -> float:
    """Images a second that the driver sends, and that come back, are verified and written."""
    n = chunk_size(2000, SHAPE, 64)
    clean = np.zeros((n, *SHAPE), dtype=np.uint8)
    labels_of = tuple(map(str, range(CLASSES)))
    spec = replace(find_source("mnist").spec, shape=SHAPE, classes=labels_of)
    threat = ThreatModel(0.03)
    labels, index = np.zeros(n, dtype=np.uint16), np.arange(n)
    with tempfile.TemporaryDirectory(dir=ROOT) as folder, SetWriter(Path(folder), spec) as writer:
        begin = time.monotonic()
        for place, made in on.do(
            None, [Task("chunk", pixels, lambda: (clean,))] * RETURNED, silent
        ):
            threat.verify(made, clean)
            writer.append(AdversarialSet(clean, made, labels, index + place * n))
        return RETURNED * n / (time.monotonic() - begin)


def main() -> None:
    """Count, measure and write."""
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    keep_freed_memory()  # as every stage does
    price = Price.counted()
    work = stages(price)
    with slots(1) as one:
        sent, returned = sent_a_second(one), returned_a_second(one)
    with OUT.open("w", newline="") as out:
        table = csv.writer(out, lineterminator="\n")
        table.writerow(["stage", "gpus", "tasks", "work_s", "added_s", "driver_s"])
        for what, value in vars(price).items():
            table.writerow([f"gflop: {what}", "", "", f"{value / 1e9:.2f}", "", ""])
        for what, value in (("sent", sent), ("returned", returned)):
            table.writerow([f"images a second: {what}", "", "", f"{value:.0f}", "", ""])
        for gpus in GPUS:
            with slots(gpus) as on:
                for stage in work:
                    seconds = [each / A_SECOND for each in stage.tasks]
                    more = added(on, seconds, gpus) if len(seconds) > 1 else 0.0
                    row = [stage.name, gpus, len(seconds), f"{shortest(seconds, gpus):.0f}"]
                    row += [f"{more:.1f}", f"{stage.sent / sent + stage.returned / returned:.0f}"]
                    table.writerow(row)
                    print(*row, flush=True)


if __name__ == "__main__":
    main()
