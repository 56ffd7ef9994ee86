"""A network tried on images that were handed over, before it is attacked or learned from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from deepcustom.base.errors import InputError
from deepcustom.evaluation.trial import say
from deepcustom.library.given import Gathered
from deepcustom.training.chance import HINT
from deepcustom.training.compute import Compute
from deepcustom.training.nets.base import Classifier
from deepcustom.training.nets.foreign import Foreign
from deepcustom.training.nets.outputs import tensors_of
from deepcustom.training.short_trial import check_outputs
from deepcustom.training.trial import Trial, tried

SOME = 500
"""Images that a network is tried on, at most; of more, as many are taken at equal distances."""


def classes_of(net: nn.Module, data: Gathered, compute: Compute, name: str = "net") -> int | None:
    """How many logits a network gives; None if it refuses two images as they are: a trial says why.

    Args:
        net: the network.
        data: images and labels.
        compute: where to compute.
        name: what to call the network.

    Raises:
        InputError: the labels do not fit, in one line.
    """
    few, _ = Gathered(data.x[:2], data.y[:2]).on(compute)
    try:
        with torch.no_grad():
            classes = _width(net(few[:].clone()))
    except Exception:  # the network may raise anything
        return None
    most = int(data.y.max())
    if classes is not None and (most >= classes or classes < 2):
        raise InputError(f"{name} gives {classes} logits, and labels go up to {most}")
    return classes


def at_least(data: Gathered) -> int:
    """How many classes there must be, by the labels."""
    return max(2, int(data.y.max()) + 1)


def _width(out: Any) -> int | None:
    """How many logits an output holds: what is called so, or the first table; None if there is none."""
    tables = {place: one for place, one in tensors_of(out) if one.dim() == 2}
    named = [one for place, one in tables.items() if place and place[-1] == "logits"]
    found = [*named, *tables.values()]
    return int(found[0].shape[1]) if found else None


def usable(
    net: Classifier,
    data: Gathered,
    classes: int,
    compute: Compute,
    name: str = "net",
    *,
    sizes: Sequence[int],
    learner: str | None = None,
) -> Classifier:
    """The network as attacks may use it: itself, or with what it lacks put around it, which is printed.

    Args:
        net: the network, on the device; it is left in eval mode.
        data: real images and labels, on some of which it is tried.
        classes: how many logits it should give.
        compute: where to compute.
        name: what to call the network.
        sizes: numbers of images that it is given at once, those of a prediction among them.
        learner: what follows its gradients; None: nothing does.

    Raises:
        InputError: in one line: it cannot be used, and why.
    """
    trial = _tried(net, data, classes, compute, name, sizes)
    _must_have_gradient(trial, name, learner)
    say(trial.notes)
    return cast(Classifier, trial.net)


def trainable(
    net: Classifier,
    data: Gathered,
    classes: int,
    compute: Compute,
    *,
    sizes: Sequence[int],
    learner: str,
) -> Classifier:
    """The same of a network that is to be trained, and that may be fresh, so that its answers tell nothing.

    What is asked of any network that is trained here is asked first, and whether it takes as many images as
    it will get; only what fails is tried further.

    Raises:
        InputError: as :func:`usable`.
    """
    if isinstance(net, Foreign):
        net.classes = classes
    try:
        check_outputs(net, data.shape, classes, compute, "net")
        rows = np.resize(np.arange(len(data.y)), max(sizes))
        images, _ = Gathered(data.x[rows], data.y[rows]).on(compute)
        with torch.no_grad():
            net(images[:].clone())
    except Exception:  # the network may raise anything
        if isinstance(net, Foreign):
            net.classes = None
        trial = _tried(net, data, classes, compute, "net", sizes)
        _must_have_gradient(trial, "net", learner)
        say(note for note in trial.notes if HINT not in note)
        return cast(Classifier, trial.net)
    return net


def _tried(
    net: nn.Module,
    data: Gathered,
    classes: int,
    compute: Compute,
    name: str,
    sizes: Sequence[int],
) -> Trial:
    rows = np.linspace(0, len(data.y) - 1, min(SOME, len(data.y))).astype(int)
    some = Gathered(data.x[rows], data.y[rows]).on(compute)
    return tried(net, *some, classes, compute, name, sizes=sizes)


def _must_have_gradient(trial: Trial, name: str, learner: str | None) -> None:
    if learner is not None and not trial.gradient:
        raise InputError(
            f"{name}: no gradient reaches its images (detach, no_grad, inference_mode, numpy?), and "
            f"{learner} follows gradients"
        )
