"""Scoring networks: on sets made against the target, and under attack themselves."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from deepcustom.attacks import art_classifier, run_attack
from deepcustom.compute import Compute
from deepcustom.nets import Classifier
from deepcustom.params import AttackParams
from deepcustom.prediction import predict
from deepcustom.progress import Advance, silent
from deepcustom.results import Result
from deepcustom.threat import ThreatModel


@dataclass(frozen=True)
class Network:
    """A network to score: its name in the table, the hash of its file, and itself."""

    name: str
    md5: str
    net: Classifier


@dataclass(frozen=True)
class TestSet:
    """Images to score on: name of the attack that made them, hash, images (N, C, H, W) and labels (N,)."""

    __test__ = False  # for pytest: the name is the field's, it is no test case

    attack: str
    md5: str
    x: Tensor
    y: Tensor


def transfer(dataset: str, network: Network, sets: list[TestSet]) -> list[Result]:
    """Accuracy of one network on every given set, made against the target network."""
    results = []
    for s in sets:
        correct = int((predict(network.net, s.x).argmax(1) == s.y).sum())
        results.append(_result(dataset, network, "transfer", s.attack, correct, len(s.x), s.md5))
    return results


def whitebox(
    dataset: str,
    network: Network,
    attack: str,
    params: AttackParams,
    clean: TestSet,
    threat: ThreatModel,
    *,
    num_classes: int,
    seed: int = 0,
    compute: Compute,
    advance: Advance = silent,
) -> Result:
    """Accuracy of one network under an attack on that very network.

    Only images that the network gets right are attacked; the others count as wrong, as they would be
    under an attack that leaves them alone (Croce and Hein 2020).

    Args:
        dataset: for the result.
        network: attacked and scored.
        attack: name of the attack in the result.
        params: its settings.
        clean: the images it starts from.
        threat: ball and range, verified after the attack.
        num_classes: how many classes.
        seed: of the attack's random starts.
        compute: device; attacks run in float32.
        advance: called after every batch, with the images done.

    Returns:
        The result, of all images; its set is the clean one that the attack started from.

    Raises:
        ThreatModelError: the attack left the threat model.
    """
    shape = tuple(clean.x.shape[1:])
    right = predict(network.net, clean.x).argmax(1) == clean.y
    x, y = clean.x[right], clean.y[right]
    advance(steps=len(clean.x) - len(x))
    estimator = art_classifier(network.net, shape, num_classes, compute.device)
    x_adv = run_attack(estimator, params, threat, x, y, seed=seed, advance=advance)
    threat.verify(x_adv, x.cpu().numpy())
    left = predict(network.net, torch.from_numpy(x_adv).to(compute.device)).argmax(1) == y
    n = len(clean.x)
    return _result(dataset, network, "whitebox", attack, int(left.sum()), n, clean.md5)


def _result(
    dataset: str, network: Network, protocol: str, attack: str, correct: int, n: int, md5: str
) -> Result:
    return Result.of(
        dataset=dataset,
        network=network.name,
        protocol=protocol,
        attack=attack,
        correct=correct,
        n=n,
        network_md5=network.md5,
        set_md5=md5,
    )
