"""The table of robust accuracies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from deepcustom import arrays, datasets
from deepcustom.compute import derive_seed
from deepcustom.errors import ThreatModelError
from deepcustom.evaluation import Network, TestSet, transfer, whitebox
from deepcustom.figures import accuracy_heatmap
from deepcustom.params import EvaluateParams
from deepcustom.pipeline import workspace
from deepcustom.pipeline.load import load_classifier, load_split, to_device
from deepcustom.pipeline.provenance import dvc_md5
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.workspace import Workspace
from deepcustom.progress import progress
from deepcustom.results import PROTOCOLS, UNCLIPPED, write_csv
from deepcustom.tables import print_tables

if TYPE_CHECKING:
    from deepcustom.compute import Compute
    from deepcustom.datasets import DatasetSpec
    from deepcustom.threat import ThreatModel


def run(ws: Workspace, dataset: str) -> None:
    """Score every network of ``dataset`` on every set, and under attack itself."""
    spec = datasets.spec(dataset)
    with StageRun(ws, "evaluate", dataset) as stage:
        params = stage.params(EvaluateParams)
        threat, compute = stage.threat(), stage.compute()

        networks = [_network(stage, spec, name, compute) for name in params.networks]
        clean = _clean_set(stage, spec, compute)

        by_network = {net.name: transfer(dataset, net, [clean]) for net in networks}
        for made in _attacked_sets(stage, spec, params.attacks, threat, compute):
            for net in networks:
                by_network[net.name] += transfer(dataset, net, [made])
        results = [result for row in by_network.values() for result in row]
        total = len(networks) * len(params.whitebox) * len(clean.x)
        with progress(f"evaluate@{dataset}", total) as advance:
            for net in networks:
                for attack, settings in params.whitebox.items():
                    scored = whitebox(
                        dataset,
                        net,
                        attack,
                        settings,
                        clean,
                        threat,
                        num_classes=spec.num_classes,
                        seed=derive_seed(stage.seed, net.name, attack),
                        compute=compute,
                        advance=advance,
                    )
                    results.append(scored)

        write_csv(results, stage.write(workspace.results(dataset)))
        print_tables(results)
        for protocol in PROTOCOLS:
            stage.figure(f"accuracy-{protocol}", accuracy_heatmap(results, dataset, protocol))
        stage.log({f"{r.protocol}/{r.network}/{r.attack}": r.accuracy for r in results})


def _network(stage: StageRun, spec: DatasetSpec, name: str, compute: Compute) -> Network:
    net = load_classifier(stage, spec, name, compute)
    return Network(name, dvc_md5(stage.ws.root / workspace.network(spec.name, name)), net)


def _clean_set(stage: StageRun, spec: DatasetSpec, compute: Compute) -> TestSet:
    """The clean test split."""
    x, y = to_device(load_split(stage, spec, "test"), compute)
    return TestSet("clean", dvc_md5(stage.ws.root / workspace.split(spec.name, "test")), x, y)


def _attacked_sets(
    stage: StageRun,
    spec: DatasetSpec,
    attacks: Sequence[str],
    threat: ThreatModel,
    compute: Compute,
) -> Iterator[TestSet]:
    """Each adversarial test set, read in its turn; one that leaves the ball is named so."""
    for attack in attacks:
        folder = stage.read(workspace.adversarial(spec.name, "test", attack))
        made = arrays.AdversarialSet.load(folder, spec)
        name = attack
        try:
            threat.verify(made.x_adv, made.x)
        except ThreatModelError as error:
            name += UNCLIPPED
            print(f"warning: scored as {name}, since {error}")
        x_adv, y = arrays.images(made.x_adv), arrays.labels(made.y)
        yield TestSet(name, dvc_md5(folder), x_adv.to(compute.device), y.to(compute.device))
