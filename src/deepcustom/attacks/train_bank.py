"""Training data generator networks, one per class, to a bank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from deepcustom.attacks.bank import DGNBank, propose, ready, stored
from deepcustom.attacks.losses import LossContext, build_loss
from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.errors import InputError, LossError
from deepcustom.base.params import TrainDgnParams
from deepcustom.base.progress import Advance, silent
from deepcustom.training.checkpoint import NOWHERE, Checkpoint
from deepcustom.training.compute import Compute, derive_seed, seed_everything
from deepcustom.training.epochs import History, epochs_kept
from deepcustom.training.fit import fit
from deepcustom.training.nets.base import Classifier, MixedPrecision, build
from deepcustom.training.prediction import accuracy


def train_bank(
    generator: str,
    dataset: str,
    target_net: Classifier,
    train: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
    analysis: Mapping[str, Mapping[str, Tensor]],
    params: TrainDgnParams,
    threat: ThreatModel,
    *,
    num_classes: int,
    seed: int,
    compute: Compute,
    advance: Advance = silent,
    checkpoint: Checkpoint = NOWHERE,
) -> tuple[DGNBank, History]:
    """Train one DGN per class on that class's images.

    Args:
        generator: their class, ``package.module:Class``.
        dataset: name of the subject that they attack.
        target_net: the network under attack, frozen, in eval mode.
        train: images (N, C, H, W) in [0, 1] and labels (N,), on ``compute.device``.
        val: likewise, for the curve of what the target network still gets right; may be empty.
        analysis: analysis → array → tensor with one row per class, for the loss's ``requires``.
        params: loss, its options, output and training budget.
        threat: what the images will be projected to.
        num_classes: how many DGNs.
        seed: of initial weights and orders; every class has its own.
        compute: device and precision.
        advance: called after every epoch of every class with how it stands.
        checkpoint: keeps the classes that are finished, and for the one under way what
            :func:`deepcustom.training.fit.fit` keeps; training goes on from there, to the same bytes.

    Returns:
        The bank as its file will hold it, and the history: per class under ``class_<k>/``, and the
        mean over the classes without a prefix.

    Raises:
        UnknownNameError, LossError, ParamsError: as :func:`deepcustom.attacks.losses.build_loss`.
        InputError: a class has no train image.
    """
    contexts = [
        LossContext(target_net, label, threat, _rows(analysis, label))
        for label in range(num_classes)
    ]
    counts = torch.bincount(train[1], minlength=num_classes)
    if (counts == 0).any():
        raise InputError(f"class {int(counts.argmin())} has no train image to train a DGN on")
    for context in contexts:  # every mistake shows before the first DGN is trained
        build_loss(params.loss, params.options, context)
    finished = _finished(checkpoint, generator, num_classes, compute)
    _tell_resumed(checkpoint, len(finished), params.training.epochs, advance)
    for context in contexts[len(finished) :]:
        own = f"class_{context.label}"
        net, history = train_dgn(
            generator,
            context,
            train[0][train[1] == context.label],
            val[0][val[1] == context.label],
            params,
            seed=derive_seed(seed, str(context.label)),
            compute=compute,
            advance=advance,
            checkpoint=checkpoint.part(own),
        )
        checkpoint.save(own, net.state_dict(), {"history": list(history.items())})
        checkpoint.part(own).clear()
        finished.append((net, history))
    generators = [net for net, _ in finished]
    merged = _merge([history for _, history in finished])
    return DGNBank(dataset, params.loss, params.output, generators), merged


def _finished(
    checkpoint: Checkpoint, generator: str, num_classes: int, compute: Compute
) -> list[tuple[nn.Module, History]]:
    """What :func:`train_dgn` gave for the first classes, as far as ``checkpoint`` holds them."""
    found: list[tuple[nn.Module, History]] = []
    for label in range(num_classes):
        kept = checkpoint.load(f"class_{label}")
        if kept is None:
            break
        net = build(generator)
        net.load_state_dict(kept[0])
        found.append((ready(net, compute.device), dict(kept[1]["history"])))
    return found


def _tell_resumed(checkpoint: Checkpoint, classes: int, epochs: int, advance: Advance) -> None:
    """Say to ``advance`` where training goes on, if it does: ``classes`` of ``epochs`` are finished."""
    more = epochs_kept(checkpoint.part(f"class_{classes}"))
    if classes or more:
        last = f"class {classes}, epoch {more}" if more else f"class {classes - 1}"
        advance(f"resumed after {last}", steps=classes * epochs + more, resumed=True)


def train_dgn(
    generator: str,
    context: LossContext,
    x: Tensor,
    x_val: Tensor,
    params: TrainDgnParams,
    *,
    seed: int,
    compute: Compute,
    advance: Advance = silent,
    checkpoint: Checkpoint = NOWHERE,
) -> tuple[nn.Module, History]:
    """Train the DGN of one class; arguments as in :func:`train_bank`, ``checkpoint`` as in ``fit``.

    Returns:
        The generator with its weights as they will be stored, and its history: ``loss``, the loss's
        terms and, where ``x_val`` is not empty, ``val_target_accuracy``: the share of projected
        validation images that the target network still gets right (at last by the stored weights).
    """
    seed_everything(seed)
    net = compute.place(build(generator))
    attacked = MixedPrecision(context.target_net, compute)
    loss = build_loss(params.loss, params.options, replace(context, target_net=attacked))
    y_val = torch.full((len(x_val),), context.label, device=x_val.device)

    def terms(batch: Tensor) -> Mapping[str, Tensor]:
        g = propose(net, batch, params.output, context.threat)
        with torch.autocast(compute.device.type, enabled=False):
            return _checked(loss(batch, g), len(batch), params.loss)

    def kept() -> float:
        bank = DGNBank("", params.loss, params.output, [net])  # for this call alone
        x_adv = bank.generate(x_val, torch.zeros_like(y_val), context.threat, compute=compute)
        return accuracy(context.target_net, x_adv, y_val)

    def watch(epoch: int, means: Mapping[str, float]) -> Mapping[str, float]:
        seen = {"val_target_accuracy": kept()} if len(x_val) else {}
        advance(_note(context.label, {**means, **seen}))
        return seen

    history = fit(
        net,
        terms,
        [x],
        params.training,
        seed=seed,
        compute=compute,
        after_epoch=watch,
        checkpoint=checkpoint,
    )
    net.load_state_dict({k: stored(t).to(t.dtype) for k, t in net.state_dict().items()})
    if len(x_val):
        history["val_target_accuracy"][-1] = kept()
    return ready(net, compute.device), history


def _checked(terms: Any, n: int, loss: str) -> Mapping[str, Tensor]:
    """A user's loss may return anything; say what it should be."""
    if not isinstance(terms, Mapping) or not terms:
        raise LossError(f"loss {loss!r} must return a mapping of named terms")
    for name, term in terms.items():
        if not isinstance(term, Tensor) or term.shape != (n,):
            shape = tuple(term.shape) if isinstance(term, Tensor) else type(term).__name__
            raise LossError(f"loss {loss!r}: term {name!r} is {shape}, expected a ({n},) tensor")
    return terms


def _rows(analysis: Mapping[str, Mapping[str, Tensor]], label: int) -> dict[str, dict[str, Tensor]]:
    """One class's row of every array."""
    return {
        name: {key: array[label] for key, array in arrays.items()}
        for name, arrays in analysis.items()
    }


def _note(label: int, means: Mapping[str, float]) -> str:
    return f"class {label}  " + "  ".join(f"{name} {value:.4f}" for name, value in means.items())


def _merge(histories: list[History]) -> History:
    """The classes' curves, and their mean."""
    merged: History = {}
    for name in dict.fromkeys(name for history in histories for name in history):
        curves = [history[name] for history in histories if name in history]
        merged[name] = [sum(values) / len(values) for values in zip(*curves, strict=True)]
    for label, history in enumerate(histories):
        merged |= {f"class_{label}/{name}": curve for name, curve in history.items()}
    return merged
