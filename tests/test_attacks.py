"""ART's attacks and ours in ART's form: inside the threat model, repeatable, and doing harm."""

from __future__ import annotations

import copy

import budgets
import numpy as np
import pytest
import torch
from art.defences.trainer import AdversarialTrainer
from networks import GENERATOR
from torch import Tensor, nn

from deepcustom.attacks.art import art_attack, art_classifier, for_gradients, run_attack
from deepcustom.attacks.bank import DGNBank
from deepcustom.attacks.dgn_attack import DGNAttack
from deepcustom.attacks.losses import contexts
from deepcustom.attacks.threat import ThreatModel
from deepcustom.attacks.train_bank import train_bank
from deepcustom.base.errors import InputError
from deepcustom.base.settings import AttackParams
from deepcustom.training.compute import FLOAT32, Compute, seed_everything
from deepcustom.training.job import Job
from deepcustom.training.nets.base import MixedPrecision
from deepcustom.training.prediction import accuracy

SHAPE = (1, 28, 28)
FGSM = budgets.attack(method="fgsm")
PGD = budgets.attack(method="pgd", eps_step=0.03, max_iter=12, num_random_init=1)


@pytest.fixture(scope="module")
def bank(train, trained) -> DGNBank:
    """Ten DGNs that do harm, as perturbations."""
    values = {
        "loss": "nce",
        "output": "perturbation",
        "training": {"learning_rate": 3e-3, "epochs": 4, "batch_size": 8},
    }
    params = budgets.bank(values)
    some = train[0][:300], train[1][:300]
    made, _ = train_bank(
        GENERATOR["mnist"],
        "mnist",
        contexts(trained, ThreatModel(0.3), {}, 10),
        some,
        (some[0][:0], some[1][:0]),
        params,
        Job(0, FLOAT32),
    )
    return made


def estimator_of(net: nn.Module, **more):
    return art_classifier(net, SHAPE, 10, torch.device("cpu"), **more)


