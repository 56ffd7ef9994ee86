"""The only training loop: minimise the mean of per-image terms with Adam."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deepcustom.base.errors import DivergenceError
from deepcustom.base.progress import Advance, silent
from deepcustom.base.settings import TrainingParams
from deepcustom.training.checkpoint import NOWHERE, Checkpoint
from deepcustom.training.compute import Compute, derive_seed, seed_everything
from deepcustom.training.epochs import History, load_epoch, save_epoch, tell_resumed
from deepcustom.training.prediction import accuracy

Terms = Mapping[str, Tensor]


def fit(
    net: nn.Module,
    terms: Callable[..., Terms],
    tensors: Sequence[Tensor],
    params: TrainingParams,
    *,
    seed: int,
    compute: Compute,
    after_epoch: Callable[[int, Mapping[str, float]], Mapping[str, float]] | None = None,
    checkpoint: Checkpoint = NOWHERE,
) -> History:
    """Train ``net`` in place.

    Every epoch seeds torch and numpy anew, so that one that starts from a checkpoint draws what it
    would have drawn.

    Args:
        net: what Adam adjusts, already on ``compute.device``; left in eval mode.
        terms: called with a batch of each of ``tensors``, returns term name → (n,) tensor, weighted and
            signed; the loop minimises the mean over the batch of their sum.
        tensors: training data, first dimension N alike, on ``compute.device``.
        params: learning rate, epochs, batch size and schedule.
        seed: of the order of the images, and of what ``terms`` and ``net`` draw.
        compute: device and precision of the forward pass.
        after_epoch: called with the epoch (from 1) and its means, with ``net`` in eval mode; what it
            returns joins the history.
        checkpoint: keeps every epoch but the last when it is finished; training goes on after the one
            that it holds, to the same bytes. What ``terms`` remembers from batch to batch is not kept.

    Returns:
        Per epoch: the mean ``loss``, the mean of every term, and what ``after_epoch`` gave.

    Raises:
        DivergenceError: the loss of an epoch is not finite.
    """
    count = len(tensors[0])
    descent = _Descent.of(net, params, math.ceil(count / params.batch_size), compute)
    order = torch.Generator().manual_seed(seed)
    done, history = descent.load(checkpoint)
    for _ in range(done):
        torch.randperm(count, generator=order)  # which these epochs used up
    for epoch in range(done + 1, params.epochs + 1):
        seed_everything(derive_seed(seed, "epoch", str(epoch)))
        net.train()
        sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=compute.device))
        for batch in _batches(tensors, params.batch_size, order):
            with compute.autocast():
                parts = terms(*batch)
            loss = torch.stack([part.float() for part in parts.values()]).sum(0).mean()
            descent.step(loss)
            for name, value in {**parts, "loss": loss.expand(len(batch[0]))}.items():
                sums[name] += value.detach().float().sum()
        means = {name: float(total) / count for name, total in sums.items()}
        if not math.isfinite(means["loss"]):
            raise DivergenceError(
                f"training diverged: the loss is {means['loss']} in epoch {epoch}; "
                "lower learning_rate or the weights of the loss's terms"
            )
        net.eval()
        for name, mean in {**means, **(after_epoch(epoch, means) if after_epoch else {})}.items():
            history.setdefault(name, []).append(mean)
        if epoch < params.epochs:
            descent.save(checkpoint, epoch, history)
    return history


@dataclass(frozen=True)
class _Descent:
    """Adam on a network, the schedule of its learning rate, and the scaling that float16 needs."""

    net: nn.Module
    optimizer: torch.optim.Adam
    scheduler: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler

    @classmethod
    def of(cls, net: nn.Module, params: TrainingParams, steps: int, compute: Compute) -> _Descent:
        """Fresh, for epochs of ``steps`` steps."""
        optimizer = torch.optim.Adam(
            net.parameters(),
            lr=params.learning_rate,
            betas=(params.momentum, 0.999),
            weight_decay=params.weight_decay,
            fused=True,
        )
        half = compute.precision is torch.float16
        scaler = torch.amp.GradScaler(compute.device.type, enabled=half)
        return cls(net, optimizer, _scheduler(optimizer, params, steps), scaler)

    def step(self, loss: Tensor) -> None:
        """Against the gradient of ``loss``."""
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
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
    tensors: Sequence[Tensor], size: int, order: torch.Generator
) -> Iterator[tuple[Tensor, ...]]:
    """One epoch: every row once, in a fresh order; the last batch may be shorter."""
    rows = torch.randperm(len(tensors[0]), generator=order).to(tensors[0].device)
    for start in range(0, len(rows), size):
        chosen = rows[start : start + size]
        yield tuple(tensor[chosen] for tensor in tensors)


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
    if params.schedule == "staircase":
        return torch.optim.lr_scheduler.StepLR(optimizer, params.decay_steps, params.decay_rate)
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)


def watch_accuracy(
    net: nn.Module, val: tuple[Tensor, Tensor], advance: Advance
) -> Callable[[int, Mapping[str, float]], Mapping[str, float]]:
    """For ``fit``'s ``after_epoch``: ``val_accuracy`` where ``val`` is not empty, said to ``advance``."""

    def watch(epoch: int, means: Mapping[str, float]) -> Mapping[str, float]:
        seen = {"val_accuracy": accuracy(net, *val)} if len(val[0]) else {}
        advance("  ".join(f"{name} {value:.4f}" for name, value in {**means, **seen}.items()))
        return seen

    return watch


def train_classifier(
    net: nn.Module,
    train: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
    params: TrainingParams,
    *,
    seed: int,
    compute: Compute,
    advance: Advance = silent,
    checkpoint: Checkpoint = NOWHERE,
) -> History:
    """Train a classifier with cross entropy on ``train``, watching its accuracy on ``val``.

    Args:
        net: classifier, trained in place.
        train: images (N, C, H, W) in [0, 1] and labels (N,).
        val: likewise; may be empty.
        params: as in :func:`fit`.
        seed: of the order of the images.
        compute: device and precision.
        advance: called after every epoch with how it stands.
        checkpoint: as in :func:`fit`.

    Returns:
        The history, with ``val_accuracy`` in 0..1 per epoch where ``val`` is not empty.
    """

    def cross_entropy(x: Tensor, y: Tensor) -> Terms:
        return {"cross_entropy": nn.functional.cross_entropy(net(x), y, reduction="none")}

    tell_resumed(checkpoint, advance)
    return fit(
        net,
        cross_entropy,
        train,
        params,
        seed=seed,
        compute=compute,
        after_epoch=watch_accuracy(net, val, advance),
        checkpoint=checkpoint,
    )
