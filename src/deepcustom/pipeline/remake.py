"""Makes the test sets and the quick protocols' numbers anew, in processes of their own.

First the data sets are prepared. Then each process makes an adversarial set, or attacks a network and keeps
what it finds in the subject's store of scores. Last, the networks are shown the sets, and the tables come
together; they take the attacks from the store.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from deepcustom.base.errors import InputError
from deepcustom.base.params import read_params
from deepcustom.base.progress import silent
from deepcustom.base.rows import networks
from deepcustom.base.settings import EvaluateParams
from deepcustom.evaluation.full import evaluate_whitebox
from deepcustom.evaluation.results import PROTOCOLS, Result
from deepcustom.evaluation.score_store import Pieces
from deepcustom.evaluation.scoring import score
from deepcustom.pipeline import workspace
from deepcustom.pipeline.apart import Share, Work, processes
from deepcustom.pipeline.load import load_dataset
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.score_inputs import load_networks, score_inputs, score_store, testbed
from deepcustom.pipeline.workspace import Workspace
from deepcustom.tracking.record import RunRecord
from deepcustom.tracking.store import LATER

PREPARE = "prepare"
RUN = "rescore"
"""How the store of scores calls this kind of run; a network's name follows."""
FEWEST = 3  # networks that one process shows the sets to: it reads them all

RunCommand = Callable[[Sequence[str]], None]
"""Runs a command of this program, given by its words; a function of a module."""


def remake(
    ws: Workspace, stages: Mapping[str, str], subjects: Sequence[str], run: RunCommand
) -> dict[str, list[Result]]:
    """Run ``stages``, and score the networks of ``subjects`` under the quick protocols.

    Args:
        ws: a project with trained networks.
        stages: name → command of the stages that prepare data and make test sets, as in ``dvc.lock``. Their
            records wait to be sent to MLflow.
        subjects: names of subjects.
        run: runs such a command.

    Returns:
        Subject → its results.

    Raises:
        DeepCustomError: a process failed. All others are stopped; what is finished stays.
    """
    tree = read_params(ws.params)
    share = Share.of(tree)
    made = {name: Work(name, run, (shlex.split(cmd)[1:],)) for name, cmd in stages.items()}
    first = [name for name in stages if name.split("@")[0] == PREPARE]
    with processes(share, {LATER: "1"}) as pool:
        pool.do("preparing data", [made.pop(name) for name in first])
        took = _seconds(ws, tree, subjects)
        works = [(took.get(name, math.inf), work) for name, work in made.items()]
        for subject in subjects:
            for network in networks(tree, subject):
                work = Work(f"{network} of {subject} is attacked", _attack, (ws, subject, network))
                works.append((took.get(f"{subject}/{network}", math.inf), work))
        works.sort(key=lambda pair: -pair[0])  # the longest first, so that all end together
        pool.do("making sets and attacking networks", [work for _, work in works])
        groups = [
            (subject, group)
            for subject in subjects
            for group in _groups(networks(tree, subject), share.processes)
        ]
        tables = [Work(", ".join(group), _table, (ws, name, group)) for name, group in groups]
        found = pool.do("showing the sets to the networks", tables)
    results: dict[str, list[Result]] = {subject: [] for subject in subjects}
    for (subject, _), part in zip(groups, found, strict=True):
        results[subject] += part
    order = list(PROTOCOLS)
    return {
        name: sorted(part, key=lambda r: order.index(r.protocol)) for name, part in results.items()
    }


def _attack(ws: Workspace, subject: str, name: str) -> None:
    """Attack one network, and leave what is found in the store."""
    with StageRun(ws, "evaluate", subject, writes=False) as stage:
        params = stage.settings(EvaluateParams)
        bed = testbed(stage, load_dataset(stage), params)
        (network,) = load_networks(stage, [name], bed.compute)
        # The store is not entered: at the end it would remove pieces that another process may need.
        store = score_store(stage, f"{RUN}-{name}")
        pieces = Pieces(bed.victim(network, silent), network.md5 + network.source, store)
        evaluate_whitebox(pieces.victim, params, pieces)


def _table(ws: Workspace, subject: str, names: Sequence[str]) -> list[Result]:
    """Score some networks of a subject, whose attacks are in the store."""
    with StageRun(ws, "evaluate", subject, writes=False) as stage:
        params = stage.settings(EvaluateParams)
        inputs = score_inputs(stage, load_dataset(stage), params, quick=True)
        chosen = [network for network in inputs.networks if network.name in names]
        store = score_store(stage, f"{RUN}-{names[0]}")
        return score(replace(inputs, networks=chosen), store).results


def _groups(names: Sequence[str], most: int) -> Iterator[list[str]]:
    """``names`` in at most ``most`` groups of neighbours."""
    count = max(min(most, len(names) // FEWEST), 1)
    size = math.ceil(len(names) / count)
    for start in range(0, len(names), size):
        yield list(names[start : start + size])


def _seconds(ws: Workspace, tree: Mapping[str, Any], subjects: Iterable[str]) -> dict[str, float]:
    """How long each stage, and the attacks on each ``SUBJECT/NETWORK``, took when they last ran."""
    found = {}
    for file in ws.runs.rglob("run.json"):
        try:
            record = RunRecord.read(file.parent)
        except InputError:
            continue
        found[record.name] = record.seconds
    for subject in subjects:
        try:
            timings = RunRecord.read(ws.root / workspace.record(subject, "evaluate")).timings
        except InputError:
            continue
        for name in networks(tree, subject):
            begin = f"{name}/whitebox/"
            took = [seconds for key, seconds in timings.items() if key.startswith(begin)]
            if took:
                found[f"{subject}/{name}"] = sum(took)
    return found
