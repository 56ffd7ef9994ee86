"""The only training loop: minimise the mean of per-image terms with Adam."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deepcustom.base.errors import DivergenceError
from deepcustom.base.settings import TrainingParams
from deepcustom.training.augment import augmented
from deepcustom.training.checkpoint import Checkpoint
from deepcustom.training.compute import Compute, derive_seed, seed_everything
from deepcustom.training.epochs import History, load_epoch, save_epoch
from deepcustom.training.job import Job
from deepcustom.training.prediction import accuracy
from deepcustom.training.rows import Images, LabelledImages
from deepcustom.training.together import Together

Terms = Mapping[str, Tensor]


def fit(
    net: nn.Module,
    terms: Callable[..., Terms],
    tensors: Sequence[Images],
    params: TrainingParams,
    job: Job,
    *,
    before_epoch: Callable[[int], None] | None = None,
    after_epoch: Callable[[int], Mapping[str, float]] | None = None,
) -> History:
    """Train ``net`` in place.

    Every epoch seeds torch and numpy anew, so that an epoch that starts from a checkpoint draws the same
    numbers as in an uninterrupted training.

    Args:
        net: the network to train, already on the job's device; left in eval mode.
        terms: called with a batch of each of ``tensors``; returns term name → (n,) tensor, weighted and
            signed. The loop minimises the batch mean of the sum of all terms.
        tensors: training data, all with first dimension N, on the job's device; images may be unread. The
            first are the images that are augmented.
        params: learning rate, epochs, batch size and schedule. Where ``accumulate`` is above 1, ``terms``
            gets one part of a batch after the other, and the step goes against the gradient of the whole.
        job: its seed decides the order of the images, and what ``terms`` and ``net`` draw. Its checkpoint
            does not keep what ``terms`` remembers from batch to batch. Where processes train together, each
            gets its share of every batch, and draws numbers of its own.
        before_epoch: called with the number of the epoch that begins, from 1, or from the one after those
            in the checkpoint.
        after_epoch: called with the number of the epoch that ended, with ``net`` in eval mode; the values
            that it returns join the history, and the job reports them.

    Returns:
        Per epoch: the mean ``loss``, the mean of every term, and what ``after_epoch`` gave.

    Raises:
        DivergenceError: the loss of an epoch is not finite.
    """
    # Go on from the checkpoint, if it holds epochs.
    count, together = len(tensors[0]), job.compute.together
    descent = _Descent.of(net, params, math.ceil(count / params.batch_size), job.compute)
    order = torch.Generator().manual_seed(job.seed)
    done, history = descent.load(job.checkpoint)
    together.agree(job.seed, done)
    for _ in range(done):
        torch.randperm(count, generator=order)  # skip the orders that these epochs used
    for epoch in range(done + 1, params.epochs + 1):
        seed_everything(derive_seed(job.seed, "epoch", str(epoch), *together.name))
        if before_epoch:
            before_epoch(epoch)
        # Pass once over the images.
        net.train()
        sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=job.compute.device))
        seen = 0
        for batch in _batches(tensors, params.batch_size, order, together):
            seen += len(batch[0])
            batch = (augmented(batch[0], params.augment), *batch[1:])
            for number, part in enumerate(_parts(batch, params.accumulate or 1)):
                with job.compute.autocast():
                    found = terms(*part)
                loss = torch.stack([term.float() for term in found.values()]).sum(0).mean()
                descent.add(loss * (len(part[0]) / len(batch[0])), anew=not number)
                for name, value in {**found, "loss": loss.expand(len(part[0]))}.items():
                    sums[name] += value.detach().float().sum()
            descent.step()
        # Average over the images; stop if the loss is not finite.
        totals = together.total({name: float(total) for name, total in sums.items()})
        means = {name: total / (seen * together.count) for name, total in totals.items()}
        if not math.isfinite(means["loss"]):
            raise DivergenceError(
                f"training diverged: the loss is {means['loss']} in epoch {epoch}; "
                "lower learning_rate or the weights of the loss's terms"
            )
        # Measure and report the epoch, and save it in case of an interruption.
        together.average_buffers(net)
        net.eval()
        measured = {**means, **(after_epoch(epoch) if after_epoch else {})}
        for name, mean in measured.items():
            history.setdefault(name, []).append(mean)
        job.tell(measured)
        if epoch < params.epochs:
            descent.save(job.checkpoint, epoch, history)
    return history


@dataclass(frozen=True)
class _Descent:
    """Adam on a network, the schedule of its rate, the scaling that float16 needs, and who takes part."""

    net: nn.Module
    optimizer: torch.optim.Adam
    scheduler: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    together: Together

    @classmethod
    def of(cls, net: nn.Module, params: TrainingParams, steps: int, compute: Compute) -> _Descent:
        """A fresh one, for epochs of ``steps`` steps."""
        optimizer = torch.optim.Adam(
            net.parameters(),
            lr=params.learning_rate,
            betas=(params.momentum, 0.999),
            weight_decay=params.weight_decay,
            fused=True,
        )
        half = compute.precision is torch.float16
        scaler = torch.amp.GradScaler(compute.device.type, enabled=half)
        return cls(net, optimizer, _scheduler(optimizer, params, steps), scaler, compute.together)

    def add(self, loss: Tensor, *, anew: bool) -> None:
        """Add the gradient of ``loss`` to that of the next step; ``anew``: forget what was added before."""
        if anew:
            self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self) -> None:
        """Take one step against the gradients that were added, averaged over the processes."""
        self.together.average_gradients(self.net)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()

    def save(self, checkpoint: Checkpoint, epoch: int, history: History) -> None:
        state = {"scheduler": self.scheduler.state_dict(), "scaler": self.scaler.state_dict()}
        save_epoch(checkpoint, self.net, self.optimizer, epoch, history, state)

    def load(self, checkpoint: Checkpoint) -> tuple[int, History]:
        epoch, history, state = load_epoch(checkpoint, self.net, self.optimizer)
        if epoch:
            self.scheduler.load_state_dict(state["scheduler"])
            self.scaler.load_state_dict(state["scaler"])
            for group, rate in zip(
                self.optimizer.param_groups, self.scheduler.get_last_lr(), strict=True
            ):
                group["lr"] = rate
        return epoch, history


def _batches(
    tensors: Sequence[Images], size: int, order: torch.Generator, together: Together
) -> Iterator[tuple[Tensor, ...]]:
    """One epoch: this process's share of each batch, in a fresh order; the last batch may be shorter."""
    rows = torch.randperm(len(tensors[0]), generator=order).to(tensors[0].device)
    for start in range(0, len(rows), size):
        chosen = together.share(rows[start : start + size])
        yield tuple(tensor[chosen] for tensor in tensors)


