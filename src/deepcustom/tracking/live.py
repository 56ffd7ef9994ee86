"""The run of a stage in MLflow while the stage is under way.

A thread begins the run once the stage has lasted a while, and sends new points of its curves and what the
machine is doing, many at a time. Nothing that goes wrong here reaches the stage. When the stage ends well,
its record completes the run (see :func:`deepcustom.tracking.runs.make_run`); otherwise the run ends as FAILED
or KILLED.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepcustom.base.errors import DeepCustomError
from deepcustom.base.experiment import home
from deepcustom.tracking.curves import Curves
from deepcustom.tracking.ended import Mark, end_dead_runs, end_run
from deepcustom.tracking.runs import (
    KEY_TAG,
    LIVE_TAG,
    LONGEST_TAG,
    METRICS_PER_BATCH,
    SYSTEM,
    about_the_stage,
    chunks,
    experiment_tags,
    fit,
    group,
    run_name,
    sender,
    shown,
)
from deepcustom.tracking.store import LATER, opened, tracking_uri
from deepcustom.tracking.underway import current

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

BEGIN_AFTER = 10.0  # seconds; a stage that is quicker makes its run when it ends
EVERY = 10.0  # seconds between two looks, if nothing else decides
SHARE = 0.02  # of the time may be spent on sending
LONGEST_PAUSE = 300.0  # seconds between two looks at most, however slow a server is
PATIENCE = 10.0  # seconds that the end of a stage waits for the thread
SECONDS_TAG = "deepcustom.sending_seconds"
INTERVAL = "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"
SYSTEM_METRICS = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"


@dataclass(frozen=True)
class Facts:
    """What is known of a stage before it has run.

    Attributes:
        stage: its name.
        item: the row's.
        dataset: the subject's name, as in the record.
        params: place in ``params.yaml`` → settings; shown only if the run gets no record.
        repro: which ``dvc repro`` started it, if any.
        checkpoint: where its training keeps what it has finished.
    """

    stage: str
    item: str
    dataset: str
    params: Mapping[str, Any]
    repro: str | None
    checkpoint: Path

    @property
    def name(self) -> str:
        """Of the run."""
        return f"{self.stage}@{self.item}"


@contextmanager
def followed(root: Path, facts: Facts) -> Iterator[None]:
    """Show the stage that runs inside in MLflow, unless runs are to be sent later."""
    if os.environ.get(LATER):
        yield
        return
    live = Live(root, facts)
    current.run = live
    live.start()
    try:
        yield
    except BaseException as error:
        live.fail(error)
        raise
    finally:
        current.run = None
        live.stop()


class Live:
    """One run under way.

    Attributes:
        spent: seconds that went into sending, without loading MLflow and making the run.
    """

    def __init__(self, root: Path, facts: Facts) -> None:
        """Begin nothing yet."""
        self._root, self._facts, self._begin = root, facts, time.time()
        self._curves = Curves(facts.checkpoint, self._begin)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="live run", daemon=True)
        self._run, self._mark = "", _NO_MARK
        self._waiting: list[Metric] = []
        self._machine: _Machine | None = None
        self.spent = 0.0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; one that still waits for a server is left behind, and does nothing more."""
        self._ended.set()
        self._thread.join(PATIENCE)
        self._mark.leave()

    def hand_over(self, run_key: str, otherwise: str) -> None:
        """Leave the run to the record with this key.

        Raises:
            TrackingError: MLflow could not be told; the message ends in ``otherwise``.
        """
        self._ended.set()
        self._thread.join(PATIENCE)
        if not self._run:
            return
        with suppress(OSError):
            self._mark.keyed(run_key)
        with opened(self._root, otherwise) as (client, _):
            client.set_tag(self._run, SECONDS_TAG, f"{self.spent:.3f}")
            client.set_tag(self._run, KEY_TAG, run_key)
        self._mark.remove()

    def fail(self, error: BaseException) -> None:
        """End the run, unless MLflow cannot be told now: then whoever finds its mark does."""
        self._ended.set()
        self._thread.join(PATIENCE)
        if not self._run:
            return
        killed = isinstance(error, KeyboardInterrupt | SystemExit)
        with suppress(Exception), opened(self._root, "") as (client, _):
            status = "KILLED" if killed else "FAILED"
            end_run(client, self._run, status, _line(error), self._params(), time.time())
            self._mark.remove()

    def _work(self) -> None:
        pause = BEGIN_AFTER
        while not self._ended.wait(pause):
            took = 0.0
            with suppress(Exception):  # a server that is away: next time, with what is new then
                took = self._look()
            self.spent += took
            every = float(os.environ.get(INTERVAL) or EVERY)
            pause = max(every, min(took / SHARE, LONGEST_PAUSE))

    def _look(self) -> float:
        """Send what is new; make the run first, if need be. Returns the seconds that sending took."""
        self._collect()
        begin = time.monotonic()
        with opened(self._root, "") as (client, experiment):
            if self._ended.is_set():
                return 0.0
            if not self._run:
                self._make(client, experiment)
                begin = time.monotonic()
            for some in chunks(self._waiting, METRICS_PER_BATCH):
                client.log_batch(self._run, metrics=some)
        self._waiting = []
        self._mark.touch()
        return time.monotonic() - begin

    def _collect(self) -> None:
        from mlflow.entities import Metric

        now = round(time.time() * 1000)
        self._waiting += [
            Metric(fit(name), value, now, step) for name, step, value in self._curves.new()
        ]
        if os.environ.get(SYSTEM_METRICS, "true").lower() not in ("false", "0"):
            self._machine = self._machine or _Machine()
            self._waiting += [
                Metric(f"{SYSTEM}{name}", value, now, self._machine.looks)
                for name, value in self._machine.look().items()
            ]

    def _make(self, client: MlflowClient, experiment: str) -> None:
        facts, uri = self._facts, tracking_uri(self._root)
        end_dead_runs(client, home(self._root), uri)
        exp = experiment_tags(
            os.environ.get("DVC_EXP_NAME"), os.environ.get("DVC_EXP_BASELINE_REV")
        )
        tags = {
            LIVE_TAG: "true",
            **about_the_stage(facts.stage, facts.item, facts.dataset),
            "dvc.stage": os.environ.get("DVC_STAGE"),
            **exp,
            **sender(),
        }
        begin = round(self._begin * 1000)
        given = {name: value for name, value in tags.items() if value}
        made = client.create_run(experiment, begin, given, run_name(facts.name, exp.get("dvc.exp")))
        self._run = str(made.info.run_id)
        self._mark = Mark(home(self._root), uri, self._run, self._params())
        if facts.repro:
            with suppress(Exception):  # the record puts it there, too
                group(client, experiment, facts.repro, self._run, (begin, begin), exp)

    def _params(self) -> dict[str, str]:
        return shown(self._facts.params)


class _NoMark:
    """In place of a mark, as long as there is no run."""

    def touch(self) -> None: ...

    def keyed(self, run_key: str) -> None: ...

    def remove(self) -> None: ...

    def leave(self) -> None: ...


_NO_MARK: Any = _NoMark()


class _Machine:
    """What the machine is doing, under MLflow's own names.

    Attributes:
        looks: how often it was looked at.
    """

    def __init__(self) -> None:
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
        from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

        self.looks = 0
        kinds: list[Any] = [CPUMonitor, DiskMonitor, NetworkMonitor, GPUMonitor]
        self._monitors: list[Any] = []
        for kind in kinds:
            with suppress(Exception):  # there is no GPU, or nothing that could look at it
                self._monitors.append(kind())
        self.look()  # the first knows no time before it
        self.looks = 0

    def look(self) -> dict[str, float]:
        """Name → value, since the last look."""
        found: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            found |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        self.looks += 1
        return found


def _line(error: BaseException) -> str:
    """Why a stage ended; the text of a foreign error may name what is nobody's business."""
    if isinstance(error, DeepCustomError):
        return str(error)[:LONGEST_TAG]
    return "interrupted" if isinstance(error, KeyboardInterrupt) else type(error).__name__
