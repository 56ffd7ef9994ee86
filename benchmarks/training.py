"""Training the DGN of one class for an epoch, set-up included: as the project does, and plainly."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.inputs import Inputs, own_compute
from benchmarks.race import Contender
from benchmarks.worker import Work

if TYPE_CHECKING:
    from torch import Tensor

LOSSES: dict[str, dict[str, float]] = {
    "nce": {"mse_weight": 1.0, "cross_entropy_weight": 1.0},
    "lrp": {"custom_loss_constant": 0.5},
}
LABEL = 0
BATCH = 128
RELEVANT = {"mnist": 20, "cifar10": 80}  # how many pixels; for speed it does not matter which
IMAGES, QUICK_IMAGES = 2000, 40


def settings(dataset: str, quick: bool) -> dict[str, Any]:
    """What the figures depend on."""
    return {"images": QUICK_IMAGES if quick else IMAGES, "batch_size": BATCH, "epochs": 1}


def contenders(root: Path, dataset: str, quick: bool) -> list[Contender]:
    """Each loss, by this project and plainly."""
    options = {"root": str(root), "dataset": dataset, "images": settings(dataset, quick)["images"]}
    return [
        Contender(
            f"{loss}-{who}",
            f"{loss}, {by}",
            f"benchmarks.training:{who}",
            {**options, "loss": loss},
        )
        for loss in LOSSES
        for who, by in (("project", "this project"), ("plain", "plain PyTorch"))
    ]


def project(root: str, dataset: str, images: int, loss: str) -> Work:
    """``train_dgn`` as the stage ``train_dgn`` calls it, without validation images."""
    from deepcustom.attacks.losses import LossContext
    from deepcustom.attacks.train_dgn import train_dgn
    from deepcustom.base.settings import TrainDgnParams, TrainingParams
    from deepcustom.training.job import Job

    inputs, compute = Inputs(Path(root), dataset), own_compute()
    x = _images(inputs, images).to(compute.device)
    budget = TrainingParams(
        learning_rate=1e-3,
        epochs=1,
        batch_size=BATCH,
        schedule="one_cycle",
        momentum=0.9,
        weight_decay=0.0,
    )
    options = LOSSES[loss]
    params = TrainDgnParams(
        loss=loss, generator="per_class", output="image", training=budget, options=options
    )
    analysis = {"relevance": {"pixels": _relevant(inputs)}}
    context = LossContext(inputs.target_net(compute), LABEL, inputs.threat, analysis)

    generator = inputs.architecture(inputs.subject.generator)

    def call() -> float:
        _, history = train_dgn(generator, context, x, x[:0], params, Job(0, compute))
        return history["loss"][-1]

    return Work(call, len(x), lambda mean: {"loss": mean, **compute.describe()})


def plain(root: str, dataset: str, images: int, loss: str) -> Work:
    """The same network, loss, images and number of steps with :mod:`benchmarks.plain`."""
    from benchmarks import plain

    inputs = Inputs(Path(root), dataset)
    x = _images(inputs, images)
    net = inputs.plain_target_net().requires_grad_(False)
    if loss == "nce":
        mean_loss = plain.nce(net, LABEL)
    else:
        mean_loss = plain.lrp(_relevant(inputs), inputs.eps, inputs.spec.shape)

    def call() -> float:
        return plain.train(plain.generator(dataset), mean_loss, x, batch_size=BATCH)

    return Work(call, len(x), lambda mean: {"loss": mean})


def _images(inputs: Inputs, count: int) -> Tensor:
    """The first train images of one class, as many as there are up to ``count``."""
    import numpy as np

    split = inputs.split("train")
    rows = np.flatnonzero(np.asarray(split.y) == LABEL)[:count]
    return split.take(rows).tensors()[0]


def _relevant(inputs: Inputs) -> Tensor:
    import math

    import torch

    order = torch.randperm(math.prod(inputs.spec.shape), generator=torch.Generator().manual_seed(0))
    return order[: RELEVANT[inputs.name]]
