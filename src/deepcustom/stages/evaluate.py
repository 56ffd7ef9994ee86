"""The table of robust accuracies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from deepcustom import datasets
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
from deepcustom.report import print_tables
from deepcustom.results import PROTOCOLS, UNCLIPPED, write_csv

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

        sets = _test_sets(stage, spec, params.attacks, threat, compute)
        networks = [_network(stage, spec, name, compute) for name in params.networks]
        clean = sets[0]

        results = [result for net in networks for result in transfer(dataset, net, sets)]
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


def _test_sets(
    stage: StageRun,
    spec: DatasetSpec,
    attacks: Sequence[str],
    threat: ThreatModel,
    compute: Compute,
) -> list[TestSet]:
    """The clean test split, then each adversarial set; one that leaves the ball is named so."""
    x, y = to_device(load_split(stage, spec, "test"), compute)
    path = stage.ws.root / workspace.split(spec.name, "test")
    sets = [TestSet("clean", dvc_md5(path), x, y)]
    for attack in attacks:
        folder = stage.read(workspace.adversarial(spec.name, "test", attack))
        made = datasets.AdversarialSet.load(folder, spec)
        try:
            threat.verify(made.x_adv, made.x)
        except ThreatModelError as error:
            attack = attack + UNCLIPPED
            print(f"warning: scored as {attack}, since {error}")
        _, x_adv, labels = (tensor.to(compute.device) for tensor in made.tensors())
        sets.append(TestSet(attack, dvc_md5(folder), x_adv, labels))
    return sets
