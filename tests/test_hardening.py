"""Adversarial training: what each weight ignores, who is whose partner, and one step by hand."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from pipeline_fixtures import interruptible

from deepcustom.attacks.art import art_attack, art_classifier, run_attack
from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.errors import InputError
from deepcustom.base.settings import AttackParams, TrainingParams
from deepcustom.hardening.art import Art, ArtSettings
from deepcustom.hardening.goodfellow import Goodfellow, GoodfellowSettings
from deepcustom.hardening.inner import GrowingBall, inner_pgd
from deepcustom.hardening.madry import InnerParams, Madry, MadrySettings
from deepcustom.training.checkpoint import NOWHERE, Checkpoint
from deepcustom.training.compute import seed_everything
from deepcustom.training.job import Job
from deepcustom.training.nets.base import Classifier
from deepcustom.training.nets.mnist import MnistClassifier
from deepcustom.training.prediction import accuracy

FGSM = AttackParams(method="fgsm", batch_size=1000)
BALL = ThreatModel(0.1)


def params(**changes) -> TrainingParams:
    values = {"learning_rate": 3e-3, "epochs": 2, "batch_size": 16, "schedule": "constant"}
    return TrainingParams(**{**values, "momentum": 0.9, "weight_decay": 0.0, **changes})


def fresh(seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    return MnistClassifier()


def goodfellow(clean_weight=0.5, **changes) -> Goodfellow:
    settings = GoodfellowSettings(
        type="goodfellow", training=params(**changes), clean_weight=clean_weight
    )
    return Goodfellow(settings, BALL, 10)


def madry(inner: InnerParams, ball: ThreatModel = BALL, **changes) -> Madry:
    return Madry(MadrySettings(type="madry", training=params(**changes), inner=inner), ball, 10)


def art(attack: AttackParams = FGSM, ratio=0.5, **changes) -> Art:
    settings = ArtSettings(type="art", training=params(**changes), ratio=ratio, attack=attack)
    return Art(settings, BALL, 10)


def noise_like(x, seed=0):
    return torch.rand(x.shape, generator=torch.Generator().manual_seed(seed))


def hardened(train, adversarial, val, compute, *, clean_weight, **changes):
    """The trained weights as one vector, and the history."""
    net = fresh()
    way = goodfellow(clean_weight, **changes)
    history = way.train(net, train, val, Job(3, compute), adversarial)
    return torch.cat([p.detach().flatten() for p in net.parameters()]), history


def test_weight_one_ignores_adversarial_images_and_zero_the_clean(few, nothing, compute):
    (x, y), row = few, torch.arange(60)
    one, other = noise_like(x, 1), noise_like(x, 2)

    def weights(clean, adversarial, clean_weight):
        return hardened(
            (clean, y), (adversarial, row), nothing, compute, clean_weight=clean_weight
        )[0]

    assert torch.equal(weights(x, one, 1.0), weights(x, other, 1.0))
    assert torch.equal(weights(one, x, 0.0), weights(other, x, 0.0))
    assert torch.equal(weights(x, one, 1.0), weights(one, x, 0.0))
    assert not torch.equal(weights(x, one, 0.5), weights(x, other, 0.5))
    assert not torch.equal(weights(one, x, 0.5), weights(other, x, 0.5))


def cross_entropy_by_hand(net, image, label):
    """Float64, by the definition."""
    logits = net(image.double().unsqueeze(0))[0]
    return logits.exp().sum().log() - logits[label]


@pytest.mark.parametrize("clean_weight", [0.5, 0.2])
@pytest.mark.parametrize("row", [[0, 1, 2, 3, 4], [3, 0, 4, 1, 2], [1, 3], [4, 1], [2]])
def test_one_step_against_the_formula(few, nothing, compute, clean_weight, row):
    x, y = few[0][:5], few[1][:5]
    x_adv = noise_like(x[: len(row)])
    wide = fresh().double()
    # The partner of an image is its own adversarial one; without one, those there are in turn.
    partner = [row.index(i) if i in row else i % len(row) for i in range(5)]
    clean = [cross_entropy_by_hand(wide, x[i], y[i]) for i in range(5)]
    adv = [cross_entropy_by_hand(wide, x_adv[a], y[row[a]]) for a in partner]
    loss = sum(clean_weight * c + (1 - clean_weight) * a for c, a in zip(clean, adv, strict=True))
    grads = torch.autograd.grad(loss / 5, list(wide.parameters()))
    grad = torch.cat([g.flatten() for g in grads])
    start = torch.cat([p.detach().flatten() for p in wide.parameters()])

    found, history = hardened(
        (x, y),
        (x_adv, torch.tensor(row)),
        nothing,
        compute,
        clean_weight=clean_weight,
        epochs=1,
        batch_size=5,
    )
    large = grad.abs() > 1e-6  # Adam's first step is lr * g / (|g| + 1e-8)
    expected = start - 3e-3 * grad / (grad.abs() + 1e-8)
    torch.testing.assert_close(found.double()[large], expected[large], rtol=0, atol=1e-4)
    assert large.sum() > 1000
    share = {
        "clean": clean_weight * sum(clean) / 5,
        "adversarial": (1 - clean_weight) * sum(adv) / 5,
    }
    assert history == {
        "clean": [pytest.approx(float(share["clean"].detach()), rel=1e-5)],
        "adversarial": [pytest.approx(float(share["adversarial"].detach()), rel=1e-5)],
        "loss": [pytest.approx(float(loss.detach()) / 5, rel=1e-5)],
    }


def test_an_image_meets_its_own_adversarial_version(few, nothing, compute):
    x, y = few
    row = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    net = fresh()
    seen = []
    net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    goodfellow(epochs=1).train(net, (x, y), nothing, Job(0, compute), (1 - x[row], row))
    assert len(seen) == 2 * math.ceil(60 / 16)
    for clean, adv in zip(seen[::2], seen[1::2], strict=True):
        assert torch.equal(adv, 1 - clean)


def test_adversarial_images_are_scored_by_their_own_labels(few, nothing, compute):
    """Fewer than the clean ones, so that most clean images stand beside another's."""
    x, y = few
    row = torch.tensor([7, 3, 50])
    budget = {"epochs": 100, "batch_size": 60, "learning_rate": 0.02}
    _, history = hardened((x, y), (x[row], row), nothing, compute, clean_weight=0.0, **budget)
    assert history["adversarial"][-1] < 0.1  # wrong labels could not be learnt


