"""What travels with every long computation: its seed, where it runs, whom it tells, what it keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deepcustom.base.progress import Advance, silent
from deepcustom.training.checkpoint import NOWHERE, Checkpoint
from deepcustom.training.compute import Compute
from deepcustom.training.epochs import epochs_kept


@dataclass(frozen=True)
class Job:
    """One long computation.

    Attributes:
        seed: all that it draws derives from this.
        compute: device and precision.
        advance: called after every epoch with how it stands.
        checkpoint: keeps every epoch but the last when it is finished; the next run of the same work goes
            on after the one that it holds, to the same bytes.
    """

    seed: int
    compute: Compute
    advance: Advance = silent
    checkpoint: Checkpoint = NOWHERE

    def tell(self, values: Mapping[str, float]) -> None:
        """Say that an epoch is over, and what was measured."""
        self.advance("  ".join(f"{name} {value:.4f}" for name, value in values.items()))

    def tell_resumed(self) -> None:
        """Say how many epochs a training that is about to start finds finished, if it does."""
        epochs = epochs_kept(self.checkpoint)
        if epochs:
            self.advance(f"resumed after epoch {epochs}", steps=epochs, resumed=True)
