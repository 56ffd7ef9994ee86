"""A lineage as a tree for the terminal, and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from rich.markup import escape
from rich.tree import Tree

from deepcustom.evaluation.results import percent
from deepcustom.pipeline.trace.lineage import ABSENT, BROKEN, OK, TAKEN, File, Lineage, Link, Run
from deepcustom.pipeline.trace.official import NAMES

_COLOURS = {OK: "green", ABSENT: "yellow", TAKEN: "yellow", BROKEN: "bold red"}


_INDENT = [("    ",) * 4] * 3
"""In the place of the lines that lead from parents to children."""


def tree(lineage: Lineage, mlflow_runs: Mapping[str, str], *, drawn: bool = True) -> Tree:
    """Draw a lineage, with what was asked for at the root and raw data at the leaves.

    Args:
        lineage: what to draw.
        mlflow_runs: run key → id of the MLflow run, for the runs that MLflow has.
        drawn: whether lines lead from parents to children, which are indented in any case.
    """
    root = Tree(_title(lineage))
    for link in lineage.links:
        _add_link(root, link)
    _add_file(root, lineage.file, mlflow_runs)
    if not drawn:
        root.TREE_GUIDES = _INDENT
    return root


def as_json(lineage: Lineage, mlflow_runs: Mapping[str, str]) -> str:
    """The same as JSON, with ``broken``: the links that do not hold."""
    broken = [{"where": where, **asdict(link)} for where, link in lineage.broken()]
    whole = {**asdict(lineage), "mlflow_runs": dict(mlflow_runs), "broken": broken}
    return json.dumps(_without_nan(whole), indent=2, allow_nan=False)


def _title(lineage: Lineage) -> str:
    number = lineage.number
    if number is None:
        return f"[bold]{escape(lineage.what)}[/]"
    interval = f"{100 * number.ci_low:.2f} to {100 * number.ci_high:.2f}"
    return (
        f"[bold]{escape(lineage.what)}[/]: accuracy {percent(number)} % "
        f"(95 % interval {interval}, {number.n:,} images)"
    )


def _add_file(parent: Tree, file: File, mlflow_runs: Mapping[str, str]) -> None:
    node = parent.add(f"[bold]{escape(file.path)}[/]  {file.md5}  {_verdict(file.links)}")
    for link in file.links:
        if link.verdict != OK:
            _add_link(node, link)
    if file.run is None:
        return
    if file.above:
        node.add(f"{escape(file.run.name)}, shown above")
        return
    _add_run(node, file.run, mlflow_runs)


def _add_run(parent: Tree, run: Run, mlflow_runs: Mapping[str, str]) -> None:
    dirty = {True: " with changes", False: "", None: ""}[run.git_dirty]
    commit = f"commit {run.git_commit[:12]}{dirty}" if run.git_commit else "no commit"
    node = parent.add(
        f"made by [bold]{escape(run.name)}[/]  {run.started}, {run.seconds:g} s, {commit}  "
        f"{_verdict(run.links)}"
    )
    there = mlflow_runs.get(run.run_key)
    node.add(f"MLflow run {there}" if there else f"no MLflow run here (run key {run.run_key})")
    params = ", ".join(f"{key}={value}" for key, value in _flat(run.params))
    node.add(escape(f"params: {params}"))
    for link in run.links:
        if link.verdict != OK or link.name in NAMES:
            _add_link(node, link)
    for source in run.inputs:
        _add_file(node, source, mlflow_runs)
    if run.skipped:
        node.add(f"and {run.skipped} more inputs, which this does not depend on")


def _add_link(node: Tree, link: Link) -> None:
    detail = f" ({escape(link.detail)})" if link.detail else ""
    node.add(f"[{_COLOURS[link.verdict]}]{link.verdict}[/]: {escape(link.name)}{detail}")


def _verdict(links: list[Link]) -> str:
    """The worst verdict of some links."""
    worst = max((link.verdict for link in links), key=[OK, ABSENT, TAKEN, BROKEN].index, default=OK)
    return f"[{_COLOURS[worst]}]{worst}[/]"


def _flat(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in params.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _without_nan(value: Any) -> Any:
    """Replace nan, which JSON lacks, by null. The accuracy on no images is nan."""
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
