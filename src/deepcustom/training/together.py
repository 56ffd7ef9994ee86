"""Processes that train one network together: each has a copy, and learns from its share of every batch.

The first one runs its own command again, once for each further process, and Lightning Fabric brings them
together. They average their gradients before every step, so their copies stay alike (data-parallel training;
Li et al. 2020, arXiv:2006.15704).
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from deepcustom.base.errors import DeepCustomError
from deepcustom.base.helper import MEETING, NUMBER, is_helper

LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
PATIENCE = 10  # seconds in which a process should end, once another has
TURN = 0.5  # seconds between two looks at whether another process is there
GONE = (
    "a process that trained together with this one has ended: run the same command again, and it goes on "
    "after the last finished epoch"
)
INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
"""Variables that name the network that the processes talk over; this machine's own, if the user sets none."""


@dataclass(frozen=True)
class Together:
    """The processes that train together; by default there is one.

    Attributes:
        number: of this process, from 0. Number 0 alone writes and speaks.
        count: how many there are.
    """

    number: int = 0
    count: int = 1

    @property
    def name(self) -> tuple[str, ...]:
        """What tells its random numbers from those of number 0; nothing for number 0 itself."""
        return (str(self.number),) if self.number else ()

    def share(self, rows: Tensor) -> Tensor:
        """This process's share of the rows (n,) of a batch: of the same size for each process.

        Where n is no multiple of ``count``, the first rows are dealt out twice.
        """
        if self.count == 1:
            return rows
        size = -(-len(rows) // self.count)
        places = torch.arange(self.number * size, (self.number + 1) * size, device=rows.device)
        return rows[places % len(rows)]

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace each of ``tensors`` by its mean over the processes, in place."""
        if self.count == 1:
            return
        found = list(tensors)
        if not found:
            return
        flat = torch.cat([one.reshape(-1) for one in found])
        with _heard(), torch.no_grad():
            dist.all_reduce(flat)
            flat /= self.count
            sizes = [one.numel() for one in found]
            for one, part in zip(found, torch.split(flat, sizes), strict=True):
                one.copy_(part.view(one.shape))

    def average_gradients(self, net: nn.Module) -> None:
        """Average the gradients of ``net``; where a process has none for a parameter, that counts as zeros.

        A parameter for which no process has one is left without, as in a single process.
        """
        if self.count == 1:
            return
        learning = [one for one in net.parameters() if one.requires_grad]
        had = torch.tensor([one.grad is not None for one in learning], dtype=torch.float32)
        for one in learning:
            if one.grad is None:
                one.grad = torch.zeros_like(one)
        if learning:
            had = had.to(learning[0].device)
        self.average([had, *(one.grad for one in learning if one.grad is not None)])
        for one, share in zip(learning, had.tolist(), strict=True):
            if not share:
                one.grad = None

    def average_buffers(self, net: nn.Module) -> None:
        """Average what ``net`` keeps count of, such as the means and variances of batch norm."""
        self.average(one for one in net.buffers() if one.is_floating_point())

    def total(self, values: Mapping[str, float]) -> dict[str, float]:
        """Each value, summed over the processes; where one does not have it, that counts as 0."""
        if self.count == 1:
            return dict(values)
        heard: list[dict[str, float]] = [{} for _ in range(self.count)]
        with _heard():
            dist.all_gather_object(heard, dict(values))
        names = dict.fromkeys(name for one in heard for name in one)
        return {name: sum(one.get(name, 0.0) for one in heard) for name in names}

    def agree(self, seed: int, epoch: int) -> None:
        """Make sure that all train the same, which its ``seed`` tells, and go on after the same ``epoch``.

        Raises:
            DeepCustomError: they do not.
        """
        found = self.total({f"epoch {epoch} of the training with seed {seed}": 1.0})
        if len(found) > 1:
            raise DeepCustomError(
                f"processes that train together stand at different places: {'; '.join(found)}: "
                "remove .checkpoints and run it again"
            )


ALONE = Together()


def start(count: int, device: torch.device) -> tuple[Together, torch.device]:
    """Start ``count - 1`` further processes, or, in one of these, meet the others.

    Args:
        count: how many are to train together, this one among them.
        device: ``cpu`` or ``cuda``.

    Returns:
        The processes, and the device of this one.
    """
    if count == 1:
        return ALONE, device
    if is_helper():
        leave_with(os.getppid())
    elif MEETING not in os.environ:
        _prepare_meeting()
        _start_helpers(count)
    for name in INTERFACES:
        os.environ.setdefault(name, LOOPBACK)
    for name in ("lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import LightningEnvironment  # type: ignore[attr-defined]

    from deepcustom.training.meeting import InAFile

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fabric = Fabric(
            accelerator=device.type,
            devices=count,
            strategy=InAFile(cluster_environment=LightningEnvironment()),
        )
        fabric.launch()
    return Together(fabric.global_rank, fabric.world_size), fabric.device


def _prepare_meeting() -> None:
    """Say where the processes meet, and forget what another launcher may have said."""
    for name in (NUMBER, "NODE_RANK", "GROUP_RANK", "RANK", "WORLD_SIZE", "MASTER_PORT"):
        os.environ.pop(name, None)
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    folder = Path(tempfile.mkdtemp(prefix="deepcustom-together-"))
    os.environ[MEETING] = str(folder / "meeting")
    os.environ[NUMBER] = "0"
    atexit.register(shutil.rmtree, folder, ignore_errors=True)


def _start_helpers(count: int) -> None:
    """Start the other processes.

    Fabric could, but then it also ends this process without a word as soon as one of them ends.
    """
    import __main__

    spec = __main__.__spec__
    begin = [sys.argv[0]] if spec is None else ["-m", spec.name]
    words = [sys.executable, *begin, *sys.argv[1:]]
    helpers = [
        subprocess.Popen(words, env={**os.environ, NUMBER: str(number)})
        for number in range(1, count)
    ]
    atexit.register(_end, helpers)
    threading.Thread(target=_watch, args=(helpers,), daemon=True).start()


def _watch(helpers: list[subprocess.Popen[bytes]]) -> None:
    """End this process in one line if a helper fails while this process waits for it.

    The training itself notices first, as a rule, and says the same.
    """
    while all(one.poll() in (None, 0) for one in helpers):
        if all(one.poll() == 0 for one in helpers):
            return
        time.sleep(TURN)
    time.sleep(PATIENCE)
    print(f"error: {GONE}", file=sys.stderr, flush=True)
    os._exit(DeepCustomError.exit_code)


def leave_with(parent: int) -> None:
    """In a helper: end as soon as the process that started it, ``parent``, has ended."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(TURN)
        os._exit(DeepCustomError.exit_code)

    threading.Thread(target=watch, daemon=True).start()


def _end(helpers: list[subprocess.Popen[bytes]]) -> None:
    """End those that have not ended by themselves, as they do where there is something to write."""
    for one in helpers:
        with suppress(subprocess.TimeoutExpired):
            one.wait(PATIENCE)
        one.kill()
        one.wait()


@contextmanager
def _heard() -> Iterator[None]:
    """Meanwhile, an error means that another process is gone.

    Raises:
        DeepCustomError: it is.
    """
    try:
        yield
    except RuntimeError as error:
        raise DeepCustomError(GONE) from error