def _parts(batch: tuple[Tensor, ...], count: int) -> list[tuple[Tensor, ...]]:
    """A batch in ``count`` parts of about the same size, or in fewer if it has fewer rows."""
    size = math.ceil(len(batch[0]) / count)
    return list(zip(*(torch.split(tensor, size) for tensor in batch), strict=True))


def _scheduler(
    optimizer: torch.optim.Optimizer, params: TrainingParams, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    if params.schedule == "one_cycle":
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            params.learning_rate,
            total_steps=max(steps * params.epochs, 2),
            cycle_momentum=False,
        )
    if params.decay_steps is not None and params.decay_rate is not None:  # a staircase
        return torch.optim.lr_scheduler.StepLR(optimizer, params.decay_steps, params.decay_rate)
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)


def watch_accuracy(net: nn.Module, val: LabelledImages) -> Callable[[int], Mapping[str, float]]:
    """A callback for ``fit``'s ``after_epoch``: ``val_accuracy``, 0 to 1, where ``val`` is not empty."""
    return lambda epoch: {"val_accuracy": accuracy(net, *val)} if len(val[0]) else {}


def train_classifier(
    net: nn.Module,
    train: LabelledImages,
    val: LabelledImages,
    params: TrainingParams,
    job: Job,
) -> History:
    """Train a classifier with cross entropy on ``train``, watching its accuracy on ``val``.

    Args:
        net: classifier, trained in place.
        train: images (N, C, H, W) in [0, 1] and labels (N,).
        val: likewise; may be empty.
        params: as in :func:`fit`.
        job: as in :func:`fit`.

    Returns:
        The history, with ``val_accuracy`` in 0..1 per epoch where ``val`` is not empty.
    """

    def cross_entropy(x: Tensor, y: Tensor) -> Terms:
        return {"cross_entropy": nn.functional.cross_entropy(net(x), y, reduction="none")}

    job.tell_resumed()
    return fit(net, cross_entropy, train, params, job, after_epoch=watch_accuracy(net, val))
