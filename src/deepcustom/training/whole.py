"""The whole training of one network as a single task: it needs no other, and others can run beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from deepcustom.base.progress import Advance
from deepcustom.training.compute import Compute
from deepcustom.training.engine import Task
from deepcustom.training.job import Job

R = TypeVar("R")
Dice = tuple[torch.Tensor, Any]
"""The state of torch's and of numpy's random numbers."""


def trained(
    learn: Callable[..., R], given: Sequence[Any], networks: Sequence[nn.Module], job: Job
) -> R:
    """Train here, or as one task of the job's engine, if it has one.

    As a task it begins anew if it is lost, since its checkpoint would be on another machine.

    Args:
        learn: a function of a module, or a method, called ``learn(*given, job=...)``.
        given: its arguments.
        networks: what it trains in place: parts of ``given``, or of what ``learn`` is bound to.
        job: what every training is given.

    Returns:
        What ``learn`` returned.

    Raises:
        DeepCustomError: the task was lost again and again.
    """
    if job.engine is None:
        return learn(*given, job=job)
    dice = torch.get_rng_state(), np.random.get_state()
    own = learn, tuple(given), tuple(networks), job.seed, dice
    task = Task("training", train_as_task, lambda: own)
    ((_, (found, states)),) = job.engine.do(None, [task], job.advance)
    for net, state in zip(networks, states, strict=True):
        net.load_state_dict({name: torch.tensor(array) for name, array in state.items()})
        net.eval()
    result: R = found
    return result


def train_as_task(
    shared: None,
    learn: Callable[..., R],
    given: Sequence[Any],
    networks: Sequence[nn.Module],
    seed: int,
    dice: Dice,
    *,
    compute: Compute,
    advance: Advance,
) -> tuple[R, list[Mapping[str, npt.NDArray[Any]]]]:
    """``learn``, with the random numbers of the driver; returns also the weights of ``networks``."""
    torch.set_rng_state(dice[0])
    np.random.set_state(dice[1])
    for net in networks:
        compute.place(net)
    found = learn(*given, job=Job(seed, compute, advance))
    return found, [
        {name: tensor.cpu().numpy() for name, tensor in net.state_dict().items()}
        for net in networks
    ]
