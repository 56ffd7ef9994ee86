"""Adversarial images from ART's attacks."""

from __future__ import annotations

from functools import partial

from deepcustom.attacks.art import ByArt
from deepcustom.attacks.perturb import SplitAttack, chunk_size
from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.progress import progress, silent
from deepcustom.base.settings import AttackSetParams
from deepcustom.pipeline.adversarial_set import make_set
from deepcustom.pipeline.cluster.connection import engine
from deepcustom.pipeline.load import load_classifier, load_dataset, load_split
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.workspace import Workspace


def run(ws: Workspace, subject: str, attack: str, split_name: str) -> None:
    """Perturb a whole split of ``subject`` with ``attack`` on the target network."""
    with StageRun(ws, "attack", subject, attack, split_name) as stage:
        params = stage.settings(AttackSetParams)
        threat, compute = ThreatModel.of(stage.subject.threat), stage.compute()

        spec = load_dataset(stage)
        split = load_split(stage, spec, split_name)
        target_net = load_classifier(stage, "target", compute)
        maker = ByArt(target_net, params, threat, spec.num_classes, stage.seed)

        with progress(stage.name, len(split)) as advance, engine(stage, compute) as elsewhere:
            ready = SplitAttack(
                partial(maker, compute=compute, advance=advance),
                target_net,
                threat,
                compute,
                only_changed=params.mis_classification_check,
                chunk=chunk_size(2000, spec.shape, params.batch_size),
                maker=maker,
            )
            told = silent if elsewhere is None else advance  # here it tells every batch
            make_set(stage, spec, split, ready, told, elsewhere)