def test_history_and_words(few, held_out, compute):
    said = []
    net = fresh()
    adversarial = (few[0], torch.arange(60))
    job = Job(0, compute, said.append)
    history = goodfellow(epochs=3).train(net, few, held_out, job, adversarial)
    assert set(history) == {"loss", "clean", "adversarial", "val_accuracy"}
    assert {len(curve) for curve in history.values()} == {3}
    assert history["val_accuracy"][-1] == accuracy(net, *held_out)
    assert len(said) == 3
    assert all("val_accuracy" in note for note in said)
    assert not net.training


def test_same_seed_same_weights(few, nothing, compute):
    adversarial = (noise_like(few[0]), torch.arange(60))
    first = hardened(few, adversarial, nothing, compute, clean_weight=0.5)
    torch.manual_seed(99)
    second = hardened(few, adversarial, nothing, compute, clean_weight=0.5)
    assert torch.equal(first[0], second[0])
    assert first[1] == second[1]


def test_goodfellow_raises_accuracy_on_its_own_attack(train, held_out, target_net, threat, compute):
    estimator = art_classifier(target_net, (1, 28, 28), 10, compute.device)
    x_adv = torch.from_numpy(run_attack(estimator, FGSM, threat, *train))
    test_adv = torch.from_numpy(run_attack(estimator, FGSM, threat, *held_out))
    net = fresh()
    adversarial = (x_adv, torch.arange(len(x_adv)))
    goodfellow(epochs=6).train(net, train, held_out, Job(0, compute), adversarial)
    assert accuracy(net, test_adv, held_out[1]) > accuracy(target_net, test_adv, held_out[1]) + 0.3


def test_goodfellow_asks_for_a_set(few, nothing, compute):
    with pytest.raises(InputError, match="type goodfellow trains on an adversarial set"):
        goodfellow().train(fresh(), few, nothing, Job(0, compute))


# ART's trainer


def under_fgsm(net, images, threat, compute) -> float:
    estimator = art_classifier(net, (1, 28, 28), 10, compute.device)
    x_adv = run_attack(estimator, FGSM, threat, *images)
    return accuracy(net, torch.from_numpy(x_adv), images[1])


