"""Trains one data generator network (DGN), on the images of one class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from deepcustom.attacks.bank import DGNBank, propose, ready
from deepcustom.attacks.dgn import stored
from deepcustom.attacks.losses import LossContext, build_loss
from deepcustom.base.errors import LossError
from deepcustom.base.settings import TrainDgnParams
from deepcustom.training.compute import seed_everything
from deepcustom.training.epochs import History
from deepcustom.training.fit import fit
from deepcustom.training.job import Job
from deepcustom.training.nets.base import MixedPrecision, Named, build
from deepcustom.training.prediction import accuracy
from deepcustom.training.rows import Images

_ROWS = 2000  # validation images at a time


def train_dgn(
    generator: Named,
    context: LossContext,
    x: Images,
    x_val: Images,
    params: TrainDgnParams,
    job: Job,
) -> tuple[nn.Module, History]:
    """Train the DGN of one class on its images.

    Args:
        generator: what it is made from.
        context: what the loss may know.
        x: images (N, C, H, W) in [0, 1] to train on, on the job's device.
        x_val: likewise, for the curve of the target network's accuracy; may be empty.
        params: loss, its options, output and training budget.
        job: as in :func:`deepcustom.training.fit.fit`.

    Returns:
        The generator with its weights as they will be stored, and its history: ``loss``, the loss's
        terms and, where ``x_val`` is not empty, ``val_target_accuracy``: the share of projected
        validation images that the target network still gets right. The last value is for the stored
        weights.
    """
    seed_everything(job.seed)
    net = job.compute.place(build(generator))
    attacked = MixedPrecision(context.target_net, job.compute)
    loss = build_loss(params.loss, params.options, replace(context, target_net=attacked))

    # What training minimises, and what it measures after each epoch.
    def terms(batch: Tensor) -> Mapping[str, Tensor]:
        g = propose(net, batch, params.output, context.threat)
        with torch.autocast(job.compute.device.type, enabled=False):
            return checked(loss(batch, g), len(batch), params.loss)

    def left() -> float:
        bank = DGNBank("", params.loss, params.output, [net])  # used in this call alone
        hits = 0.0
        for start in range(0, len(x_val), _ROWS):
            some = x_val[start : start + _ROWS]
            labels = torch.zeros(len(some), dtype=torch.int64, device=some.device)
            x_adv = bank.generate(some, labels, context.threat, compute=job.compute)
            hits += len(some) * accuracy(context.target_net, x_adv, labels + context.label)
        return hits / len(x_val)

    def watch(epoch: int) -> Mapping[str, float]:
        return {"val_target_accuracy": left()} if len(x_val) else {}

    def advance(note: str = "", steps: int = 1, *, resumed: bool = False) -> None:
        job.advance(f"class {context.label}  {note}", steps, resumed=resumed)

    # Train, then measure once more with the weights as they will be stored.
    own = replace(job, advance=advance)
    history = fit(net, terms, [x], params.training, own, after_epoch=watch)
    net.load_state_dict({k: stored(t).to(t.dtype) for k, t in net.state_dict().items()})
    if len(x_val):
        history["val_target_accuracy"][-1] = left()
    return ready(net, job.compute.device), history


def checked(terms: Any, n: int, loss: str) -> Mapping[str, Tensor]:
    """``terms``, checked, since a user's loss may return anything."""
    if not isinstance(terms, Mapping) or not terms:
        raise LossError(f"loss {loss!r} must return a mapping of named terms")
    for name, term in terms.items():
        if not isinstance(term, Tensor) or term.shape != (n,):
            shape = tuple(term.shape) if isinstance(term, Tensor) else type(term).__name__
            raise LossError(f"loss {loss!r}: term {name!r} is {shape}, expected a ({n},) tensor")
    return terms
