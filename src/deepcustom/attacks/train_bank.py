"""Trains a bank of data generator networks (DGNs), one per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from deepcustom.attacks.bank import DGNBank, propose, ready
from deepcustom.attacks.dgn import stored
from deepcustom.attacks.losses import LossContext, build_loss
from deepcustom.base.errors import InputError, LossError
from deepcustom.base.settings import TrainDgnParams
from deepcustom.training.compute import derive_seed, seed_everything
from deepcustom.training.epochs import History, epochs_kept
from deepcustom.training.fit import fit
from deepcustom.training.job import Job
from deepcustom.training.nets.base import MixedPrecision, Named, build
from deepcustom.training.prediction import accuracy
from deepcustom.training.rows import Images, LabelledImages

_ROWS = 2000  # validation images at a time


def train_bank(
    generator: Named,
    dataset: str,
    contexts: Sequence[LossContext],
    train: LabelledImages,
    val: LabelledImages,
    params: TrainDgnParams,
    job: Job,
) -> tuple[DGNBank, History]:
    """Train one DGN per class on that class's images.

    Args:
        generator: what the DGNs are made from.
        dataset: name of the subject that they attack.
        contexts: what the loss may know, one for each class, as
            :func:`deepcustom.attacks.losses.contexts` makes them: the network under attack, frozen and in
            eval mode; the threat model of the projection; and the analyses that the loss ``requires``.
        train: images (N, C, H, W) in [0, 1] and labels (N,), on the job's device.
        val: likewise, for the curve of the target network's accuracy; may be empty.
        params: loss, its options, output and training budget.
        job: every class derives its own seed from the job's, for initial weights and the order of images.
            The checkpoint keeps the finished classes, and of the class under way what
            :func:`deepcustom.training.fit.fit` keeps.

    Returns:
        The bank as its file will hold it, and the history: per class under ``class_<k>/``, and the
        mean over the classes without a prefix.

    Raises:
        UnknownNameError, LossError, ParamsError: as :func:`deepcustom.attacks.losses.build_loss`.
        InputError: a class has no train image.
    """
    # Find every mistake before the first DGN is trained.
    counts = torch.bincount(train[1], minlength=len(contexts))
    if (counts == 0).any():
        raise InputError(f"class {int(counts.argmin())} has no train image to train a DGN on")
    for context in contexts:
        build_loss(params.loss, params.options, context)
    # Go on after the classes that the checkpoint holds.
    finished = _finished(generator, len(contexts), job)
    _tell_resumed(len(finished), params.training.epochs, job)
    # Train a DGN for each class that is left, and keep it as soon as it is finished.
    for context in contexts[len(finished) :]:
        own = f"class_{context.label}"
        part = job.checkpoint.part(own)
        net, history = train_dgn(
            generator,
            context,
            train[0][train[1] == context.label],
            val[0][val[1] == context.label],
            params,
            replace(job, seed=derive_seed(job.seed, str(context.label)), checkpoint=part),
        )
        job.checkpoint.save(own, net.state_dict(), {"history": list(history.items())})
        part.clear()
        finished.append((net, history))
    generators = [net for net, _ in finished]
    merged = _merge([history for _, history in finished])
    return DGNBank(dataset, params.loss, params.output, generators), merged


def _finished(generator: Named, num_classes: int, job: Job) -> list[tuple[nn.Module, History]]:
    """The results of :func:`train_dgn` for the first classes, as many as the checkpoint holds."""
    found: list[tuple[nn.Module, History]] = []
    for label in range(num_classes):
        kept = job.checkpoint.load(f"class_{label}")
        if kept is None:
            break
        net = build(generator)
        net.load_state_dict(kept[0])
        found.append((ready(net, job.compute.device), dict(kept[1]["history"])))
    return found


def _tell_resumed(classes: int, epochs: int, job: Job) -> None:
    """If training resumes, report where: ``classes`` are finished, with ``epochs`` each."""
    more = epochs_kept(job.checkpoint.part(f"class_{classes}"))
    if classes or more:
        last = f"class {classes}, epoch {more}" if more else f"class {classes - 1}"
        job.advance(f"resumed after {last}", steps=classes * epochs + more, resumed=True)


def train_dgn(
    generator: Named,
    context: LossContext,
    x: Images,
    x_val: Images,
    params: TrainDgnParams,
    job: Job,
) -> tuple[nn.Module, History]:
    """Train the DGN of one class on ``x``; other arguments as in :func:`train_bank`.

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


def _merge(histories: list[History]) -> History:
    """The curves of all classes, and their mean."""
    merged: History = {}
    for name in dict.fromkeys(name for history in histories for name in history):
        curves = [history[name] for history in histories if name in history]
        merged[name] = [sum(values) / len(values) for values in zip(*curves, strict=True)]
    for label, history in enumerate(histories):
        merged |= {f"class_{label}/{name}": curve for name, curve in history.items()}
    return merged