@pytest.mark.parametrize(("ratio", "sizes"), [(0.5, [13, 13, 5]), (1.0, [25, 25, 10])])
def test_art_replaces_that_share_of_every_batch(few, nothing, compute, monkeypatch, ratio, sizes):
    seen = []

    def watched(*args):
        attack = art_attack(*args)
        generate = attack.generate

        def count(x, y=None):
            seen.append(len(x))
            return generate(x, y)

        attack.generate = count
        return attack

    monkeypatch.setattr("deepcustom.attacks.art.art_attack", watched)
    trained_with_art(few, nothing, compute, epochs=1, batch_size=25, ratio=ratio)
    assert seen == sizes


def trained_with_art(train, val, compute, ratio=0.5, **changes):
    seed_everything(0)
    net = fresh()
    said = []
    way = art(ratio=ratio, **{"epochs": 6, **changes})
    history = way.train(net, train, val, Job(0, compute, said.append))
    return net, history, said


def test_art_training_hardens_and_watches(train, held_out, target_net, compute, nothing):
    threat = ThreatModel(0.1)
    net, history, said = trained_with_art(train, held_out, compute)
    assert under_fgsm(net, held_out, threat, compute) > max(
        under_fgsm(target_net, held_out, threat, compute),
        under_fgsm(fresh(), held_out, threat, compute),
    )
    assert set(history) == {"val_accuracy"}
    assert len(history["val_accuracy"]) == 6
    assert history["val_accuracy"][-1] == accuracy(net, *held_out)
    assert said == [f"val_accuracy {value:.4f}" for value in history["val_accuracy"]]
    assert not net.training


def test_art_training_without_validation_images(few, nothing, compute):
    before = copy.deepcopy(fresh().state_dict())
    net, history, said = trained_with_art(few, nothing, compute, epochs=2)
    assert history == {}
    assert said == ["", ""]
    assert any(not torch.equal(t, before[name]) for name, t in net.state_dict().items())


def test_art_training_uses_the_budget(few, nothing, compute, monkeypatch):
    seen = []

    class Watched(torch.optim.Adam):
        def step(self, *args, **kwargs):
            seen.append((self.param_groups[0]["lr"], self.param_groups[0]["betas"][0]))
            return super().step(*args, **kwargs)

    monkeypatch.setattr(torch.optim, "Adam", Watched)
    budget = {"epochs": 2, "batch_size": 25, "learning_rate": 1e-4, "momentum": 0.8}
    trained_with_art(few, nothing, compute, **budget)
    assert seen == [(1e-4, 0.8)] * 2 * math.ceil(60 / 25)


# Madry's


def test_inner_pgd_stays_in_the_ball_and_is_as_strong_as_arts(train, target_net, threat, compute):
    x, y = train[0][:200], train[1][:200]
    before = x.clone()
    torch.manual_seed(0)
    own = inner_pgd(target_net, x, y, threat, eps_step=0.03, max_iter=20)
    threat.verify(own.numpy(), x.numpy())
    assert torch.equal(x, before)
    estimator = art_classifier(target_net, (1, 28, 28), 10, compute.device)
    settings = AttackParams(
        method="pgd", eps_step=0.03, max_iter=20, num_random_init=1, batch_size=1000
    )
    arts = torch.from_numpy(run_attack(estimator, settings, threat, x, y))
    assert accuracy(target_net, own, y) == pytest.approx(accuracy(target_net, arts, y), abs=0.02)
    assert accuracy(target_net, own, y) < accuracy(target_net, x, y) - 0.5


def test_one_inner_step_against_the_formula(train, target_net):
    """From the start that the same seed draws: x0 + step * sign of the gradient, then the ball."""
    x, y, ball = train[0][:5], train[1][:5], ThreatModel(0.2)
    torch.manual_seed(4)
    found = inner_pgd(target_net, x, y, ball, eps_step=0.05, max_iter=1)
    torch.manual_seed(4)
    start = (x + 0.2 * (2 * torch.rand_like(x) - 1)).clamp(x - 0.2, x + 0.2).clamp(0, 1)
    wide = copy.deepcopy(target_net).double()
    at = start.double().requires_grad_()
    loss = sum(cross_entropy_by_hand(wide, at[i], y[i]) for i in range(5))
    (gradient,) = torch.autograd.grad(loss, at)
    expected = (start + 0.05 * gradient.sign().float()).clamp(x - 0.2, x + 0.2).clamp(0, 1)
    large = gradient.abs() > 1e-5
    assert large.sum() > 1000
    torch.testing.assert_close(found[large], expected[large], rtol=0, atol=1e-6)


