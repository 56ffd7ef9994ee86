"""Adversarial images from ART's attacks."""

from __future__ import annotations

import torch
from torch import Tensor

from deepcustom.attacks.art import art_classifier, for_gradients, run_attack
from deepcustom.attacks.perturb import SplitAttack, chunk_size
from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.progress import progress
from deepcustom.base.settings import AttackSetParams
from deepcustom.pipeline.adversarial_set import make_set
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
        attacked = for_gradients(target_net, compute)
        estimator = art_classifier(attacked, spec.shape, spec.num_classes, compute.device)

        with progress(stage.name, len(split)) as advance:

            def perturb(x: Tensor, y: Tensor, start: int) -> Tensor:
                x_adv = run_attack(
                    estimator, params, threat, x, y, seed=stage.seed, offset=start, advance=advance
                )
                return torch.from_numpy(x_adv)

            ready = SplitAttack(
                perturb,
                target_net,
                threat,
                compute,
                only_changed=params.mis_classification_check,
                chunk=chunk_size(2000, spec.shape, params.batch_size),
            )
            make_set(stage, spec, split, ready)
