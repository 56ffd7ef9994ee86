"""Adversarial images from DGNs."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from deepcustom.attacks.bank import DGNBank
from deepcustom.attacks.conditional import KIND, ConditionalDGN
from deepcustom.attacks.dgn import DGN
from deepcustom.attacks.perturb import SplitAttack, chunk_size
from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.progress import progress
from deepcustom.base.settings import GenerateParams
from deepcustom.data.datasets import DatasetSpec
from deepcustom.pipeline import workspace
from deepcustom.pipeline.adversarial_set import make_set
from deepcustom.pipeline.load import architecture, load_classifier, load_dataset, load_split
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.workspace import Workspace
from deepcustom.training.compute import Compute
from deepcustom.training.prediction import predict
from deepcustom.training.weights import read_metadata


def run(ws: Workspace, subject: str, bank_name: str, split_name: str) -> None:
    """Perturb a whole split of ``subject`` with the DGNs named ``bank_name``."""
    with StageRun(ws, "generate", subject, bank_name, split_name) as stage:
        params = stage.settings(GenerateParams)
        compute = stage.compute()
        threat = replace(ThreatModel.of(stage.subject.threat), clip=params.clipping)

        spec = load_dataset(stage)
        split = load_split(stage, spec, split_name)
        target_net = load_classifier(stage, "target", compute)
        dgn = _dgn(stage, spec, bank_name, compute)

        def perturb(x: Tensor, y: Tensor, start: int) -> Tensor:
            labels = y if params.label == "true" else predict(target_net, x).argmax(1)
            return dgn.generate(x, labels, threat, compute=compute, batch_size=params.batch_size)

        attack = SplitAttack(
            perturb,
            target_net,
            threat,
            compute,
            only_changed=params.mis_classification_check,
            # On average a batch for each DGN.
            chunk=chunk_size(spec.num_classes * params.batch_size, spec.shape, params.batch_size),
        )
        with progress(stage.name, len(split)) as advance:
            make_set(stage, spec, split, attack, advance)


def _dgn(stage: StageRun, spec: DatasetSpec, name: str, compute: Compute) -> DGN:
    """The subject's DGNs by name: a bank, or the generator that trained together with that network.

    Raises:
        InputError: the file is missing, or holds something else.
    """
    subject, whose = stage.subject, stage.row.subject
    path = stage.read(workspace.bank(whose, name))
    if read_metadata(path).get("kind") == KIND:
        told = architecture(stage, subject.conditional)
        return ConditionalDGN.load(path, told, whose, spec.num_classes, compute.device)
    each = architecture(stage, subject.generator)
    return DGNBank.load(path, each, whose, spec.num_classes, compute.device)