def attacked(attack, net, bank, x: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
    """Images by a row of the table."""
    estimator = estimator_of(net)
    if attack == "dgn":
        return torch.from_numpy(DGNAttack(estimator, bank, threat).generate(x.numpy(), y.numpy()))
    return torch.from_numpy(run_attack(estimator, attack, threat, x, y))


ATTACKS = {
    "fgsm": FGSM,
    "fgsm in batches": FGSM.model_copy(update={"batch_size": 17}),
    "pgd": PGD,
    "pgd in batches": PGD.model_copy(update={"batch_size": 17}),
    "pgd without random start": PGD.model_copy(update={"num_random_init": 0}),
    "pgd with restarts": PGD.model_copy(update={"num_random_init": 3, "max_iter": 4}),
    "pgd of the study": PGD.model_copy(update={"eps_step": 0.01, "max_iter": 20}),
    "pgd with one wide step": PGD.model_copy(update={"eps_step": 1.0, "max_iter": 1}),
    "dgn": "dgn",
}


@pytest.mark.parametrize("eps", [0.3, 8 / 255])
@pytest.mark.parametrize("name", ATTACKS)
def test_attack_stays_inside_harms_and_leaves_its_input(name, eps, target_net, bank, few):
    x, y = few[0].clone(), few[1].clone()
    threat = ThreatModel(eps)
    seed_everything(0)
    x_adv = attacked(ATTACKS[name], target_net, bank, x, y, threat)
    assert x_adv.dtype is torch.float32
    assert x_adv.shape == x.shape
    threat.verify(x_adv.numpy(), x.numpy())
    assert torch.equal(x, few[0])
    assert torch.equal(y, few[1])
    clean, hurt = accuracy(target_net, x, y), accuracy(target_net, x_adv, y)
    assert hurt <= clean
    if eps == 0.3:
        assert hurt < clean - 0.2
        assert float((x_adv - x).abs().max()) > 0.1


@pytest.mark.parametrize("name", ATTACKS)
def test_same_seed_same_bytes(name, target_net, bank, few, threat):
    def made() -> bytes:
        seed_everything(5)
        return attacked(ATTACKS[name], target_net, bank, *few, threat).numpy().tobytes()

    assert made() == made()


def test_random_start_depends_on_the_seed(target_net, few, threat):
    def made(seed: int, params: AttackParams) -> bytes:
        seed_everything(5)  # what was drawn before does not matter
        return run_attack(estimator_of(target_net), params, threat, *few, seed=seed).tobytes()

    assert made(1, PGD) != made(2, PGD)
    assert made(1, FGSM) == made(2, FGSM)


@pytest.mark.parametrize("name", ["fgsm in batches", "pgd in batches"])
def test_cut_at_batches_the_parts_give_the_bytes_of_the_whole(name, target_net, few, threat):
    def made(start: int, stop: int) -> np.ndarray:
        np.random.random(start + 1)  # what was drawn before does not matter
        estimator, rows = estimator_of(target_net), slice(start, stop)
        x, y = few[0][rows], few[1][rows]
        return run_attack(estimator, ATTACKS[name], threat, x, y, seed=3, offset=start)

    whole = made(0, 60)
    for cut in (17, 34, 51):
        parts = np.concatenate([made(0, cut), made(cut, 60)])
        assert parts.tobytes() == whole.tobytes(), cut


def test_every_batch_starts_somewhere_else(target_net, few, threat):
    same = few[0][:1].expand(34, -1, -1, -1), few[1][:1].expand(34)
    x_adv = run_attack(estimator_of(target_net), ATTACKS["pgd in batches"], threat, *same)
    assert not np.array_equal(x_adv[:17], x_adv[17:])


def test_fgsm_is_its_formula(target_net, few, threat):
    x, y = few[0].clone().requires_grad_(), few[1]
    (grad,) = torch.autograd.grad(nn.functional.cross_entropy(target_net(x), y), x)
    expected = (x + 0.3 * grad.sign()).clamp(0, 1).detach()
    found = run_attack(estimator_of(target_net), FGSM, threat, *few)
    assert (np.abs(found - expected.numpy()) < 1e-6).mean() > 0.9999


def test_fgsm_batches_do_not_matter(target_net, few, threat):
    whole = run_attack(estimator_of(target_net), FGSM, threat, *few)
    parts = run_attack(estimator_of(target_net), ATTACKS["fgsm in batches"], threat, *few)
    assert (np.abs(whole - parts) < 1e-6).mean() > 0.9999


def test_pgd_is_not_weaker_than_fgsm(target_net, held_out):
    threat = ThreatModel(0.05)
    seed_everything(0)
    scores = {}
    for name, params in {"fgsm": FGSM, "pgd": PGD.model_copy(update={"eps_step": 0.01})}.items():
        x_adv = run_attack(estimator_of(target_net), params, threat, *held_out)
        scores[name] = accuracy(target_net, torch.from_numpy(x_adv), held_out[1])
    assert scores["pgd"] <= scores["fgsm"] < accuracy(target_net, *held_out)


def test_restarts_do_not_weaken(target_net, held_out):
    threat = ThreatModel(0.03)
    seed_everything(0)
    one, many = (
        PGD.model_copy(update={"num_random_init": n, "max_iter": 2, "eps_step": 0.005})
        for n in (1, 5)
    )
    weak, strong = (
        accuracy(
            target_net,
            torch.from_numpy(run_attack(estimator_of(target_net), params, threat, *held_out)),
            held_out[1],
        )
        for params in (one, many)
    )
    assert strong <= weak


def test_settings_reach_art(target_net, threat):
    attack = art_attack(estimator_of(target_net), PGD, threat)
    assert (attack.eps, attack.eps_step, attack.max_iter) == (0.3, 0.03, 12)
    assert (attack.num_random_init, attack.norm, attack.batch_size) == (1, np.inf, 1000)
    assert not attack.targeted
    fgsm = art_attack(estimator_of(target_net), FGSM, ThreatModel(0.1))
    assert (fgsm.eps, fgsm.norm, fgsm.targeted, fgsm.minimal) == (0.1, np.inf, False, False)
    assert estimator_of(target_net).clip_values.tolist() == [0.0, 1.0]


def test_advance_counts_the_images(target_net, few, threat):
    counts = []

    def advance(note: str = "", steps: int = 1) -> None:
        counts.append(steps)

    params = ATTACKS["fgsm in batches"]
    run_attack(estimator_of(target_net), params, threat, *few, advance=advance)
    assert counts == [17, 17, 17, 9]


def test_no_images(target_net, nothing, threat):
    found = run_attack(estimator_of(target_net), PGD, threat, *nothing)
    assert found.shape == (0, *SHAPE)


# DGNs in ART


def test_labels_may_be_indices_or_one_hot_or_are_predicted(target_net, bank, few, threat):
    x, y = few[0].numpy(), few[1].numpy()
    attack = DGNAttack(estimator_of(target_net), bank, threat)
    by_index = attack.generate(x, y)
    expected = bank.generate(*few, threat, compute=FLOAT32).numpy()
    assert by_index.tobytes() == expected.tobytes()
    assert attack.generate(x, np.eye(10)[y]).tobytes() == expected.tobytes()
    assert attack.generate(x=x, y=y.astype(np.uint8)).tobytes() == expected.tobytes()
    for column in (y[:, None], y[:, None].astype(np.float32)):
        assert attack.generate(x, column).tobytes() == expected.tobytes()

    predicted = target_net(few[0]).argmax(1)
    assert not torch.equal(predicted, few[1])
    of_predicted = bank.generate(few[0], predicted, threat, compute=FLOAT32).numpy()
    assert attack.generate(x).tobytes() == of_predicted.tobytes() != expected.tobytes()


def test_dgn_attack_takes_wider_floats_and_gives_float32(target_net, bank, few, threat):
    attack = DGNAttack(estimator_of(target_net), bank, threat, batch_size=7)
    x_adv = attack.generate(few[0].double().numpy(), few[1].numpy())
    assert x_adv.dtype == np.float32
    np.testing.assert_allclose(
        x_adv, bank.generate(*few, threat, compute=FLOAT32).numpy(), atol=1e-5
    )


@pytest.mark.parametrize("batch_size", [0, -5])
def test_dgn_attack_refuses_a_senseless_batch_size(target_net, bank, threat, batch_size):
    with pytest.raises(ValueError, match=f"batch_size must be positive, found {batch_size}"):
        DGNAttack(estimator_of(target_net), bank, threat, batch_size=batch_size)


def test_art_sets_the_attacks_params_and_checks_them(target_net, bank, threat):
    attack = DGNAttack(estimator_of(target_net), bank, threat)
    attack.set_params(batch_size=3)
    assert attack.batch_size == 3
    with pytest.raises(ValueError, match="batch_size must be positive"):
        attack.set_params(batch_size=0)


def test_dgn_attack_refuses_other_numbers_of_labels(target_net, bank, few, threat):
    attack = DGNAttack(estimator_of(target_net), bank, threat)
    with pytest.raises(InputError, match="60 images need as many labels"):
        attack.generate(few[0].numpy(), few[1].numpy()[:5])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((60, 2)), r"labels must be \(N,\), \(N, 1\) or \(N, 10\).*found \(60, 2\)"),
        (np.zeros((60, 11)), r"found \(60, 11\)"),
        (np.zeros((60, 10, 1)), r"found \(60, 10, 1\)"),
        (np.array(3), r"found \(\)"),
        (np.full(60, 0.5), "whole numbers"),
        (np.full((60, 1), np.nan), "finite numbers, found float64"),
        (np.full((60, 10), np.nan), "finite numbers, found float64"),
        (np.full(60, "0"), "finite numbers, found <U1"),
        (np.full((60, 1), 10), r"labels must lie in 0\.\.9, found 10\.\.10"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_dgn_attack_refuses_labels_that_pick_no_dgn(target_net, bank, few, threat, labels, message):
    attack = DGNAttack(estimator_of(target_net), bank, threat)
    with pytest.raises(InputError, match=message):
        attack.generate(few[0].numpy(), labels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x * 255, r"images have values from 0 to 255, want \[0, 1\]"),
        (lambda x: x - 0.5, r"images have values from -0.5 to 0.5, want \[0, 1\]"),
        (lambda x: x * np.nan, "images have values from nan to nan"),
        (lambda x: x[0], r"images are torch.float32 of shape \(1, 28, 28\), want"),
    ],
)
def test_dgn_attack_refuses_other_images(target_net, bank, few, threat, change, message):
    """Projected to the ball and to [0, 1], they would all be of one colour."""
    attack = DGNAttack(estimator_of(target_net), bank, threat)
    with pytest.raises(InputError, match=message):
        attack.generate(change(few[0].numpy()), few[1].numpy())


