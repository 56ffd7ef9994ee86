"""The table of robust accuracies."""

from __future__ import annotations

from deepcustom import datasets
from deepcustom.evaluation import Network, TestSet, transfer, whitebox
from deepcustom.params import EvaluateParams
from deepcustom.pipeline import workspace
from deepcustom.pipeline.load import load_classifier, load_split, to_device
from deepcustom.pipeline.provenance import dvc_md5
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.workspace import Workspace
from deepcustom.progress import progress
from deepcustom.report import print_tables
from deepcustom.results import write_csv


def run(ws: Workspace, dataset: str) -> None:
    """Score every network of ``dataset`` on every set, and under attack itself."""
    spec = datasets.spec(dataset)
    with StageRun(ws, "evaluate", dataset) as stage:
        params = stage.params(EvaluateParams)
        threat, compute = stage.threat(), stage.compute()

        x, y = to_device(load_split(stage, spec, "test"), compute)
        clean = TestSet("clean", dvc_md5(ws.root / workspace.split(dataset, "test")), x, y)
        sets = [clean]
        for attack in params.attacks:
            folder = stage.read(workspace.adversarial(dataset, "test", attack))
            made = datasets.AdversarialSet.load(folder, spec)
            _, x_adv, labels = (tensor.to(compute.device) for tensor in made.tensors())
            sets.append(TestSet(attack, dvc_md5(folder), x_adv, labels))
        networks = [
            Network(
                name,
                dvc_md5(ws.root / workspace.network(dataset, name)),
                load_classifier(stage, spec, name, compute),
            )
            for name in params.networks
        ]

        results = [result for net in networks for result in transfer(dataset, net, sets)]
        total = len(networks) * len(params.whitebox) * len(x)
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
                        compute=compute,
                        advance=advance,
                    )
                    results.append(scored)

        write_csv(results, stage.write(workspace.results(dataset)))
        print_tables(results)
        stage.log({f"{r.protocol}/{r.network}/{r.attack}": r.accuracy for r in results})
