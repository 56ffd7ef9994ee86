"""A training's state in its checkpoint: saved after each epoch, loaded when the training resumes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from deepcustom.training.checkpoint import Checkpoint

History = dict[str, list[float]]
"""Values per epoch, by the name of what was measured."""

EPOCH = "epoch"  # the name, in a checkpoint, of the last finished epoch


def save_epoch(
    checkpoint: Checkpoint,
    net: nn.Module,
    optimizer: torch.optim.Adam,
    epoch: int,
    history: History,
    state: Mapping[str, Any] | None = None,
) -> None:
    """Keep what the next epoch starts from: ``net``, Adam's moments, the history, and ``state``.

    Args:
        checkpoint: where to keep it.
        net: the network.
        optimizer: Adam on ``net.parameters()``.
        epoch: the one just finished, from 1.
        history: the history so far.
        state: anything else that JSON can hold.
    """
    tensors = {f"net.{name}": tensor for name, tensor in net.state_dict().items()}
    for name, parameter in net.named_parameters():
        for key, moment in optimizer.state.get(parameter, {}).items():
            tensors[f"adam.{key}.{name}"] = moment
    # Pairs keep the history's order: a mapping would come back sorted, and its curves would change colour.
    about = {"epoch": epoch, "history": list(history.items()), "state": dict(state or {})}
    checkpoint.save(EPOCH, tensors, about)


def load_epoch(
    checkpoint: Checkpoint, net: nn.Module, optimizer: torch.optim.Adam
) -> tuple[int, History, dict[str, Any]]:
    """Put what ``save_epoch`` kept into ``net`` and ``optimizer``, in place.

    Returns:
        The last finished epoch, 0 where none was kept; the history up to it; and the further state.
    """
    kept = checkpoint.load(EPOCH)
    if kept is None:
        return 0, {}, {}
    tensors, about = kept
    net.load_state_dict({name: tensors[f"net.{name}"] for name in net.state_dict()})
    moments = {
        index: {
            key: _laid_out_like(parameter, tensors[f"adam.{key}.{name}"])
            for key in ("step", "exp_avg", "exp_avg_sq")
            if f"adam.{key}.{name}" in tensors  # absent if there was never a gradient
        }
        for index, (name, parameter) in enumerate(net.named_parameters())
    }
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": moments, "param_groups": groups})
    return about["epoch"], dict(about["history"]), about["state"]


def _laid_out_like(parameter: Tensor, moment: Tensor) -> Tensor:
    """``moment`` in its parameter's memory format, as Adam makes it; the step count stays as it is."""
    if moment.shape != parameter.shape:
        return moment
    return torch.empty_like(parameter, requires_grad=False).copy_(moment)


def epochs_kept(checkpoint: Checkpoint) -> int:
    """The number of finished epochs that ``checkpoint`` holds."""
    kept = checkpoint.load(EPOCH)
    return int(kept[1]["epoch"]) if kept else 0
