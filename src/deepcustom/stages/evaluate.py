"""The tables of robust accuracies, and checks that say whether they can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from deepcustom.base.errors import InputError
from deepcustom.base.files import replace_file
from deepcustom.base.hashes import dvc_md5
from deepcustom.base.names import load_object
from deepcustom.base.rows import networks
from deepcustom.base.settings import EvaluateParams
from deepcustom.evaluation.checks import Check
from deepcustom.evaluation.files import checks_json, rows_csv
from deepcustom.evaluation.own_network import load_own, own_source
from deepcustom.evaluation.results import PROTOCOLS, HardenedWith, csv_text
from deepcustom.evaluation.scoring import Scores, score
from deepcustom.evaluation.transfer import Network
from deepcustom.evaluation.trial import tried_on
from deepcustom.pipeline import workspace
from deepcustom.pipeline.hardened import hardened_with
from deepcustom.pipeline.load import fresh_classifier, load_dataset
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.score_inputs import score_inputs, score_store
from deepcustom.pipeline.workspace import Workspace
from deepcustom.report.figures import accuracy_heatmap
from deepcustom.report.tables import print_tables


def run(ws: Workspace, subject: str) -> None:
    """Score every network of ``subject`` under every protocol, and check the evaluation itself."""
    with StageRun(ws, "evaluate", subject) as stage:
        params = stage.settings(EvaluateParams)

        inputs = score_inputs(stage, load_dataset(stage), params)

        found = score(inputs, score_store(stage, "evaluate"))

        places = {
            "results.csv": workspace.results(subject),
            "checks.json": workspace.checks(subject),
            "curves.csv": workspace.curves(subject),
            "pairs.csv": workspace.pairs(subject),
        }
        for name, content in _files(found).items():
            stage.write(places[name]).write_text(content)

        by = hardened_with(stage.tree, subject)
        _print(found, subject, by)
        for protocol in PROTOCOLS:
            figure = accuracy_heatmap(found.results, subject, protocol, by)
            stage.figure(f"accuracy-{protocol}", figure)
        stage.log({f"{r.protocol}/{r.network}/{r.attack}": r.accuracy for r in found.results})
        stage.time(found.seconds)


def run_own(
    ws: Workspace,
    subject: str,
    *,
    network: Path | None,
    architecture: str | None = None,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    n: int | None = None,
    out: Path | None = None,
) -> None:
    """Evaluate another network for the user, or the subject's networks on another number of images.

    This changes no output of the pipeline: tables, checks and curves go to a folder of their own.

    Args:
        ws: a project with prepared data, adversarial test sets and models.
        subject: the subject's name.
        network: the network's file; None evaluates the networks of the subject.
        architecture: as in :func:`deepcustom.evaluation.own_network.load_own`; None takes the subject's.
        mean: as in ``load_own``.
        std: as in ``load_own``.
        n: number of images to attack; None takes it from the settings.
        out: the folder to write; None takes one below ``reports/own``.

    Raises:
        InputError: the file, its class or a number cannot be used.
    """
    if architecture is not None:
        # Load it before the stage starts, since the stage refuses new code that DVC does not hash.
        # own_source hashes it instead.
        load_object(architecture, "network", InputError)
    with StageRun(ws, "evaluate", subject, writes=False) as stage:
        params = stage.settings(EvaluateParams)
        if n is not None:
            params = params.model_copy(update={"n": n})
        spec = load_dataset(stage)
        # The user's network, under a name that no network of the subject has.
        own = None
        if network is not None:
            net = load_own(
                network,
                spec,
                stage.compute(),
                architecture=architecture,
                default=lambda: fresh_classifier(stage),
                mean=mean,
                std=std,
            )
            taken = networks(stage.tree, subject)
            name = network.stem if network.stem not in taken else f"{network.stem}-own"
            source = own_source(architecture or stage.subject.network.name, mean, std)
            own = Network(name, dvc_md5(network), net, source)

        inputs = score_inputs(stage, spec, params, own=own)
        if own:
            inputs = replace(inputs, own=tried_on(inputs.bed, own))

        found = score(inputs, score_store(stage, "own"))

        # Save the tables away from the pipeline's.
        called = own.name if own else f"n-{params.n}"
        folder = out or ws.root / workspace.own_scores(subject, called)
        for name, content in _files(found).items():
            replace_file(folder / name, content.encode())
        _print(found, subject, hardened_with(stage.tree, subject))
        print(f"saved in {folder}")


def _files(found: Scores) -> dict[str, str]:
    """File name → content, for the files that an evaluation writes."""
    return {
        "results.csv": csv_text(found.results),
        "checks.json": checks_json(found.checks),
        "curves.csv": rows_csv(["network"], [((name,), point) for name, point in found.points]),
        "pairs.csv": rows_csv([], [((), pair) for pair in found.pairs]),
    }


def _print(found: Scores, subject: str, by: HardenedWith) -> None:
    print_tables(found.results, {subject: by})
    _print_checks(found.checks)


def _print_checks(checks: Sequence[Check]) -> None:
    """Print how many checks have each verdict, and every check that is not ok."""
    counts = {v: sum(check.verdict == v for check in checks) for v in ("ok", "warn", "fail")}
    print("checks: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    for check in checks:
        if check.verdict != "ok":
            print(f"  {check.verdict}: {check.name}, {check.about}: {check.text}")
