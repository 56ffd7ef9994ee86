"""What every long computation is given: a seed, a device, a progress report and a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deepcustom.base.progress import Advance, silent
from deepcustom.training.checkpoint import NOWHERE, Checkpoint
from deepcustom.training.compute import Compute
from deepcustom.training.engine import Engine
from deepcustom.training.epochs import epochs_kept


@dataclass(frozen=True)
class Job:
    """One long computation.

    Attributes:
        seed: everything random in it derives from this.
        compute: device and precision.
        advance: called after every epoch with a note on how the work stands.
        checkpoint: saves every epoch but the last when that epoch ends. The next run of the same work goes
            on after the saved epoch, and gives the same bytes.
        engine: does independent pieces of the work elsewhere; None: they are done here, one after the other.
    """

    seed: int
    compute: Compute
    advance: Advance = silent
    checkpoint: Checkpoint = NOWHERE
    engine: Engine | None = None

    def tell(self, values: Mapping[str, float]) -> None:
        """Say that an epoch is over, and what was measured."""
        self.advance("  ".join(f"{name} {value:.4f}" for name, value in values.items()))

    def tell_resumed(self) -> None:
        """If the checkpoint holds epochs of a training that is about to start, report how many."""
        epochs = epochs_kept(self.checkpoint)
        if epochs:
            self.advance(f"resumed after epoch {epochs}", steps=epochs, resumed=True)