def test_dgn_attack_refuses_what_is_no_classifier(bank, threat):
    from art.exceptions import EstimatorError

    with pytest.raises(EstimatorError):
        DGNAttack(nn.Linear(2, 2), bank, threat)


def test_dgn_attack_inside_arts_adversarial_trainer(target_net, bank, few, threat):
    net = copy.deepcopy(target_net).requires_grad_(True)
    before = copy.deepcopy(net.state_dict())
    estimator = estimator_of(net, optimizer=torch.optim.Adam(net.parameters(), 1e-3))
    attack = DGNAttack(estimator, bank, threat)
    calls = []
    generate = attack.generate

    def watched(x, y=None, **kwargs):
        clean = x.copy()
        x_adv = generate(x, y, **kwargs)
        assert x.tobytes() == clean.tobytes()
        threat.verify(x_adv, clean)
        calls.append((len(x), y.shape))
        return x_adv

    attack.generate = watched
    x, y = few[0].numpy(), np.eye(10, dtype=np.float32)[few[1].numpy()]
    AdversarialTrainer(estimator, attack, ratio=0.5).fit(x, y, batch_size=20, nb_epochs=1)
    assert calls == [(10, (10, 10))] * 3
    assert x.tobytes() == few[0].numpy().tobytes()
    assert all(not torch.equal(t, before[name]) for name, t in net.state_dict().items())


@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_a_run_in_half_precision_attacks_about_as_hard(trained, held_out, precision, attack):
    """In float16 without a scaled loss the gradients of a network that is sure are zero."""
    sure = copy.deepcopy(trained)
    with torch.no_grad():
        for parameter in sure.logits.parameters():
            parameter.mul_(10)
    compute = Compute(torch.device("cpu"), getattr(torch, precision))
    params = FGSM if attack == "fgsm" else PGD
    threat = ThreatModel(0.1)

    def left(net: nn.Module) -> float:
        x_adv = run_attack(estimator_of(net), params, threat, *held_out, seed=1)
        return accuracy(sure, torch.from_numpy(x_adv), held_out[1])

    assert left(for_gradients(sure, compute)) == pytest.approx(left(sure), abs=0.03)
    if precision == "float16":
        assert left(MixedPrecision(sure, compute)) > left(sure) + 0.1
