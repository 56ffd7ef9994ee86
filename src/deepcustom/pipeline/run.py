"""One run of a stage: it declares inputs and outputs, writes all outputs or none, and leaves a record."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from deepcustom.base import params as settings
from deepcustom.base.account import account_json, outputs_told
from deepcustom.base.errors import InputError, TrackingError
from deepcustom.base.files import beside, naming, partial_of, refused, remove, settle
from deepcustom.base.hashes import dvc_md5
from deepcustom.base.helper import is_helper
from deepcustom.base.params import Params
from deepcustom.base.rows import SUBJECTS, TRAINING, Row, row
from deepcustom.base.settings import ComputeParams, SubjectParams
from deepcustom.pipeline import provenance, workspace
from deepcustom.pipeline.histories import history_csv
from deepcustom.pipeline.loaded import RunningCode
from deepcustom.pipeline.repro import repro_key
from deepcustom.pipeline.workspace import Workspace
from deepcustom.tracking.record import RunRecord
from deepcustom.tracking.store import send

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from deepcustom.base.progress import Advance
    from deepcustom.training.checkpoint import Checkpoint
    from deepcustom.training.compute import Compute
    from deepcustom.training.engine import Engine
    from deepcustom.training.job import Job

P = TypeVar("P", bound=Params)


class StageRun:
    """A context manager: its outputs appear when it ends without an error, and not at all otherwise.

    Attributes:
        ws: the project.
        tree: its whole ``params.yaml``.
        row: the row that runs.
        parts: the row's names after the subject's, such as bank and split.
        seed: of this stage and row alone, derived from ``seed`` in ``params.yaml``.
    """

    def __init__(self, ws: Workspace, stage: str, *names: str, writes: bool = True) -> None:
        """Begin a run of ``stage`` for the row with these names; ``writes=False`` leaves no trace.

        Raises:
            ParamsError: ``params.yaml`` has no such row.
        """
        self.ws, self.stage, self.parts = ws, stage, names[1:]
        self._writes = writes and not is_helper()
        self.tree = settings.read_params(ws.params)
        self.row = row(self.tree, stage, *names)
        self._used: dict[str, Any] = {}
        self._inputs: list[str] = []
        self._pending: dict[str, Path] = {}
        self._metrics: dict[str, float] = {}
        self._history: dict[str, list[float]] = {}
        self._figures: dict[str, Figure] = {}
        self._timings: dict[str, float] = {}
        self._checkpoint: Checkpoint | None = None
        self._machine = provenance.machine()
        self._repro = repro_key()
        self._start = time.monotonic()
        self._started = datetime.now(UTC)

    def __enter__(self) -> StageRun:
        self._code = RunningCode(self.ws.root, self.stage, self.row.files)
        from deepcustom.training.compute import derive_seed, seed_everything

        base = settings.seed(self.tree)
        self._used["seed"] = base
        self.seed = derive_seed(base, self.stage, self.row.name)
        seed_everything(self.seed)
        self._git = self._commit()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None and self._writes:
                self._finish()
            elif isinstance(error, OSError):
                self._tell(error)
        finally:
            for partial in self._pending.values():
                remove(partial)

    def _commit(self) -> tuple[str | None, bool | None]:
        """The commit, and whether code or settings differ from it; says why, if git cannot be read."""
        project = provenance.checkout(self.ws.root)
        state = provenance.git_state(self.ws.root)
        if self._writes and None in state and (why := provenance.trouble(project)):
            lacks = "its commit" if state[0] is None else "whether its code was changed"
            print(f"warning: the record of this run will not say {lacks}: {why}", file=sys.stderr)
        return state

    def _tell(self, error: OSError) -> None:
        """Name the output that the system refused to write; the latest is the one being written.

        Raises:
            OutputError: it was one.
        """
        for path, partial in reversed(self._pending.items()):
            if found := refused(Path(path), partial, error):
                raise found from error

    @property
    def name(self) -> str:
        """What DVC calls it, such as ``train_dgn@mnist-lrp``."""
        return f"{self.stage}@{self.row.name}"

    def job(self, compute: Compute, advance: Advance, engine: Engine | None = None) -> Job:
        """Seed, device, progress, checkpoint and engine for the stage's training."""
        from deepcustom.training.job import Job

        return Job(self.seed, compute, advance, self.checkpoint(), engine)

    def settings(self, model: type[P]) -> P:
        """The row's settings, checked, and kept for the record."""
        return self.settings_of(self.row, model)

    def settings_of(self, other: Row, model: type[P]) -> P:
        """The settings of any row, checked, and kept for the record."""
        value = settings.validate(model, other.settings, other.place)
        self._used[other.place] = {**other.about, **value.model_dump(mode="json")}
        return value

    @property
    def subject(self) -> SubjectParams:
        """The row's subject: data set, network and threat model."""
        return self._section(SubjectParams, SUBJECTS, self.row.subject)

    def compute(self, *, together: bool = False) -> Compute:
        """Device, precision and threads; what ``auto`` became goes into the record.

        Args:
            together: whether the processes of ``compute.devices`` train together from here on.
        """
        from deepcustom.training.compute import Compute

        chosen = Compute.of(self._section(ComputeParams, "compute"), together=together)
        self._machine |= chosen.describe()
        return chosen

    def _section(self, model: type[P], *keys: str) -> P:
        value = settings.validate(model, settings.section(self.tree, *keys), ".".join(keys))
        self._used[".".join(keys)] = value.model_dump(mode="json")
        return value

    def read(self, path: str) -> Path:
        """Declare an input.

        Raises:
            InputError: it is missing, and the message says which stage makes it; or it leads out of the
                project; or it is a link to nothing, as after a move of the project.
        """
        full = self.ws.path(path)
        for one in (full, *(full.iterdir() if full.is_dir() else ())):
            if one.is_symlink() and not one.exists():
                raise InputError(
                    f"{one.relative_to(self.ws.root)} is a link to {one.readlink()}, which is not there: "
                    "`dvc checkout` makes links to DVC's cache anew"
                )
        if not full.exists():
            maker = workspace.producer(path)
            fetch = (
                "`dvc pull` fetches it where it is published, "
                if path.startswith("models/")
                else ""
            )
            hint = f": {fetch}`dvc repro {maker}` makes it" if maker else ""
            raise InputError(f"{path} is missing{hint}")
        self._inputs += [*self._vouched(path), path]
        return full

    def _vouched(self, path: str) -> list[str]:
        """The file of the run that made ``path``, which says its hash; none for what DVC itself watches.

        Raises:
            InputError: no run made it, or it is not what its run made.
        """
        candidates = workspace.metrics_of(path)
        if not candidates or self.stage not in workspace.READ_ALL:
            return []
        told = {place: outputs_told(self.ws.root / place).get(path) for place in candidates}
        again = f"`dvc repro -f -s {workspace.producer(path)}` makes it anew"
        if path.startswith("models/"):
            again = f"`dvc checkout {path}` brings back what was, {again}"
        if not any(told.values()):
            raise InputError(
                f"{path}: no file of {' or '.join(candidates)} tells its hash: {again}"
            )
        found = dvc_md5(self.ws.root / path)
        vouching = [place for place, md5 in told.items() if md5 == found]
        if not vouching:
            place, md5 = next((place, md5) for place, md5 in told.items() if md5)
            raise InputError(
                f"{path} is not what its run made: its hash is {found}, and {place} says {md5}: {again}"
            )
        return vouching[:1]

    def write(self, path: str) -> Path:
        """Declare an output. A process that only helps to train ends here.

        Returns:
            Where to write it: a place beside ``path``, renamed to ``path`` when the stage ends well.

        Raises:
            InputError: it leads out of the project.
        """
        if is_helper():
            raise SystemExit(0)
        partial = partial_of(self.ws.path(path))
        self._pending[path] = partial
        return partial

    def checkpoint(self) -> Checkpoint:
        """Where the stage's training keeps what it has finished, until the stage ends well.

        Call this after reading all inputs and settings. A later run resumes from the checkpoint only if
        seed, settings, inputs, code, versions of packages, and machine are the same.

        Raises:
            InputError: the stage has loaded code that DVC does not hash for it.
        """
        from deepcustom.training.checkpoint import NOWHERE, Checkpoint

        if not self._writes and not is_helper():
            return NOWHERE
        basis = {
            "seed": self.seed,
            "params": self._used,
            "inputs": self._hashes(self._inputs),
            **self.basis(),
        }
        text = json.dumps(basis, sort_keys=True)
        fingerprint = hashlib.sha256(text.encode()).hexdigest()
        folder = self.ws.checkpoint(self.stage, self.row.name)
        self._checkpoint = Checkpoint(folder, fingerprint, writes=self._writes)
        return self._checkpoint

    def basis(self) -> dict[str, Any]:
        """What decides numbers besides seed, settings and inputs: code, versions of packages, and machine.

        Call this after :meth:`compute`, since the chosen device and precision count as machine.

        Raises:
            InputError: the stage has loaded code that DVC does not hash for it.
        """
        self._code.check()
        # What tasks elsewhere made is not taken for what this process makes, nor the other way round.
        elsewhere = self.tree.get("engine", {}).get("kind", "local") != "local"
        return {
            **({"tasks": "elsewhere"} if elsewhere else {}),
            "code": self._code.digest,
            "machine": self._machine,
            "processor": provenance.processor(),
            "packages": provenance.packages(),
        }

    def log(
        self,
        metrics: Mapping[str, float] | None = None,
        history: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        """Record final metrics and curves by epoch; leave out nan, which means that nothing was measured."""
        final = (metrics or {}).items()
        self._metrics |= {name: float(value) for name, value in final if not math.isnan(value)}
        self._history |= {
            name: [float(v) for v in curve] for name, curve in (history or {}).items()
        }

    def machine(self, facts: Mapping[str, str]) -> dict[str, str]:
        """Record further facts of the machines that the stage ran on; returns all that are known of them."""
        self._machine |= facts
        return {"processor": provenance.processor(), **self._machine}

    def time(self, timings: Mapping[str, float]) -> None:
        """Record wall-clock seconds. Only the run's record holds them, and no file that DVC tracks."""
        self._timings |= {name: float(value) for name, value in timings.items()}

    def figure(self, name: str, figure: Figure) -> None:
        """Record a picture, for the tracking server."""
        self._figures[f"{name}.png"] = figure

    def _finish(self) -> None:
        self._code.check()
        item = (self.row.subject, self.stage, *self.parts)
        curves = history_csv(self._history)
        if self.stage in TRAINING:
            path = workspace.training(*item)
            with naming(Path(path), place := self.write(path)):
                place.write_text(curves)
        # Hash before renaming: afterwards another run of this stage may put its own outputs there.
        outputs = {path: dvc_md5(place) for path, place in self._pending.items()}
        made = {path: md5 for path, md5 in outputs.items() if path.startswith(("data/", "models/"))}
        path = workspace.metrics(*item)
        with naming(Path(path), place := self.write(path)):
            place.write_text(account_json(self._metrics, made))
        outputs[path] = dvc_md5(place)
        for path, partial in self._pending.items():
            with naming(Path(path), partial):
                settle(partial, self.ws.root / path)
        folder = self.ws.root / workspace.record(*item)
        with beside(folder) as record:
            self._record(outputs).write(record)
            self._save_figures(record)
        if self._checkpoint:
            self._checkpoint.clear()
        try:
            send(folder, self.ws.root)
        except TrackingError as error:
            print(f"warning: {error}", file=sys.stderr)

    def _save_figures(self, folder: Path) -> None:
        if self._figures:
            from deepcustom.report.figures import save_figure
        for name, figure in self._figures.items():
            save_figure(figure, folder / name)

    def _record(self, outputs: dict[str, str]) -> RunRecord:
        commit, dirty = self._git
        return RunRecord(
            schema_version=1,
            run_key=uuid.uuid4().hex,
            stage=self.stage,
            item=self.row.name,
            dataset=self.row.subject,
            dvc_stage=os.environ.get("DVC_STAGE"),
            dvc_exp=os.environ.get("DVC_EXP_NAME"),
            dvc_exp_baseline=os.environ.get("DVC_EXP_BASELINE_REV"),
            repro=self._repro,
            params=self._used,
            metrics=self._metrics,
            history=self._history,
            inputs=self._hashes(self._inputs),
            outputs=outputs,
            git_commit=commit,
            git_dirty=dirty,
            code=self._code.digest,
            started=self._started,
            seconds=time.monotonic() - self._start,
            timings=self._timings,
            machine=self._machine,
            packages=provenance.packages(),
            figures=list(self._figures),
        )

    def _hashes(self, paths: Iterable[str]) -> dict[str, str]:
        return {path: dvc_md5(self.ws.root / path) for path in paths}
