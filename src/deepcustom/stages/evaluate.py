"""The tables of robust accuracies, and checks that say whether they can be trusted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.errors import InputError
from deepcustom.base.files import check_writable, replace_file
from deepcustom.base.hashes import dvc_md5
from deepcustom.base.names import load_object
from deepcustom.base.rows import networks
from deepcustom.base.settings import EvaluateParams
from deepcustom.data.datasets import DatasetSpec
from deepcustom.evaluation.own_network import OwnFile, load_own, own_source
from deepcustom.evaluation.results import PROTOCOLS, HardenedWith
from deepcustom.evaluation.scored_files import (
    THREAT,
    files_of,
    free_folder,
    headline_json,
    threat_json,
)
from deepcustom.evaluation.scoring import Scores, score
from deepcustom.evaluation.transfer import Network
from deepcustom.evaluation.trial import tried_first
from deepcustom.pipeline import workspace
from deepcustom.pipeline.cluster.connection import engine
from deepcustom.pipeline.hardened import hardened_with
from deepcustom.pipeline.load import fresh_classifier, load_dataset
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.score_inputs import score_inputs, score_store
from deepcustom.pipeline.workspace import Workspace
from deepcustom.report.figures import accuracy_heatmap

Show = Callable[[Scores, HardenedWith], None]
"""Shows what was found, and which attack each network was hardened with."""


def run(ws: Workspace, subject: str, show: Show = lambda found, by: None) -> None:
    """Score every network of ``subject`` under every protocol, and check the evaluation itself."""
    with StageRun(ws, "evaluate", subject) as stage:
        params = stage.settings(EvaluateParams)

        inputs = score_inputs(stage, load_dataset(stage), params)

        store = score_store(stage, "evaluate")
        with engine(stage, inputs.bed.compute) as elsewhere:
            found = score(replace(inputs, engine=elsewhere), store)

        places = {
            "results.csv": workspace.results(subject),
            "checks.json": workspace.checks(subject),
            "curves.csv": workspace.curves(subject),
            "pairs.csv": workspace.pairs(subject),
        }
        for name, content in files_of(found).items():
            stage.write(places[name]).write_text(content)
        headline = headline_json(found.results, subject, found.seconds)
        stage.write(workspace.headline(subject)).write_text(headline)

        by = hardened_with(stage.tree, subject)
        show(found, by)
        there = {result.protocol for result in found.results}
        for protocol in (name for name in PROTOCOLS if name in there):
            figure = accuracy_heatmap(found.results, subject, protocol, by)
            stage.figure(f"accuracy-{protocol}", figure)
        stage.log({f"{r.protocol}/{r.network}/{r.attack}": r.accuracy for r in found.results})
        stage.time(found.seconds)


def run_own(
    ws: Workspace,
    subject: str,
    *,
    brought: OwnFile | None,
    siblings: bool = False,
    n: int | None = None,
    out: Path | None = None,
    show: Show = lambda found, by: None,
) -> Path:
    """Evaluate another network for the user, or the subject's networks on another number of images.

    This changes no output of the pipeline: tables, checks and curves go to a folder of their own.

    Args:
        ws: a project with a prepared test split; where it says so below, with sets, models and train split.
        subject: the subject's name.
        brought: the network; None evaluates the networks of the subject, with all that they need.
        siblings: with ``brought``, whether to attack it with all that the subject has: adversarial test sets,
            images made against the subject's networks, and its DGNs.
        n: number of images to attack; None takes it from the settings.
        out: the folder to write; None takes one below ``reports/own`` that holds no other scores.
        show: shows what was found, before it is saved: the disk may be full.

    Returns:
        The folder.

    Raises:
        InputError: the file, its class, a number or ``out`` cannot be used.
    """
    if brought is not None and brought.architecture is not None:
        # Load it before the stage starts, since the stage refuses new code that DVC does not hash.
        # own_source hashes it instead.
        load_object(brought.architecture, "network", InputError)
    with StageRun(ws, "evaluate", subject, writes=False) as stage:
        params = stage.settings(EvaluateParams)
        if n is not None:
            params = params.model_copy(update={"n": n})
        spec = load_dataset(stage)
        own = None if brought is None else _own_network(stage, spec, brought)
        alone = own is not None and not siblings
        called = own.name if own else f"n-{params.n}"
        folder = out or ws.root / workspace.own_scores(subject, called)
        if own and not out:
            folder = free_folder(folder, subject, own.md5, ThreatModel.of(stage.subject.threat))
        check_writable(folder, "--out" if out else "the folder")
        inputs = tried_first(score_inputs(stage, spec, params, own=own, alone=alone))

        # Each network has a run of its own in the store, so that none removes what another has finished.
        found = score(inputs, score_store(stage, f"own-{called}"))

        # Save the tables away from the pipeline's, after they were shown.
        show(found, hardened_with(stage.tree, subject))
        threat = threat_json(ThreatModel.of(stage.subject.threat))
        for name, content in {**files_of(found), THREAT: threat}.items():
            replace_file(folder / name, content.encode())
        return folder


def _own_network(stage: StageRun, spec: DatasetSpec, brought: OwnFile) -> Network:
    """The user's network, under a name that no network of the subject has."""
    net = load_own(
        brought.path,
        spec,
        stage.compute(),
        architecture=brought.architecture,
        default=lambda: fresh_classifier(stage),
        mean=brought.mean,
        std=brought.std,
    )
    stem, taken = brought.path.stem, networks(stage.tree, stage.row.subject)
    name = stem
    while name in taken:
        name += "-own"
    class_name = brought.architecture or stage.subject.network.name
    source = own_source(class_name, brought.mean, brought.std)
    return Network(name, dvc_md5(brought.path), net, source)