def test_the_ball_grows_to_its_full_radius(few, compute, nothing):
    inner = InnerParams(eps_step=0.1, max_iter=1, growth=0.5)
    way = madry(inner, ThreatModel(0.2), epochs=4)
    history = way.train(fresh(), few, few, Job(0, compute))
    assert history["eps"] == pytest.approx([0.1, 0.2, 0.2, 0.2])
    assert set(history) == {"loss", "adversarial", "eps", "val_accuracy", "val_adversarial"}
    again = way.train(fresh(), few, nothing, Job(0, compute))
    assert set(again) == {"loss", "adversarial", "eps"}


@pytest.mark.parametrize(
    ("growth", "radii"),
    [
        (0.0, [0.2, 0.2, 0.2, 0.2]),
        (0.75, [0.2 / 3, 0.4 / 3, 0.2, 0.2]),
        (1.0, [0.05, 0.1, 0.15, 0.2]),
    ],
)
def test_ball_and_step_of_every_epoch(growth, radii):
    ball = GrowingBall(ThreatModel(0.2, clip=False), 0.1, growth, epochs=4)
    for epoch, eps in enumerate(radii, 1):
        ball.begin(epoch)
        assert ball.threat == ThreatModel(ball.eps, clip=False)
        assert (ball.eps, ball.eps_step) == pytest.approx((eps, eps / 2))
        assert ball.done == (epoch - 1) / 4


def test_madry_withstands_what_brings_the_target_down(train, held_out, target_net, compute):
    ball, net = BALL, fresh()
    inner = InnerParams(eps_step=0.04, max_iter=5, growth=0.5)
    madry(inner, epochs=15, learning_rate=5e-3).train(net, train, held_out, Job(0, compute))
    x, y = held_out
    left = {}
    for name, one in {"target": target_net, "hardened": net}.items():
        x_adv = inner_pgd(one, x, y, ball, eps_step=0.02, max_iter=20)
        left[name] = accuracy(one, x_adv, y)
    assert left["hardened"] > left["target"] + 0.2


class Normed(Classifier):
    """With statistics of its own, which training changes and gradients do not reach."""

    def __init__(self):
        super().__init__()
        self.norm, self.logits = torch.nn.BatchNorm2d(1), torch.nn.Linear(784, 10)

    def preactivations(self, x):
        return {}, self.logits(
            torch.nn.functional.dropout(self.norm(x), 0.2, self.training).flatten(1)
        )


@pytest.mark.parametrize("stop", [0, 1, 3])
@pytest.mark.parametrize("kind", ["goodfellow", "fgsm", "pgd", "madry"])
def test_an_interrupted_hardening_ends_with_the_same_bytes(few, compute, tmp_path, kind, stop):
    inner = InnerParams(eps_step=0.05, max_iter=2, growth=1.0)
    pgd = AttackParams(method="pgd", eps_step=0.05, max_iter=2, num_random_init=1, batch_size=1000)
    way = {
        "goodfellow": goodfellow(epochs=4),
        "fgsm": art(FGSM, epochs=4),
        "pgd": art(pgd, epochs=4),
        "madry": madry(inner, epochs=4),
    }[kind]
    adversarial = (noise_like(few[0]), torch.arange(60)) if way.reads_set else None

    def run(place, stop=None):
        advance, said = interruptible(stop)
        seed_everything(len(str(stop)))  # what was drawn before must not matter
        torch.manual_seed(0)
        net = Normed()
        history = way.train(net, few, few, Job(3, compute, advance, place), adversarial)
        assert not net.training
        state = {name: t.numpy().tobytes() for name, t in net.state_dict().items()}
        return state, list(history.items()), said

    state, history, said = run(NOWHERE)
    assert said == [(1, "")] * 4
    place = Checkpoint(tmp_path / "kept", "f")
    with pytest.raises(KeyboardInterrupt):
        run(place, stop)
    resumed = [(stop, f"resumed after epoch {stop}")] if stop else []
    assert run(place) == (state, history, resumed + [(1, "")] * (4 - stop))
    other = Checkpoint(place.folder, "g")
    assert run(other) == (state, history, said)
