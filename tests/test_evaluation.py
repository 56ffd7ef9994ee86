"""Scores counted by hand, under both protocols."""

from __future__ import annotations

import pytest
import torch

from deepcustom import evaluation
from deepcustom.compute import seed_everything
from deepcustom.errors import ThreatModelError
from deepcustom.evaluation import Network, TestSet, transfer, whitebox
from deepcustom.nets import Classifier
from deepcustom.params import AttackParams
from deepcustom.prediction import accuracy
from deepcustom.results import Result

PGD = AttackParams(method="pgd", eps_step=0.05, max_iter=8, num_random_init=1, batch_size=64)


class FirstPixel(Classifier):
    """Says the class that the first pixel names, in tenths."""

    def preactivations(self, x):
        named = (x[:, 0, 0, 0] * 10).round().long()
        return {}, torch.nn.functional.one_hot(named, 10).float()


def images(*classes: int) -> torch.Tensor:
    return torch.tensor(classes).float().div(10).view(-1, 1, 1, 1)


def test_transfer_counts_by_hand():
    y = torch.tensor([0, 1, 2, 3])
    sets = [
        TestSet("clean", "c" * 32, images(0, 1, 2, 3), y),
        TestSet("lrp", "d" * 32, images(0, 1, 9, 9), y),
        TestSet("fgsm", "e" * 32, images(5), torch.tensor([0])),
        TestSet("none", "f" * 32, images(), y[:0]),
    ]
    results = transfer("mnist", Network("robust", "a" * 32, FirstPixel()), sets)
    assert [(r.attack, r.n, r.set_md5[0]) for r in results] == [
        ("clean", 4, "c"),
        ("lrp", 4, "d"),
        ("fgsm", 1, "e"),
        ("none", 0, "f"),
    ]
    assert [r.accuracy for r in results[:3]] == [1.0, 0.5, 0.0]
    assert results[3].empty
    assert results[1] == Result.of(
        dataset="mnist",
        network="robust",
        protocol="transfer",
        attack="lrp",
        correct=2,
        n=4,
        network_md5="a" * 32,
        set_md5="d" * 32,
    )
    assert results[1].ci_low < 0.5 < results[1].ci_high


def scored(net, few, threat, compute, **more) -> Result:
    seed_everything(0)
    return whitebox(
        "mnist",
        Network("target", "a" * 32, net),
        "pgd",
        PGD,
        TestSet("clean", "b" * 32, *few),
        threat,
        num_classes=10,
        compute=compute,
        **more,
    )


def test_whitebox_attacks_the_network_itself(target_net, held_out, threat, compute):
    counts = []

    def advance(note: str = "", steps: int = 1) -> None:
        counts.append(steps)

    result = scored(target_net, held_out, threat, compute, advance=advance)
    clean = accuracy(target_net, *held_out)
    assert result.accuracy < clean - 0.3
    assert (result.dataset, result.network, result.protocol) == ("mnist", "target", "whitebox")
    assert (result.attack, result.n) == ("pgd", 200)
    assert (result.network_md5, result.set_md5) == ("a" * 32, "b" * 32)
    right = int((target_net(held_out[0]).argmax(1) == held_out[1]).sum())
    assert 128 < right < 192
    assert counts == [200 - right, 64, 64, right - 128]


def test_whitebox_leaves_wrong_images_alone(target_net, held_out, threat, compute, monkeypatch):
    """An attack that would put them right, as few strong ones do by chance, must not count."""
    wrong = target_net(held_out[0]).argmax(1) != held_out[1]
    seen = []

    def healing(estimator, params, threat, x, y, **more):
        seen.append(x)
        return x.numpy().copy()

    monkeypatch.setattr(evaluation, "run_attack", healing)
    result = scored(target_net, held_out, threat, compute)
    assert torch.equal(seen[0], held_out[0][~wrong])
    assert (result.n, round(result.accuracy * 200)) == (200, int((~wrong).sum()))


def test_a_network_that_gets_nothing_right_needs_no_attack(held_out, threat, compute):
    class Blind(Classifier):
        def preactivations(self, x):
            return {}, torch.nn.functional.one_hot(torch.full((len(x),), 7), 10).float()

    x, y = (part[held_out[1] != 7] for part in held_out)
    result = scored(Blind(), (x, y), threat, compute)
    assert (result.accuracy, result.n) == (0.0, len(x))


def test_whitebox_counts_what_the_attack_left(target_net, few, threat, compute, monkeypatch):
    """An attack that changes nothing gives the clean count."""
    monkeypatch.setattr(evaluation, "run_attack", lambda e, p, t, x, y, **more: x.numpy().copy())
    result = scored(target_net, few, threat, compute)
    assert result.accuracy == pytest.approx(accuracy(target_net, *few), abs=1e-6)
    predicted = target_net(few[0]).argmax(1)
    assert round(result.accuracy * 60) == sum(
        int(a) == int(b) for a, b in zip(predicted, few[1], strict=True)
    )


def test_attack_that_leaves_the_threat_model_is_no_result(
    target_net, few, threat, compute, monkeypatch
):
    def outside(estimator, params, threat, x, y, **more):
        x_adv = x.numpy().copy()
        x_adv[7] = abs(x_adv[7] - 0.5) + 0.5  # far from dark pixels
        return x_adv

    monkeypatch.setattr(evaluation, "run_attack", outside)
    with pytest.raises(ThreatModelError, match=r"1 of 5\d images lie outside the eps=0\.3 ball"):
        scored(target_net, few, threat, compute)
