"""Trains a bank of data generator networks (DGNs), one per class."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from deepcustom.attacks.bank import DGNBank, ready
from deepcustom.attacks.losses import LossContext, build_loss
from deepcustom.attacks.threat import ThreatModel
from deepcustom.attacks.train_dgn import train_dgn
from deepcustom.base.errors import InputError
from deepcustom.base.progress import Advance
from deepcustom.base.settings import TrainDgnParams
from deepcustom.data.arrays import Array
from deepcustom.data.mapped import MappedImages, held
from deepcustom.training.compute import Compute, derive_seed
from deepcustom.training.engine import Task
from deepcustom.training.epochs import History, epochs_kept
from deepcustom.training.job import Job
from deepcustom.training.nets.base import Classifier, Named, build
from deepcustom.training.rows import Images, LabelledImages

CPU = torch.device("cpu")
Analyses = Mapping[str, Mapping[str, Tensor]]


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
            :func:`deepcustom.training.fit.fit` keeps. Classes are the tasks of its engine, if it has one.

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
    _tell_resumed(list(finished), params.training.epochs, job)
    # Train a DGN for each class that is left, and keep it as soon as it is finished.
    left = [context for context in contexts if context.label not in finished]
    rows = [
        (context, of_class(train, context.label), of_class(val, context.label)) for context in left
    ]
    train_left = _here if job.engine is None else _elsewhere
    for label, (net, history) in train_left(generator, rows, params, job):
        job.checkpoint.save(_own(label), net.state_dict(), {"history": list(history.items())})
        job.checkpoint.part(_own(label)).clear()
        finished[label] = net, history
    in_order = [finished[context.label] for context in contexts]
    merged = _merge([history for _, history in in_order])
    return DGNBank(dataset, params.loss, params.output, [net for net, _ in in_order]), merged


Trained = tuple[nn.Module, History]
"""A DGN, and its history."""
OfClass = tuple[LossContext, Images, Images]
"""What the loss of a class may know, and the class's images to train on and to watch."""


def of_class(images: LabelledImages, label: int) -> Images:
    """The images of one class."""
    found: Images = images[0][images[1] == label]
    return found


def _here(
    generator: Named, rows: Sequence[OfClass], params: TrainDgnParams, job: Job
) -> Iterator[tuple[int, Trained]]:
    """Train one class after the other in this process."""
    for context, x, x_val in rows:
        label = context.label
        seed, part = derive_seed(job.seed, str(label)), job.checkpoint.part(_own(label))
        own = replace(job, seed=seed, checkpoint=part)
        yield label, train_dgn(generator, context, x, x_val, params, own)


def _elsewhere(
    generator: Named, rows: Sequence[OfClass], params: TrainDgnParams, job: Job
) -> Iterator[tuple[int, Trained]]:
    """Train the classes as tasks of the job's engine."""
    assert job.engine is not None

    def given(context: LossContext, x: Images, x_val: Images) -> tuple[Any, ...]:
        alone = Alone(context.label, context.threat, _moved(context.analysis, CPU))
        return alone, held(x), held(x_val), derive_seed(job.seed, str(context.label))

    tasks = [Task(f"class {row[0].label}", train_as_task, partial(given, *row)) for row in rows]
    target_net = copy.deepcopy(rows[0][0].target_net).cpu() if rows else None
    shared = generator, target_net, params
    for place, (state, history) in job.engine.do(shared, tasks, job.advance):
        net = build(generator)
        net.load_state_dict({name: torch.tensor(array) for name, array in state.items()})
        yield rows[place][0].label, (ready(net, job.compute.device), history)


class Alone(NamedTuple):
    """A :class:`LossContext` without the network under attack, which all classes share."""

    label: int
    threat: ThreatModel
    analysis: Analyses


def train_as_task(
    shared: tuple[Named, Classifier, TrainDgnParams],
    known: Alone,
    x: Array,
    x_val: Array,
    seed: int,
    *,
    compute: Compute,
    advance: Advance,
) -> tuple[dict[str, Array], History]:
    """:func:`train_dgn` as a task of an engine: arrays come and go."""
    generator, target_net, params = shared
    analysis = _moved(known.analysis, compute.device)
    context = LossContext(compute.place(target_net), known.label, known.threat, analysis)
    images, watched = (MappedImages.on(array, compute.device) for array in (x, x_val))
    job = Job(seed, compute, advance)
    net, history = train_dgn(generator, context, images, watched, params, job)
    return {name: tensor.cpu().numpy() for name, tensor in net.state_dict().items()}, history


def _moved(analysis: Analyses, device: torch.device) -> Analyses:
    return {
        name: {key: array.to(device) for key, array in arrays.items()}
        for name, arrays in analysis.items()
    }


def _own(label: int) -> str:
    """The name of a class in a checkpoint."""
    return f"class_{label}"


def _finished(generator: Named, num_classes: int, job: Job) -> dict[int, Trained]:
    """Class → the result of :func:`train_dgn`, of those that the checkpoint holds."""
    found: dict[int, Trained] = {}
    for label in range(num_classes):
        kept = job.checkpoint.load(_own(label))
        if kept is not None:
            net = build(generator)
            net.load_state_dict(kept[0])
            found[label] = ready(net, job.compute.device), dict(kept[1]["history"])
    return found


def _tell_resumed(finished: Sequence[int], epochs: int, job: Job) -> None:
    """If training resumes, report where: the ``finished`` classes have ``epochs`` each."""
    following = len(finished)
    more = 0 if job.engine else epochs_kept(job.checkpoint.part(_own(following)))
    if not finished and not more:
        return
    in_turn = list(finished) == list(range(following))
    last = f"class {following}, epoch {more}" if more else f"class {following - 1}"
    after = last if in_turn else f"classes {', '.join(map(str, finished))}"
    job.advance(f"resumed after {after}", steps=following * epochs + more, resumed=True)


def _merge(histories: list[History]) -> History:
    """The curves of all classes, and their mean."""
    merged: History = {}
    for name in dict.fromkeys(name for history in histories for name in history):
        curves = [history[name] for history in histories if name in history]
        merged[name] = [sum(values) / len(values) for values in zip(*curves, strict=True)]
    for label, history in enumerate(histories):
        merged |= {f"class_{label}/{name}": curve for name, curve in history.items()}
    return merged
