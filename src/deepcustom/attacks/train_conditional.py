"""Trains one data generator network (DGN) that is told the label, for all classes at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from deepcustom.attacks.conditional import ConditionalDGN, perturbed
from deepcustom.attacks.dgn import stored
from deepcustom.attacks.losses.base import CustomLoss, LossContext, build_loss
from deepcustom.attacks.train_dgn import checked
from deepcustom.base.errors import InputError
from deepcustom.base.settings import TrainDgnParams
from deepcustom.training.compute import seed_everything
from deepcustom.training.epochs import History
from deepcustom.training.fit import Terms, fit
from deepcustom.training.job import Job
from deepcustom.training.nets.base import Classifier, Conditional, MixedPrecision
from deepcustom.training.prediction import accuracy
from deepcustom.training.rows import LabelledImages

_ROWS = 2000  # validation images at a time


def train_conditional(
    generator: Conditional,
    dataset: str,
    contexts: Sequence[LossContext],
    train: LabelledImages,
    val: LabelledImages,
    params: TrainDgnParams,
    job: Job,
) -> tuple[ConditionalDGN, History]:
    """Train one DGN on the images of all classes, in a shuffled order.

    Args:
        generator: a fresh one, on the job's device; trained in place.
        dataset: name of the subject that it attacks.
        contexts: as in :func:`deepcustom.attacks.train_bank.train_bank`. Each image meets the loss of its
            label's context.
        train: images (N, C, H, W) in [0, 1] and labels (N,), on the job's device.
        val: likewise, for the curve of the target network's accuracy; may be empty.
        params: loss, its options and training budget; the output is a perturbation.
        job: its seed decides the order of the images. Its checkpoint keeps what
            :func:`deepcustom.training.fit.fit` keeps.

    Returns:
        The DGN as its file will hold it, and its history: ``loss``, the loss's terms and, where ``val`` is
        not empty, ``val_target_accuracy``: the share of projected validation images that the target network
        still gets right. The last value is for the stored weights.

    Raises:
        UnknownNameError, LossError, ParamsError: as :func:`deepcustom.attacks.losses.build_loss`.
        InputError: there is no train image.
    """
    if not len(train[1]):
        raise InputError("there is no train image to train a DGN on")
    seed_everything(job.seed)  # a loss may draw numbers when it is built
    target_net, threat = contexts[0].target_net, contexts[0].threat
    attacked = OnePass(MixedPrecision(target_net, job.compute))
    own = [replace(context, target_net=attacked) for context in contexts]
    losses = [build_loss(params.loss, params.options, context) for context in own]
    dgn = ConditionalDGN(dataset, params.loss, per_class=False, generator=generator)

    # What training minimises, and what it measures after each epoch.
    def terms(x: Tensor, y: Tensor) -> Terms:
        order = torch.argsort(y, stable=True)  # so that the images of each class lie together
        x, y = x[order], y[order]
        g = perturbed(generator, x, y, threat)
        with torch.autocast(job.compute.device.type, enabled=False):
            return by_label(losses, attacked, x, g, y, params.loss)

    def left() -> float:
        hits = 0.0
        for start in range(0, len(val[1]), _ROWS):
            x, y = (part[start : start + _ROWS] for part in val)
            x_adv = dgn.generate(x, y, threat, compute=job.compute)
            hits += len(y) * accuracy(target_net, x_adv, y)
        return hits / len(val[1])

    def watch(epoch: int) -> Mapping[str, float]:
        return {"val_target_accuracy": left()} if len(val[1]) else {}

    # Train, then measure once more with the weights as they will be stored.
    job.tell_resumed()
    history = fit(generator, terms, train, params.training, job, after_epoch=watch)
    state = generator.state_dict()
    generator.load_state_dict({name: stored(t).to(t.dtype) for name, t in state.items()})
    if len(val[1]):
        history["val_target_accuracy"][-1] = left()
    generator.eval().requires_grad_(False)
    return dgn, history


def by_label(
    losses: Sequence[CustomLoss], net: OnePass, x: Tensor, g: Tensor, y: Tensor, name: str
) -> Terms:
    """The terms of all images, each by the loss of its label.

    Args:
        losses: one for each label; their network is ``net``.
        net: shown the whole batch at once.
        x: clean images (N, C, H, W) in [0, 1], ordered by their labels.
        g: the generator's output, same shape.
        y: their labels (N,), rising.
        name: the loss's, for messages.

    Returns:
        Term name → (N,) tensor; 0 where the loss of an image's label has no such term.

    Raises:
        LossError: a loss returns something else than named terms with one number per image.
    """
    labels, counts = torch.unique_consecutive(y, return_counts=True)
    sizes = counts.tolist()
    parts_x, parts_g = torch.split(x, sizes), torch.split(g, sizes)
    with net.shown((x, parts_x), (g, parts_g)):
        found = [
            checked(losses[label](part_x, part_g), len(part_x), name)
            for label, part_x, part_g in zip(labels.tolist(), parts_x, parts_g, strict=True)
        ]
    names = dict.fromkeys(term for terms in found for term in terms)
    return {
        term: torch.cat(
            [
                terms[term] if term in terms else g.new_zeros(size)
                for terms, size in zip(found, sizes, strict=True)
            ]
        )
        for term in names
    }


Answer = tuple[dict[str, Tensor], Tensor]


class OnePass(Classifier):
    """A frozen classifier in eval mode that answers for the parts of a batch from one pass over the batch.

    The losses of a batch's labels each ask about their own few images, and many small passes take longer than
    a large one. Any other images get a pass of their own.
    """

    def __init__(self, net: Classifier) -> None:
        super().__init__()
        self.net = net
        self._shown: list[tuple[Tensor, Sequence[Tensor]]] = []
        self._answers: dict[tuple[int, bool, bool], list[Answer]] = {}

    @contextmanager
    def shown(self, *batches: tuple[Tensor, Sequence[Tensor]]) -> Iterator[None]:
        """Inside, know these batches: each (N, C, H, W), with the parts that it was split into along N."""
        self._shown = list(batches)
        try:
            yield
        finally:
            self._shown, self._answers = [], {}

    def preactivations(self, x: Tensor) -> Answer:
        """See :meth:`Classifier.preactivations`."""
        return self._answer(x, hidden=True)

    def forward(self, x: Tensor) -> Tensor:
        """Logits alone, so the network need not tell its pre-activations."""
        return self._answer(x, hidden=False)[1]

    def _answer(self, x: Tensor, *, hidden: bool) -> Answer:
        for number, (whole, parts) in enumerate(self._shown):
            for place, part in enumerate(parts):
                if part is x:
                    return self._of_batch(number, whole, [len(one) for one in parts], hidden)[place]
        return self._ask(x, hidden)

    def _ask(self, x: Tensor, hidden: bool) -> Answer:
        return self.net.preactivations(x) if hidden else ({}, self.net(x))

    def _of_batch(self, number: int, whole: Tensor, sizes: list[int], hidden: bool) -> list[Answer]:
        """The answers for each part of a batch; those without gradients do not stand in for those with.

        Those with pre-activations stand in for logits alone.
        """
        graded = torch.is_grad_enabled()
        key = number, graded, hidden or (number, graded, True) in self._answers
        if key not in self._answers:
            seen, logits = self._ask(whole, hidden)
            split = {name: torch.split(values, sizes) for name, values in seen.items()}
            self._answers[key] = [
                ({name: values[place] for name, values in split.items()}, part)
                for place, part in enumerate(torch.split(logits, sizes))
            ]
        return self._answers[key]
