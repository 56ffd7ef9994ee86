"""The only training loop: minimise the mean of per-image terms with Adam."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from deepcustom.compute import Compute
from deepcustom.errors import DivergenceError
from deepcustom.params import TrainingParams
from deepcustom.progress import Advance, silent

Terms = Mapping[str, Tensor]
History = dict[str, list[float]]


def fit(
    net: nn.Module,
    terms: Callable[..., Terms],
    tensors: Sequence[Tensor],
    params: TrainingParams,
    *,
    seed: int,
    compute: Compute,
    after_epoch: Callable[[int, Mapping[str, float]], Mapping[str, float]] | None = None,
) -> History:
    """Train ``net`` in place.

    Args:
        net: what Adam adjusts, already on ``compute.device``; left in eval mode.
        terms: called with a batch of each of ``tensors``, returns term name → (n,) tensor, weighted and
            signed; the loop minimises the mean over the batch of their sum.
        tensors: training data, first dimension N alike, on ``compute.device``.
        params: learning rate, epochs, batch size and schedule.
        seed: of the order of the images.
        compute: device and precision of the forward pass.
        after_epoch: called with the epoch (from 1) and its means, with ``net`` in eval mode; what it
            returns joins the history.

    Returns:
        Per epoch: the mean ``loss``, the mean of every term, and what ``after_epoch`` gave.

    Raises:
        DivergenceError: the loss of an epoch is not finite.
    """
    count = len(tensors[0])
    steps = math.ceil(count / params.batch_size)
    optimizer = torch.optim.Adam(
        net.parameters(),
        lr=params.learning_rate,
        betas=(params.momentum, 0.999),
        weight_decay=params.weight_decay,
        fused=True,
    )
    scheduler = _scheduler(optimizer, params, steps)
    scaler = torch.amp.GradScaler(compute.device.type, enabled=compute.precision is torch.float16)
    order = torch.Generator().manual_seed(seed)
    history: History = defaultdict(list)
    for epoch in range(1, params.epochs + 1):
        net.train()
        sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=compute.device))
        for batch in _batches(tensors, params.batch_size, order):
            with compute.autocast():
                parts = terms(*batch)
            loss = torch.stack([part.float() for part in parts.values()]).sum(0).mean()
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()
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
            history[name].append(mean)
    return dict(history)


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


@torch.no_grad()
def predict(net: nn.Module, x: Tensor, batch_size: int = 2000) -> Tensor:
    """Logits of ``x`` (N, C, H, W), float32, in eval mode; (N, classes)."""
    net.eval()
    parts = [net(x[start : start + batch_size]) for start in range(0, len(x), batch_size)]
    return torch.cat(parts) if parts else net(x)


def accuracy(net: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of ``x`` (N, C, H, W) that ``net`` gives label ``y`` (N,), in 0..1; nan where N is 0."""
    return float((predict(net, x).argmax(1) == y).float().mean()) if len(x) else float("nan")


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

    Returns:
        The history, with ``val_accuracy`` in 0..1 per epoch where ``val`` is not empty.
    """

    def cross_entropy(x: Tensor, y: Tensor) -> Terms:
        return {"cross_entropy": nn.functional.cross_entropy(net(x), y, reduction="none")}

    return fit(
        net,
        cross_entropy,
        train,
        params,
        seed=seed,
        compute=compute,
        after_epoch=watch_accuracy(net, val, advance),
    )
