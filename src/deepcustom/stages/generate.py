"""Adversarial images from DGNs."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from deepcustom.attacks.chunks import ByDgns
from deepcustom.attacks.conditional import ConditionalDGN
from deepcustom.attacks.perturb import SplitAttack, chunk_size
from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.progress import progress
from deepcustom.base.settings import GenerateParams
from deepcustom.pipeline.adversarial_set import make_set
from deepcustom.pipeline.cluster.connection import engine
from deepcustom.pipeline.dgns import load_dgns
from deepcustom.pipeline.load import load_classifier, load_dataset, load_split
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.workspace import Workspace


def run(ws: Workspace, subject: str, bank_name: str, split_name: str) -> None:
    """Perturb a whole split of ``subject`` with the DGNs named ``bank_name``."""
    with StageRun(ws, "generate", subject, bank_name, split_name) as stage:
        params = stage.settings(GenerateParams)
        compute = stage.compute()
        threat = replace(ThreatModel.of(stage.subject.threat), clip=params.clipping)

        spec = load_dataset(stage)
        split = load_split(stage, spec, split_name)
        target_net = load_classifier(stage, "target", compute)
        dgn = load_dgns(stage, spec, bank_name, compute)
        if isinstance(dgn, ConditionalDGN):
            dgn = dgn.placed(compute)

        maker = ByDgns(dgn, target_net, threat, params.label, params.batch_size)
        attack = SplitAttack(
            partial(maker, compute=compute),
            target_net,
            threat,
            compute,
            only_changed=params.mis_classification_check,
            # On average a batch for each DGN.
            chunk=chunk_size(spec.num_classes * params.batch_size, spec.shape, params.batch_size),
            maker=maker,
        )
        with progress(stage.name, len(split)) as advance, engine(stage, compute) as elsewhere:
            make_set(stage, spec, split, attack, advance, elsewhere)
