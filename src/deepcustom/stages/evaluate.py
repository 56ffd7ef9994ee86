"""The tables of robust accuracies, and whether they can be believed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deepcustom.base.files import replace_file
from deepcustom.base.hashes import dvc_md5
from deepcustom.base.settings import EvaluateParams
from deepcustom.evaluation.checks import Check
from deepcustom.evaluation.files import checks_json, rows_csv
from deepcustom.evaluation.own_network import load_own
from deepcustom.evaluation.results import PROTOCOLS, csv_text
from deepcustom.evaluation.transfer import Network
from deepcustom.pipeline import workspace
from deepcustom.pipeline.load import architectures, load_dataset
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.scoring import Scores, score
from deepcustom.pipeline.workspace import Workspace
from deepcustom.report.figures import accuracy_heatmap
from deepcustom.report.tables import print_tables


def run(ws: Workspace, dataset: str) -> None:
    """Score every network of ``dataset`` under every protocol, and check the evaluation itself."""
    with StageRun(ws, "evaluate", dataset) as stage:
        params = stage.params(EvaluateParams)

        found = score(stage, load_dataset(stage), params)

        places = {
            "results.csv": workspace.results(dataset),
            "checks.json": workspace.checks(dataset),
            "curves.csv": workspace.curves(dataset),
            "pairs.csv": workspace.pairs(dataset),
        }
        for name, content in _files(found).items():
            stage.write(places[name]).write_text(content)

        print_tables(found.results)
        _print_checks(found.checks)
        for protocol in PROTOCOLS:
            figure = accuracy_heatmap(found.results, dataset, protocol)
            stage.figure(f"accuracy-{protocol}", figure)
        stage.log({f"{r.protocol}/{r.network}/{r.attack}": r.accuracy for r in found.results})
        stage.time(found.seconds)


def aside(
    ws: Workspace,
    dataset: str,
    *,
    network: Path | None,
    architecture: str | None = None,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    n: int | None = None,
    out: Path | None = None,
) -> None:
    """Score a user's own network, or all networks on another number of images.

    Nothing of the pipeline is changed: tables, checks and curves go to a folder of their own.

    Args:
        ws: with prepared data, adversarial test sets and models.
        dataset: its name.
        network: the file; None: the networks of the data set.
        architecture: as in :func:`deepcustom.evaluation.own_network.load_own`.
        mean: likewise.
        std: likewise.
        n: images to attack; None: as in the settings.
        out: the folder; None: below ``reports/own``.

    Raises:
        InputError: the file, its class or a number cannot be used.
    """
    with StageRun(ws, "evaluate", dataset, writes=False) as stage:
        params = stage.params(EvaluateParams)
        if n is not None:
            params = params.model_copy(update={"n": n})
        spec = load_dataset(stage)
        own = None
        if network is not None:
            compute = stage.compute()
            default = architectures(dataset).network
            net = load_own(
                network,
                spec,
                compute,
                default=default,
                architecture=architecture,
                mean=mean,
                std=std,
            )
            name = network.stem if network.stem not in params.networks else f"{network.stem}-own"
            own = Network(name, dvc_md5(network), net)

        found = score(stage, spec, params, own=own)

        called = own.name if own else f"n-{params.n}"
        folder = out or ws.root / workspace.aside(dataset, called)
        for name, content in _files(found).items():
            replace_file(folder / name, content.encode())
        print_tables(found.results)
        _print_checks(found.checks)
        print(f"saved in {folder}")


def _files(found: Scores) -> dict[str, str]:
    """Name → content of what an evaluation leaves."""
    return {
        "results.csv": csv_text(found.results),
        "checks.json": checks_json(found.checks),
        "curves.csv": rows_csv(["network"], [((name,), point) for name, point in found.points]),
        "pairs.csv": rows_csv([], [((), pair) for pair in found.pairs]),
    }


def _print_checks(checks: Sequence[Check]) -> None:
    """How many checks there were, and those that are not ok."""
    counts = {v: sum(check.verdict == v for check in checks) for v in ("ok", "warn", "fail")}
    print("checks: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    for check in checks:
        if check.verdict != "ok":
            print(f"  {check.verdict}: {check.name}, {check.about}: {check.text}")
