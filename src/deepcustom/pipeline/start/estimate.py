"""Estimates how long a project's first run takes, from a few steps of training on this machine."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepcustom.base.rows import LAYOUTS, Row, rows
from deepcustom.base.settings import ComputeParams
from deepcustom.pipeline.start.images import Images

TRIALS, MOST_SECONDS = 5, 5.0
"""Steps that are timed, and after how many seconds no further one begins."""
STAGE_SECONDS = 8.0
"""What a stage takes besides its work: Python and its imports, DVC's hashes, the record."""
GENERATOR = 4.0
"""A step that trains a generator through a network, in steps of the network alone."""
FORWARD = 0.4
"""Predictions, in steps of training."""
STANDING = 0.5
"""The share of images on which AutoAttack's parts run to their end: they leave out what has fallen."""
BATCH = 128


def seconds_per_image(root: Path, network: str, images: Images) -> float:
    """What one image costs in a step of training, on the device and in the precision of ``auto``.

    Args:
        root: the project, from which the user's own network is imported.
        network: ``package.module:Class``.
        images: of the data set.
    """
    import torch
    import torch.nn.functional as F

    from deepcustom.training.compute import Compute
    from deepcustom.training.nets.base import build

    compute = Compute.of(ComputeParams(device="auto", precision="auto", threads="auto"))
    with contextlib.chdir(root):
        facts = {"shape": images.shape, "classes": images.classes, "num_classes": images.classes}
        net = compute.place(build(network, **facts)).train()
    x = torch.rand(BATCH, *images.shape, device=compute.device)
    y = torch.arange(BATCH, device=compute.device) % images.classes
    optimiser = torch.optim.Adam(net.parameters())
    best, begin = float("inf"), time.monotonic()
    for _ in range(TRIALS):
        start = time.monotonic()
        with compute.autocast():
            loss = F.cross_entropy(net(x).float(), y)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        float(loss.detach())  # waits for the device
        best = min(best, time.monotonic() - start)
        if time.monotonic() - begin > MOST_SECONDS:
            break
    return best / BATCH


def seconds(tree: Mapping[str, Any], sizes: Mapping[str, int], per_image: float) -> float:
    """How long all rows take, roughly.

    Args:
        tree: the whole of the params.
        sizes: number of images of train, val and test.
        per_image: as :func:`seconds_per_image` gives it.
    """
    every = [one for stage in LAYOUTS for one in rows(tree, stage)]
    networks = 1 + sum(one.stage in ("adversarial_train", "train_online") for one in every)
    steps = sum(_steps(one, sizes, networks) for one in every)
    return steps * per_image + STAGE_SECONDS * len(every)


def _steps(one: Row, sizes: Mapping[str, int], networks: int) -> float:
    """The work of a row, in images of a training step."""
    training = one.settings.get("training", one.settings)
    seen = float(sizes["train"]) * float(training.get("epochs", 0))
    if one.stage == "train_target":
        return seen
    if one.stage == "train_dgn":
        return GENERATOR * seen
    if one.stage in ("generate", "attack"):
        return sizes[one.about["split"]] * max(1.0, float(one.settings.get("max_iter", 1)))
    if one.stage == "adversarial_train":
        inner = one.settings.get("inner", {}).get("max_iter", 1)
        return (1.0 + float(inner)) * seen
    if one.stage == "train_online":
        return (2.0 + GENERATOR) * seen
    if one.stage == "evaluate":
        return networks * _attacked(one.settings, sizes, networks)
    return 0.0


def _attacked(settings: Mapping[str, Any], sizes: Mapping[str, int], networks: int) -> float:
    """What the evaluation of one network costs, in images of a training step."""
    auto, adaptive = settings["autoattack"], settings["adaptive"]["training"]
    pgd, curves = settings["whitebox"]["pgd"], settings["curves"]
    strong = float(pgd["max_iter"] * pgd["num_random_init"])
    # The attack, and its check with twice the steps and twice the restarts, on what still stands.
    per_image = 3.0 * strong
    per_image += STANDING * auto["max_iter"] * (1 + auto["targets"])
    per_image += STANDING * FORWARD * auto["queries"]
    per_image += settings["surrogate"]["max_iter"] + FORWARD * networks
    drawn = len(curves["radii"]) * pgd["max_iter"] + sum(curves["steps"])
    return float(
        settings["n"] * per_image
        + curves["n"] * drawn
        + GENERATOR * sizes["train"] * adaptive["epochs"]
    )
