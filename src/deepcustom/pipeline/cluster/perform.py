"""Does one task, in a process of Ray's, where the code has been unpacked."""

from __future__ import annotations

import secrets
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

from deepcustom.base.errors import DeepCustomError, UserError
from deepcustom.base.progress import ticking
from deepcustom.base.settings import ComputeParams
from deepcustom.pipeline import provenance
from deepcustom.pipeline.cluster.seal import Seal, code_files
from deepcustom.pipeline.cluster.watch import Standing

BEAT = 2.0  # seconds between two signs of life of a task


@cache
def _seal_here(folder: Path) -> Seal:
    """The code that this process was sent, in ``folder``; once, since it does not change."""
    return Seal.of_files({path: path.relative_to(folder).as_posix() for path in code_files(folder)})


class Attempt:
    """Tells the board how one attempt at a task stands.

    Attributes:
        standing: that.
    """

    def __init__(self, board: Any, place: int, node: str) -> None:
        """Tell that the task ``place`` begins on ``node``."""
        self._board, self._place = board, place
        self._lock = Lock()  # else an older standing might be told after a newer one
        self.standing = Standing(secrets.token_hex(8), node)
        self.tell()

    def tell(self) -> None:
        """Tell how it stands, which is a sign of life too."""
        with self._lock:
            self._board.tell.remote(self._place, tuple(self.standing))

    def advance(self, note: str = "", steps: int = 1, *, resumed: bool = False) -> None:
        """As :class:`deepcustom.base.progress.Advance`."""
        with self._lock:
            one = self.standing
            self.standing = one._replace(steps=one.steps + steps, note=note or one.note)
            self._board.tell.remote(self._place, tuple(self.standing))


def perform(
    shared: tuple[Seal, ComputeParams, Any], common: Any, own: tuple[int, Any, tuple[Any, ...]]
) -> tuple[Any, dict[str, str], tuple[Any, ...]] | str:
    """Do one task, where its code has been unpacked.

    Args:
        shared: what must be the same here as in the driver; how to compute; and the board.
        common: what all tasks are given.
        own: the task's place, its function, and its own arguments.

    Returns:
        What the task returned; where it ran, on what processor and device; and how it stood at last. Or, in
        one line, why it was not done: the code or the versions of packages are others.

    Raises:
        DeepCustomError: the task raised it.
    """
    import ray

    from deepcustom.training.compute import Compute

    (seal, params, board), (place, run, given) = shared, own
    node = ray.get_runtime_context().get_node_id()[:8]
    if differs := seal.differs(_seal_here(Path(__file__).parents[3])):
        return f"node {node} has {differs}: its results would not be those of here"
    attempt = Attempt(board, place, node)
    compute = Compute.of(params)
    try:
        with ticking(attempt.tell, BEAT):
            found = run(common, *given, compute=compute, advance=attempt.advance)
    except DeepCustomError as error:
        kind = UserError if error.exit_code == UserError.exit_code else DeepCustomError
        raise kind(str(error)) from None
    facts = {"node": node, "processor": provenance.processor(), **compute.describe()}
    return found, facts, tuple(attempt.standing)
