"""Where the numbers of a subject come from, from one walk, as the page's script reads it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deepcustom.base.errors import InputError, TrackingError
from deepcustom.evaluation.results import Result
from deepcustom.pipeline import provenance, workspace
from deepcustom.pipeline.code import is_code
from deepcustom.pipeline.dvc import read_lock
from deepcustom.pipeline.trace.lineage import File, Lineage, Link, Run
from deepcustom.pipeline.trace.walk import trace
from deepcustom.pipeline.workspace import Workspace
from deepcustom.tracking.record import RUN_FILE, RunRecord
from deepcustom.tracking.store import run_ids


def subject_trace(ws: Workspace, subject: str, results: list[Result]) -> dict[str, Any] | None:
    """Files, runs and verdicts behind the numbers of a subject; None where no record tells of its table.

    Everything stands once: files by their path, runs by their name.

    Args:
        ws: the project.
        subject: whose.
        results: its numbers.
    """
    table = workspace.results(subject)
    try:
        found = trace(ws, table, provenance.checkout(ws.root))
    except InputError:
        return None
    if found.file.path != table or found.file.run is None:
        return None
    walk = _Walk({}, {}, _codes(ws), _mlflow(ws.root, found))
    walk.file(found.file)
    return {
        "files": walk.files,
        "runs": walk.runs,
        "code": _code_files(ws.root, walk.runs),
        "maker": found.file.run.name,
        "numbers": {
            "/".join((one.network, one.protocol, one.attack)): [one.network_md5, one.set_md5]
            for one in results
        },
        "paths": {one["md5"]: path for path, one in walk.files.items()},
        "verified": _verified(found),
    }


def _verified(found: Lineage) -> str:
    """When the walk was made, and how its comparisons ended."""
    links = [link.verdict for _, link in found.all_links()]
    counts = ", ".join(f"{links.count(one)} {one}" for one in dict.fromkeys(sorted(links)))
    return (
        f"Verified when this page was made, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC: {counts}. Absent "
        "means that one side was not there to compare, such as a file that was not on that machine."
    )


class _Walk:
    """Collects a lineage into flat tables."""

    def __init__(
        self,
        files: dict[str, Any],
        runs: dict[str, Any],
        codes: Mapping[str, str | None],
        mlflow: Mapping[str, str],
    ) -> None:
        self.files, self.runs, self._codes, self._mlflow = files, runs, codes, mlflow

    def file(self, one: File) -> None:
        """Add a file, and the run that made it, if they are not there."""
        self.files.setdefault(
            one.path,
            {"md5": one.md5, "links": _links(one.links), "run": one.run.name if one.run else None},
        )
        if one.run and not one.above:
            self._run(one.run)

    def _run(self, run: Run) -> None:
        self.runs[run.name] = {
            "started": run.started,
            "seconds": run.seconds,
            "commit": run.git_commit,
            "dirty": run.git_dirty,
            "params": run.params,
            "code": self._codes.get(run.run_key),
            "key": run.run_key,
            "mlflow": self._mlflow.get(run.run_key),
            "links": _links(run.links),
            "inputs": [source.path for source in run.inputs],
            "skipped": run.skipped,
        }
        for source in run.inputs:
            self.file(source)


def _links(links: list[Link]) -> list[list[str]]:
    return [[link.name, link.verdict, link.detail] for link in links]


def _codes(ws: Workspace) -> dict[str, str | None]:
    """Run key → digest of the code that ran."""
    records = (RunRecord.read(file.parent) for file in ws.runs.rglob(RUN_FILE))
    return {record.run_key: record.code for record in records}


def _mlflow(root: Path, found: Lineage) -> dict[str, str]:
    """Run key → id of the MLflow run, for those that the store has; none where it cannot be reached."""
    try:
        return run_ids(root, found.run_keys())
    except TrackingError:
        return {}


def _code_files(root: Path, runs: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Stage → the code that ``dvc.lock`` names for it now, path → md5."""
    found: dict[str, dict[str, str]] = {}
    for name, entry in read_lock(root).items():
        stage = name.partition("@")[0]
        if name in runs and stage not in found:
            deps = entry.get("deps", [])
            found[stage] = {one["path"]: one["md5"] for one in deps if is_code(one["path"], stage)}
    return found
