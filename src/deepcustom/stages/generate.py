"""Adversarial images from a bank of DGNs."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from deepcustom import datasets
from deepcustom.dgn import DGNBank
from deepcustom.params import GenerateParams
from deepcustom.pipeline import workspace
from deepcustom.pipeline.adversarial_set import make_set
from deepcustom.pipeline.load import load_classifier, load_split
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.workspace import Workspace
from deepcustom.prediction import predict
from deepcustom.progress import progress


def run(ws: Workspace, dataset: str, bank_name: str, split_name: str) -> None:
    """Perturb a whole split of ``dataset`` with the bank ``bank_name``."""
    spec = datasets.spec(dataset)
    with StageRun(ws, "generate", dataset, bank_name, split_name) as stage:
        params = stage.params(GenerateParams)
        stage.expect("train_dgn", dataset, bank_name)
        compute = stage.compute()
        threat = replace(stage.threat(), clip=params.clipping)

        split = load_split(stage, spec, split_name)
        target_net = load_classifier(stage, spec, "target", compute)
        path = stage.read(workspace.bank(dataset, bank_name))
        bank = DGNBank.load(path, dataset, spec.num_classes, compute.device)

        def perturb(x: Tensor, y: Tensor, start: int) -> Tensor:
            labels = y if params.label == "true" else predict(target_net, x).argmax(1)
            return bank.generate(x, labels, threat, compute=compute, batch_size=params.batch_size)

        with progress(f"generate@{dataset}-{bank_name}-{split_name}", len(split)) as advance:
            make_set(
                stage,
                spec,
                split,
                perturb,
                target_net=target_net,
                threat=threat,
                compute=compute,
                only_changed=params.mis_classification_check,
                chunk=spec.num_classes * params.batch_size,  # a full pass of each DGN
                advance=advance,
            )
