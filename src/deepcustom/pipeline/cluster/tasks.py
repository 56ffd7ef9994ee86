"""Does tasks on the cluster that this process is connected to."""

from __future__ import annotations

import pickle
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from deepcustom.base.errors import DeepCustomError, InputError, one_line
from deepcustom.base.progress import Advance
from deepcustom.base.settings import ComputeParams
from deepcustom.pipeline.cluster import worker
from deepcustom.pipeline.cluster.seal import Seal
from deepcustom.pipeline.cluster.watch import ATTEMPTS, Standing, Watch
from deepcustom.training.engine import Task

TURN = 0.2  # seconds between two looks at what the tasks tell


def _put(what: Any) -> Any:
    """A reference to ``what`` in Ray's memory.

    Raises:
        InputError: it cannot travel.
    """
    import ray

    try:
        return ray.put(what)
    except (TypeError, pickle.PicklingError) as error:
        raise InputError(
            f"engine.kind is ray, but what a task needs cannot be sent: {one_line(error)}: "
            "set engine.kind to local"
        ) from error


def here() -> Any:
    """Places an actor on the driver's own node, so that none is lost with another."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


class Cluster:
    """Does tasks on a Ray cluster, as :class:`deepcustom.training.engine.Engine`.

    Attributes:
        nodes: node → its processor and device, of those that did tasks.
    """

    def __init__(self, code: bytes, params: ComputeParams, patience: float) -> None:
        """Use the cluster that this process is connected to; see ``connection.py``."""
        self._code, self._params, self._patience = code, params, patience
        self.nodes: dict[str, dict[str, str]] = {}

    def do(self, shared: Any, tasks: Sequence[Task], advance: Advance) -> Iterator[tuple[int, Any]]:
        """See :meth:`deepcustom.training.engine.Engine.do`."""
        import ray

        ray.cloudpickle.register_pickle_by_value(worker)  # type: ignore[no-untyped-call]
        kept = {"scheduling_strategy": here(), "max_restarts": -1}
        board: Any = ray.remote(num_cpus=0)(worker.Board).options(**kept).remote()
        code, common = ray.put(self._code), _put(shared)
        seal = Seal.of_code(self._code)
        about = ray.put((seal, self._params, board))
        first = {"packages": dict(seal.packages), "strangers": [str(Path.cwd()), sys.path[0]]}
        remote = ray.remote(worker.work).options(
            num_cpus=1, num_gpus=int(self._on_gpus()), max_retries=ATTEMPTS - 1
        )
        watch = Watch(len(tasks), advance, self._patience)
        waiting, given, refs = deque(range(len(tasks))), dict[int, Any](), dict[Any, int]()

        def send(place: int) -> None:
            refs[remote.remote(first, [code, about, common, given[place]])] = place

        def follows(place: int) -> bool:
            """Whether it is near enough to the first that has not ended: a caller may need their order."""
            return place < min(refs.values(), default=place) + 2 * window

        looked, window = time.monotonic(), self._window()
        while waiting or refs:
            # Send what is next. A task's arguments are read in its turn, and then lie in Ray's memory.
            while waiting and len(refs) < window and follows(waiting[0]):
                place = waiting.popleft()
                one = tasks[place]
                watch.names[place] = one.name
                given[place] = _put((place, one.run, one.given()))
                send(place)
            # See what has ended, and who is alive; begin again what fell silent.
            ray.wait(list(refs), num_returns=1, timeout=TURN)
            ended, _ = ray.wait(list(refs), num_returns=len(refs), timeout=0)
            if time.monotonic() > looked + TURN or len(ended) == len(refs):
                for place in self._look(board, watch, refs, ended):
                    watch.lose(place)
                    ref = next(one for one, at in refs.items() if at == place)
                    with suppress(Exception):
                        ray.cancel(ref, force=True)
                    del refs[ref]
                    send(place)
                looked, window = time.monotonic(), self._window()  # nodes may join
            # Hand over what has ended; the caller may take its time.
            for ref in ended:
                place = refs.pop(ref)
                found, facts, last = self._got(ref, watch.names[place])
                self.nodes[facts["node"]] = facts
                watch.end(place, Standing(*last), len(refs))
                del given[place]
                yield place, found

    def _look(
        self, board: Any, watch: Watch, refs: Mapping[Any, int], ended: Sequence[Any]
    ) -> list[int]:
        """Hear what tasks tell; returns those that fell silent."""
        import ray

        try:
            told = ray.get(board.news.remote(), timeout=10)
        except (ray.exceptions.GetTimeoutError, ray.exceptions.RayActorError):
            return []  # a busy machine, or the board begins again: nothing is known of anybody
        news = {place: Standing(*standing) for place, standing in told.items()}
        watch.look(news, len(refs) - len(ended))
        left = {place for ref, place in refs.items() if ref not in ended}
        watch.idle(self._has_room(), left)
        return [place for place in watch.silent() if place in left]

    def _window(self) -> int:
        """How many tasks to have sent at a time: four times as many as the cluster does at once."""
        import ray

        has = ray.cluster_resources()  # type: ignore[no-untyped-call]
        return max(4 * int(has.get("GPU" if self._on_gpus() else "CPU", 1)), 4)

    def _has_room(self) -> bool:
        """Whether the cluster could do one more task, so that none is waiting for its turn."""
        import ray

        free = ray.available_resources()  # type: ignore[no-untyped-call]
        needed = ["CPU", "GPU"] if self._on_gpus() else ["CPU"]
        return all(free.get(name, 0) >= 1 for name in needed)

    def _on_gpus(self) -> bool:
        import ray

        return self._params.device != "cpu" and bool(ray.cluster_resources().get("GPU", 0) >= 1)  # type: ignore[no-untyped-call]

    def _got(self, ref: Any, name: str) -> tuple[Any, dict[str, str], tuple[Any, ...]]:
        """What a task returned, where it ran, and how it stood at last.

        Raises:
            DeepCustomError: it raised it; or it was lost too often.
            InputError: a node refused it.
        """
        import ray

        try:
            found: Any = ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, DeepCustomError):
                raise error.cause from None
            raise
        except ray.exceptions.RayError as error:
            why = str(error).strip().partition("\n")[0]
            raise DeepCustomError(f"{name} was lost {ATTEMPTS} times: {why}") from error
        if isinstance(found, str):
            raise InputError(found)
        returned: tuple[Any, dict[str, str], tuple[Any, ...]] = found
        return returned

    def differing(self, own: Mapping[str, str]) -> list[str]:
        """The nodes of another kind of processor or device than ``own``: sums may round differently there."""
        kinds = ("processor", "capability", "device", "precision", "gpu")
        same = {key: own.get(key) for key in kinds}
        return sorted(
            node
            for node, facts in self.nodes.items()
            if any(facts.get(key) != value for key, value in same.items())
        )
