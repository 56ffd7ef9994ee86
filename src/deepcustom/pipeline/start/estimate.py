"""Estimates how long a project's first run takes, from a few steps of training on this machine."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepcustom.base.rows import LAYOUTS, Row, rows
from deepcustom.base.settings import ComputeParams
from deepcustom.pipeline.start.images import Images

if TYPE_CHECKING:
    from torch import Tensor, nn

    from deepcustom.training.compute import Compute

TRIALS, MOST_SECONDS = 5, 5.0
"""Steps that are timed, and after how many seconds no further one begins."""
STAGE_SECONDS = 8.0
"""What a stage takes besides its work: Python and its imports, DVC's hashes, the record."""
FORWARD, THROUGH = 0.4, 0.7
"""Predictions, and a gradient with respect to the image, in steps of training."""
STANDING = 0.5
"""The share of images on which AutoAttack's parts run to their end: they leave out what has fallen."""
BATCH = 128


@dataclass(frozen=True)
class Pace:
    """What an image costs on this machine.

    Attributes:
        network: seconds in a step of the network's training.
        generator: seconds in a step of the generator's training, without the network that it attacks.
    """

    network: float
    generator: float


def pace(root: Path, network: str, generator: str, images: Images) -> Pace:
    """Time both, on the device and in the precision of ``auto``.

    Args:
        root: the project, from which the user's own network is imported.
        network: ``package.module:Class``.
        generator: likewise, of one that is told the label.
        images: of the data set.
    """
    import torch

    from deepcustom.training.compute import Compute
    from deepcustom.training.nets.base import Architecture, build, build_conditional

    compute = Compute.of(ComputeParams(device="auto", precision="auto", threads="auto"))
    facts = {"shape": images.shape, "classes": images.classes, "num_classes": images.classes}
    with contextlib.chdir(root):
        net = compute.place(build(network, **facts))
    told = compute.place(build_conditional(Architecture(generator, facts=facts), images.classes))
    x = torch.rand(BATCH, *images.shape, device=compute.device)
    y = torch.arange(BATCH, device=compute.device) % images.classes

    def of_network() -> Tensor:
        return torch.nn.functional.cross_entropy(net(x).float(), y)

    def of_generator() -> Tensor:
        loss: Tensor = ((told(x, y) - x) ** 2).mean()
        return loss

    return Pace(_step(net, of_network, compute), _step(told, of_generator, compute))


def _step(net: nn.Module, loss_of: Callable[[], Tensor], compute: Compute) -> float:
    """Seconds an image of the quickest of a few steps."""
    import torch

    optimiser = torch.optim.Adam(net.train().parameters())
    best, begin = float("inf"), time.monotonic()
    for _ in range(TRIALS):
        start = time.monotonic()
        with compute.autocast():
            loss = loss_of()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        float(loss.detach())  # waits for the device
        best = min(best, time.monotonic() - start)
        if time.monotonic() - begin > MOST_SECONDS:
            break
    return best / BATCH


def seconds(tree: Mapping[str, Any], sizes: Mapping[str, int], at: Pace) -> float:
    """How long all rows take, roughly.

    Args:
        tree: the whole of the params.
        sizes: number of images of train, val and test.
        at: what an image costs, as :func:`pace` finds it.
    """
    every = [one for stage in LAYOUTS for one in rows(tree, stage)]
    networks = 1 + sum(one.stage in ("adversarial_train", "train_online") for one in every)
    return sum(_seconds(one, sizes, networks, at) + STAGE_SECONDS for one in every)


def _seconds(one: Row, sizes: Mapping[str, int], networks: int, at: Pace) -> float:
    """What the work of a row takes."""
    training = one.settings.get("training", one.settings)
    seen = float(sizes["train"]) * float(training.get("epochs", 0))
    gradient = THROUGH * at.network
    if one.stage == "train_target":
        return seen * at.network
    if one.stage == "train_dgn":
        return seen * (at.generator + gradient)
    if one.stage == "generate":
        return sizes[one.about["split"]] * FORWARD * at.generator
    if one.stage == "attack":
        return (
            sizes[one.about["split"]] * max(1.0, float(one.settings.get("max_iter", 1))) * gradient
        )
    if one.stage == "adversarial_train":
        inner = one.settings.get("inner", {}).get("max_iter", 0)
        # Clean images, and those that a set holds or that steps make.
        return seen * (at.network * (1 if inner else 2) + float(inner) * gradient)
    if one.stage == "train_online":
        steps = float(one.settings["max_iter"])
        return seen * (at.network + steps * gradient + at.generator)
    if one.stage == "evaluate":
        return networks * _attacked(one.settings, sizes, networks, at)
    return 0.0


def _attacked(
    settings: Mapping[str, Any], sizes: Mapping[str, int], networks: int, at: Pace
) -> float:
    """What the evaluation of one network takes."""
    auto, adaptive = settings["autoattack"], settings["adaptive"]["training"]
    pgd, curves = settings["whitebox"]["pgd"], settings["curves"]
    # Gradients an image: PGD, and its check with twice the steps and twice the restarts on what still stands.
    gradients = 3.0 * pgd["max_iter"] * pgd["num_random_init"]
    gradients += STANDING * auto["max_iter"] * (1 + auto["targets"])
    gradients += settings["surrogate"]["max_iter"]
    queries = STANDING * auto["queries"] + networks
    drawn = len(curves["radii"]) * pgd["max_iter"] + sum(curves["steps"])
    attacked = (
        settings["n"] * (gradients * THROUGH + queries * FORWARD) + curves["n"] * drawn * THROUGH
    )
    seen = float(sizes["train"] * adaptive["epochs"])
    return float(attacked * at.network + seen * (at.generator + THROUGH * at.network))
