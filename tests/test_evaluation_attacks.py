"""Attacks on the network itself: where their images lie, what they cost, whom they meet, and the whole."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import budgets
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deepcustom.attacks.bank import DGNBank, ready
from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.settings import (
    CurveParams,
    EvaluateParams,
)
from deepcustom.evaluation import whitebox as whitebox_module
from deepcustom.evaluation.adaptive import adapt, by_any, by_label
from deepcustom.evaluation.blackbox import blackbox, square_attack, surrogate_images
from deepcustom.evaluation.check_table import NETWORK
from deepcustom.evaluation.curves import curves
from deepcustom.evaluation.found import Evaluation
from deepcustom.evaluation.full import evaluate_all, evaluate_whitebox
from deepcustom.evaluation.material import Material, as_it_is
from deepcustom.evaluation.victim import (
    Cost,
    Counted,
    Make,
    Outcome,
    Victim,
    attempt,
    follow,
    in_batches,
)
from deepcustom.evaluation.whitebox import restarted, spend_more, whitebox
from deepcustom.training.compute import FLOAT32
from deepcustom.training.nets.mnist import MnistClassifier, MnistGenerator
from deepcustom.training.prediction import predict

FGSM = budgets.attack(method="fgsm")
PGD = budgets.attack(method="pgd", eps_step=0.1, max_iter=6, num_random_init=2)
FROM_X = budgets.attack(method="pgd", eps_step=0.1, max_iter=6, num_random_init=0)
AUTO = budgets.autoattack(max_iter=6, targets=2, queries=40, batch_size=7)
ATTACKS = {"fgsm": FGSM, "pgd": PGD, "pgd-from-x": FROM_X}
NAMES = [*ATTACKS, "apgd-ce", "apgd-t", "from-other", "square", "dgn", "dgn-any"]


class Named(nn.Module):
    """Says the class that the first pixel names, in tenths."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.one_hot((x[:, 0, 0, 0] * 10).round().long(), 10).float()


class Always(nn.Module):
    """One class whatever the image, and a slope that leads nowhere."""

    def __init__(self, label: int) -> None:
        super().__init__()
        self.label = label
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        scores = 10 * nn.functional.one_hot(torch.full((len(x),), self.label), 10).float()
        return scores + 1e-3 * x.flatten(1).mean(1, keepdim=True) * torch.arange(10)


class Detached(nn.Module):
    """Cuts the way back to the image."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.detach())


def victim_of(net: nn.Module, images, eps: float = 0.3, n: int = 12, seed: int = 3) -> Victim:
    x, y = images
    return Victim("it", net, x[:n].clone(), y[:n], ThreatModel(eps), 10, seed, FLOAT32)


def fresh_bank() -> DGNBank:
    made = []
    for label in range(10):
        torch.manual_seed(label)
        made.append(ready(MnistGenerator(), torch.device("cpu")))
    return DGNBank("mnist", "nce", "perturbation", made)


def apgd(victim: Victim, name: str) -> Make:
    """One of the two alone, on whatever it is shown."""
    return whitebox_module._apgd(victim, name, AUTO)


def state_bytes(net: nn.Module) -> bytes:
    return b"".join(t.contiguous().numpy().tobytes() for t in net.state_dict().values())


@pytest.fixture(scope="module")
def bank() -> DGNBank:
    """Ten DGNs that were never trained; the tests only read them."""
    return fresh_bank()


@pytest.fixture(scope="module")
def other() -> nn.Module:
    """Another network, that was never trained."""
    torch.manual_seed(9)
    return MnistClassifier().eval().requires_grad_(False)


def run_all(victim: Victim, other: nn.Module, bank: DGNBank) -> dict[str, Outcome]:
    """Attack → outcome, of every attack there is."""
    surrogate = surrogate_images(replace(victim, net=other), PGD)
    outcomes = [
        *series(victim),
        *from_outside(victim, {"other": surrogate}),
        *with_dgns(victim, bank),
    ]
    return {outcome.attack: outcome for outcome in outcomes}


def series(victim: Victim) -> Iterator[Outcome]:
    """Every white-box attack, each on what it is to meet after the ones before it."""
    found = Evaluation()
    for attack in whitebox(victim, ATTACKS, AUTO, found.stands):
        outcome = attack.run()
        found.stands.setdefault(outcome.protocol, {})[outcome.attack] = outcome.stands
        yield outcome


def from_outside(victim: Victim, surrogates: dict[str, Tensor]) -> list[Outcome]:
    images = {name: as_it_is(x) for name, x in surrogates.items()}
    return [attack.run() for attack in blackbox(victim, images, AUTO)]


def with_dgns(victim: Victim, bank: DGNBank) -> list[Outcome]:
    """Both ways to attack with a bank as it is."""
    return [attack(victim, bank, compute=FLOAT32) for attack in (by_label, by_any)]


@pytest.fixture(scope="module", params=[0.3, 0.05])
def attacked(request, trained, held_out, other, bank) -> tuple[Victim, dict[str, Outcome]]:
    """A network, and all attacks on it, within a wide and within a narrow ball."""
    victim = victim_of(copy.deepcopy(trained), held_out, eps=request.param)
    return victim, run_all(victim, other, bank)


# What every attack promises


def test_the_attacks_are_these_and_in_this_order(attacked):
    assert list(attacked[1]) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_images_lie_in_the_ball_exactly(name, attacked):
    victim, outcomes = attacked
    x_adv = outcomes[name].x_adv
    assert x_adv.dtype == torch.float32
    victim.threat.verify(x_adv.numpy(), victim.x.numpy())


@pytest.mark.parametrize("name", NAMES)
def test_what_stands_is_counted_as_the_network_says(name, attacked):
    victim, outcomes = attacked
    outcome = outcomes[name]
    assert outcome.tried.any() or name.startswith("apgd")
    assert not (outcome.stands & ~outcome.tried).any()
    assert outcome.accuracy == int(outcome.stands.sum()) / 12
    assert outcome.accuracy <= int(victim.right.sum()) / 12
    says = victim.net(outcome.x_adv).argmax(1) == victim.y
    assert torch.equal(says & outcome.tried, outcome.stands)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_that_is_not_tried_stays_and_has_fallen(name, trained, held_out, other, bank):
    """Half of the labels are false, so that half of the images are wrong without an attack."""
    x, y = held_out[0][:10], held_out[1][:10].clone()
    y[::2] = (trained(x[::2]).argmax(1) + 1) % 10
    victim = victim_of(trained, (x, y), eps=0.1)
    outcome = run_all(victim, other, bank)[name]
    assert not outcome.tried[::2].any()
    assert not outcome.stands[::2].any()
    assert torch.equal(outcome.x_adv[~outcome.tried], x[~outcome.tried])


def test_clean_images_are_left_as_they_are_and_same_seed_makes_same_bytes(
    attacked, held_out, other, bank
):
    victim, outcomes = attacked
    again = victim_of(victim.net, held_out, eps=victim.threat.eps)
    torch.manual_seed(77)
    np.random.seed(77)
    second = run_all(again, other, bank)
    for name, outcome in outcomes.items():
        assert outcome.x_adv.numpy().tobytes() == second[name].x_adv.numpy().tobytes(), name
        assert replace(outcome.cost, seconds=0) == replace(second[name].cost, seconds=0), name
    assert torch.equal(again.x, held_out[0][:12])
    assert torch.equal(again.y, held_out[1][:12])


@pytest.mark.parametrize("name", ["pgd", "apgd-ce", "apgd-t", "square"])
def test_another_seed_starts_elsewhere(name, trained, held_out):
    """After one short step it can still be seen where."""
    found = []
    for seed in (3, 4):
        victim = victim_of(trained, held_out, seed=seed)
        if name == "pgd":
            short = PGD.model_copy(update={"eps_step": 0.01, "max_iter": 1})
            found.append(restarted(victim, name, short, victim.right))
        else:
            square = name == "square"
            make = square_attack(victim, AUTO) if square else apgd(victim, name)
            found.append(attempt(victim, "p", name, victim.right, make))
    assert not torch.equal(found[0].x_adv, found[1].x_adv)


def test_strong_attacks_do_harm_in_a_wide_ball(trained, held_out, other, bank):
    victim = victim_of(trained, held_out, eps=0.3, n=40)
    outcomes = run_all(victim, other, bank)
    clean = float(victim.right.float().mean())
    assert clean > 0.7
    assert outcomes["pgd"].accuracy < 0.1
    assert outcomes["square"].accuracy < clean - 0.3
    for name in ("apgd-ce", "apgd-t"):
        alone = attempt(victim, "whitebox", name, victim.right, apgd(victim, name))
        assert alone.accuracy < 0.1


# Few images, and networks of any kind


def test_one_image(trained, held_out, other, bank):
    right = trained(held_out[0]).argmax(1) == held_out[1]
    one = held_out[0][right][:1], held_out[1][right][:1]
    for eps in (1e-3, 0.3):  # nothing falls; most does
        outcomes = run_all(victim_of(trained, one, eps=eps), other, bank)
        assert list(outcomes) == NAMES
        assert {len(outcome.stands) for outcome in outcomes.values()} == {1}
        if eps < 0.01:
            assert all(outcome.stands.all() for outcome in outcomes.values())


@pytest.mark.parametrize("name", ["apgd-ce", "apgd-t", "square"])
def test_one_image_left_standing_among_many(name, trained, held_out):
    victim = victim_of(trained, held_out, eps=0.3)
    rows = torch.zeros(12, dtype=torch.bool)
    rows[victim.right.nonzero()[3]] = True
    make = square_attack(victim, AUTO) if name == "square" else apgd(victim, name)
    outcome = attempt(victim, "p", name, rows, make)
    assert torch.equal(outcome.tried, rows)
    assert torch.equal(outcome.x_adv[~rows], victim.x[~rows])
    assert not torch.equal(outcome.x_adv[rows], victim.x[rows]) or outcome.stands[rows]


def test_a_network_that_gets_nothing_right_is_never_attacked(held_out, other, bank):
    some = held_out[1] != 7
    net = Always(7)
    victim = victim_of(net, (held_out[0][some], held_out[1][some]))
    outcomes = run_all(victim, other, bank)
    assert net.sizes == [12]  # to see that it is right on none
    for outcome in outcomes.values():
        assert (outcome.accuracy, replace(outcome.cost, seconds=0)) == (0.0, Cost())
        assert not outcome.tried.any()
        assert torch.equal(outcome.x_adv, victim.x)


def test_no_image_at_all(trained, nothing, other, bank):
    victim = victim_of(trained, nothing)
    for outcome in series(victim):
        assert outcome.stands.shape == (0,)
        assert np.isnan(outcome.accuracy)


def test_any_module_will_do_and_stays_what_it_is(held_out, other, bank):
    """Not frozen, and with noise in training mode."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(784, 10)).train()
    x = held_out[0]
    y = net.eval()(x).argmax(1)
    net.train()
    before = state_bytes(net)
    victim = victim_of(net, (x, y))
    outcomes = run_all(victim, other, bank)
    assert victim.right.all()
    assert outcomes["pgd"].accuracy < 0.5
    assert state_bytes(net) == before
    assert not any(module.training for module in net.modules())


@pytest.mark.filterwarnings("ignore:there are .* points with zero gradient")
@pytest.mark.parametrize("frozen", [True, False])
def test_a_network_without_a_way_back_is_attacked_blindly_instead_of_failing(
    frozen, target_net, held_out, other, bank
):
    victim = victim_of(Detached(target_net.requires_grad_(not frozen)), held_out)
    outcomes = run_all(victim, other, bank)
    assert torch.equal(outcomes["fgsm"].stands, victim.right)  # the sign of zero is zero
    assert torch.equal(outcomes["fgsm"].x_adv, victim.x)
    assert outcomes["square"].accuracy < outcomes["fgsm"].accuracy
    target_net.requires_grad_(False)
    alone = restarted(victim_of(target_net, held_out), "fgsm", FGSM, victim.right)
    assert alone.accuracy < outcomes["fgsm"].accuracy


def test_counting_changes_no_number(target_net, held_out):
    x = held_out[0][:20].clone().requires_grad_()
    plain = target_net(x)
    (wanted,) = torch.autograd.grad(plain.square().sum(), x)
    logits = Counted(target_net)(x)
    (found,) = torch.autograd.grad(logits.square().sum(), x)
    assert torch.equal(logits, plain)
    assert torch.equal(found, wanted)


# What they cost


@pytest.fixture
def sevens(held_out):
    """Images that :class:`Always` gets right."""
    return held_out[0][:9], torch.full((9,), 7)


def test_cost_of_fgsm_is_one_gradient_an_image(sevens):
    cost = restarted(victim_of(Always(7), sevens), "fgsm", FGSM, torch.ones(9).bool()).cost
    assert cost.gradients == 9
    assert cost.seconds > 0


@pytest.mark.parametrize("batch_size", [4, 1000])
@pytest.mark.parametrize(("starts", "runs"), [(0, 1), (1, 1), (3, 3)])
def test_cost_of_pgd_where_nothing_falls(starts, runs, batch_size, sevens):
    pgd = PGD.model_copy(update={"num_random_init": starts, "batch_size": batch_size})
    outcome = restarted(victim_of(Always(7), sevens), "pgd", pgd, torch.ones(9).bool())
    assert outcome.accuracy == 1
    assert outcome.cost.gradients == 6 * runs * 9


def test_cost_of_pgd_is_steps_times_what_stood_at_each_start(trained, held_out):
    victim = victim_of(trained, held_out, eps=0.08, n=60)
    met, expected = int(victim.right.sum()), 0
    counts = []
    for starts in (1, 2, 3, 4):
        pgd = PGD.model_copy(update={"num_random_init": starts})
        outcome = restarted(victim, "pgd", pgd, victim.right)
        expected += 6 * met
        assert outcome.cost.gradients == expected
        met = int(outcome.stands.sum())
        counts.append(met)
    assert counts == sorted(counts, reverse=True)
    assert 0 < counts[-1] < int(victim.right.sum())


def test_cost_of_square_where_nothing_falls(sevens):
    """Is it right? A first image, 40 changes, is it right now? And our own look."""
    net = Always(7)
    victim = victim_of(net, sevens)
    rows = torch.ones(9).bool()
    cost = attempt(victim, "blackbox", "square", rows, square_attack(victim, AUTO)).cost
    assert (cost.gradients, cost.queries) == (0, 9 * (1 + 1 + 40 + 1 + 1))
    assert sum(net.sizes) == cost.queries


@pytest.mark.parametrize("name", NAMES)
def test_cost_is_what_a_hook_counts(name, trained, held_out, other, bank):
    seen: Counter[str] = Counter()
    net = copy.deepcopy(trained)
    victim = victim_of(net, held_out, eps=0.08)
    assert victim.right.any()

    def hook(module, args):
        kind = "gradients" if torch.is_grad_enabled() and args[0].requires_grad else "queries"
        seen[kind] += len(args[0])

    net.register_forward_pre_hook(hook)
    if name in ATTACKS:
        outcome = restarted(victim, name, ATTACKS[name], victim.right)
    elif name.startswith("apgd"):
        outcome = attempt(victim, "whitebox", name, victim.right, apgd(victim, name))
    elif name.startswith("dgn"):
        outcomes = {o.attack: o for o in with_dgns(victim, bank)}
        seen["queries"] -= sum(o.cost.queries for k, o in outcomes.items() if k != name)
        outcome = outcomes[name]
    else:
        surrogates = {"other": held_out[0][:12]} if name == "from-other" else {}
        outcomes = {o.attack: o for o in from_outside(victim, surrogates)}
        seen["queries"] -= sum(o.cost.queries for k, o in outcomes.items() if k != name)
        outcome = outcomes[name]
    assert (outcome.cost.gradients, outcome.cost.queries) == (seen["gradients"], seen["queries"])
    right = int(victim.right.sum())
    exact = {"from-other": right, "dgn": right, "dgn-any": 11 * right}
    assert outcome.cost.queries == exact.get(name, outcome.cost.queries) > 0
    blind = name in exact or name == "square"
    assert (outcome.cost.gradients == 0) == blind


def test_costs_add_up():
    assert Cost(1, 2, 0.5) + Cost(10, 20, 0.25) == Cost(11, 22, 0.75)


# One attempt, two as one, and restarts


def named(*classes: int) -> tuple[Tensor, Tensor]:
    y = torch.tensor(classes)
    return y.float().div(10).view(-1, 1, 1, 1), y


def test_an_attempt_shows_only_its_rows_and_holds_to_the_ball():
    x, y = named(1, 2, 3, 4, 5)
    rows = torch.tensor([True, False, True, True, True])
    shown = []

    def make(x: Tensor, y: Tensor) -> Tensor:
        shown.append((x.clone(), y.clone()))
        moved = x + torch.tensor([0.2, 0.01, torch.nan, 9.0]).view(-1, 1, 1, 1)
        x.zero_()
        y.zero_()
        return moved

    victim = victim_of(Named(), (x, y), eps=0.3)
    outcome = attempt(victim, "whitebox", "made-up", rows, make)
    assert torch.equal(shown[0][0], x[rows])
    assert torch.equal(shown[0][1], y[rows])
    assert torch.equal(victim.x, x)
    assert torch.equal(victim.y, y)
    assert outcome.stands.tolist() == [False, False, True, True, False]
    assert torch.equal(outcome.tried, rows)
    assert outcome.x_adv.flatten().tolist() == pytest.approx([0.3, 0.2, 0.31, 0.4, 0.8], abs=1e-6)
    victim.threat.verify(outcome.x_adv.numpy(), x.numpy())
    assert (outcome.protocol, outcome.attack) == ("whitebox", "made-up")
    assert (outcome.cost.gradients, outcome.cost.queries) == (0, 4)


def test_two_attempts_follow_as_one():
    first = Outcome(
        "whitebox",
        "pgd",
        torch.tensor([True, True, True, False]),
        torch.tensor([True, True, False, False]),
        torch.tensor([0.1, 0.2, 0.3, 0.4]).view(-1, 1, 1, 1),
        Cost(10, 4, 1.0),
    )
    second = Outcome(
        "whitebox",
        "second",
        torch.tensor([True, True, False, False]),
        torch.tensor([True, False, False, False]),
        torch.tensor([0.5, 0.6, 0.7, 0.8]).view(-1, 1, 1, 1),
        Cost(5, 2, 0.5),
    )
    both = follow(first, second)
    assert (both.protocol, both.attack) == ("whitebox", "pgd")
    assert torch.equal(both.tried, first.tried)
    assert both.stands.tolist() == [True, False, False, False]
    assert both.x_adv.flatten().tolist() == pytest.approx([0.5, 0.6, 0.3, 0.4])
    assert both.cost == Cost(15, 6, 1.5)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 9])
def test_in_batches_is_the_same_in_order(size):
    x, y = named(1, 2, 3, 4, 5)
    sizes = []

    def make(x: Tensor, y: Tensor) -> Tensor:
        sizes.append(len(x))
        return x + y.view(-1, 1, 1, 1)

    assert torch.equal(in_batches(make, x, y, size), x + y.view(-1, 1, 1, 1))
    assert sum(sizes) == 5
    assert max(sizes) == min(size, 5)


def fake_attack(monkeypatch, falls: list[int]) -> list[tuple[list[int], int]]:
    """Each run of the attack makes the image of one class fall; returns what the runs will be shown."""
    shown: list[tuple[list[int], int]] = []

    def run(estimator, params, threat, x, y, *, seed):
        assert params.num_random_init in (0, 1, None)
        shown.append((y.tolist(), seed))
        x_adv = x.clone()
        x_adv[y == falls[len(shown) - 1]] += 0.2
        return x_adv.numpy()

    monkeypatch.setattr(whitebox_module, "run_attack", run)
    return shown


def test_restarts_meet_only_what_was_left_each_with_its_own_seed(monkeypatch):
    shown = fake_attack(monkeypatch, [2, 4, 99])
    victim = victim_of(Named(), named(1, 2, 3, 4, 5))
    rows = torch.tensor([True, True, True, True, False])
    pgd = PGD.model_copy(update={"num_random_init": 3})
    outcome = restarted(victim, "pgd", pgd, rows)
    assert [labels for labels, _ in shown] == [[1, 2, 3, 4], [1, 3, 4], [1, 3]]
    assert len({seed for _, seed in shown}) == 3
    assert outcome.stands.tolist() == [True, False, True, False, False]
    wanted = [0.1, 0.4, 0.3, 0.6, 0.5]
    assert outcome.x_adv.flatten().tolist() == pytest.approx(wanted, abs=1e-6)
    assert outcome.cost.queries == 4 + 3 + 2


def test_restarts_end_where_nothing_is_left(monkeypatch):
    shown = fake_attack(monkeypatch, [1, 2, 99, 99])
    pgd = PGD.model_copy(update={"num_random_init": 4})
    outcome = restarted(victim_of(Named(), named(1, 2)), "pgd", pgd, torch.ones(2).bool())
    assert len(shown) == 2
    assert outcome.accuracy == 0


def test_apgd_meets_what_all_before_it_left_and_spending_more_what_stands(trained, held_out):
    victim = victim_of(trained, held_out, eps=0.06, n=40)
    outcomes = {o.attack: o for o in series(victim)}
    left = victim.right & torch.stack([outcomes[name].stands for name in ATTACKS]).all(0)
    for name in ATTACKS:
        assert torch.equal(outcomes[name].tried, victim.right)
    assert left.any()
    assert torch.equal(outcomes["apgd-ce"].tried, left)
    assert torch.equal(outcomes["apgd-t"].tried, outcomes["apgd-ce"].stands)
    more = spend_more(victim, AUTO, outcomes["apgd-t"].stands).run()
    assert torch.equal(more.tried, outcomes["apgd-t"].stands)
    assert more.accuracy <= outcomes["apgd-t"].accuracy
    if more.tried.any():
        assert more.cost.gradients > 0


# Images from other networks


def test_surrogate_images_are_of_every_image_and_fool_where_they_were_made(trained, held_out):
    """Also of those that the surrogate gets wrong."""
    x, y = held_out[0][:20], held_out[1][:20].clone()
    y[0] = (trained(x[:1]).argmax(1) + 1) % 10
    victim = victim_of(trained, (x, y), n=20)
    images = surrogate_images(victim, PGD)
    victim.threat.verify(images.numpy(), x.numpy())
    assert all(not torch.equal(a, b) for a, b in zip(images, x, strict=True))
    assert float((predict(trained, images).argmax(1) == y).float().mean()) < 0.3
    (found, _) = from_outside(victim, {"itself": images})
    assert (found.protocol, found.attack) == ("blackbox", "from-itself")
    expected = victim.right & (predict(trained, images).argmax(1) == y)
    assert torch.equal(found.stands, expected)
    assert torch.equal(found.x_adv[victim.right], images[victim.right])


@pytest.mark.parametrize("name", ["apgd-ce", "apgd-t"])
def test_apgd_keeps_no_graph_of_its_iterations(trained, held_out, name):
    """With one, memory grew by every iteration, to 10 GB on a network that withstands."""
    victim = victim_of(trained, held_out, n=9)
    before = victim.spent()
    made = whitebox_module._apgd(victim, name, AUTO)(victim.x.clone(), victim.y)
    assert made.grad_fn is None
    assert not made.requires_grad
    assert (victim.spent() - before).gradients > 0


# DGNs that adapt


TRAINING = budgets.training(learning_rate=3e-3, epochs=4, batch_size=8)
ADAPTIVE = budgets.adaptive(bank="nce", training=TRAINING)


def test_adapting_leaves_the_bank_and_the_network_and_does_harm(bank, trained, train, held_out):
    net = copy.deepcopy(trained)
    victim = victim_of(net, held_out, n=60)
    start, weights = [state_bytes(g) for g in bank.generators], state_bytes(net)
    some = train[0][:250], train[1][:250]
    adapted = adapt(bank, victim, some, ADAPTIVE, compute=FLOAT32)
    assert [state_bytes(g) for g in bank.generators] == start
    assert state_bytes(net) == weights
    assert (adapted.dataset, adapted.loss, adapted.output) == ("mnist", "nce", "perturbation")
    assert all(state_bytes(g) != s for g, s in zip(adapted.generators, start, strict=True))
    for generator in adapted.generators:
        assert not generator.training
        assert not any(p.requires_grad for p in generator.parameters())
    before = {o.attack: o for o in with_dgns(victim, bank)}
    after = {o.attack: o for o in with_dgns(victim, adapted)}
    assert after["dgn"].accuracy < before["dgn"].accuracy - 0.2
    for outcomes in (before, after):
        assert not (outcomes["dgn-any"].stands & ~outcomes["dgn"].stands).any()


def test_every_dgn_of_a_bank_meets_every_image(bank, trained, held_out):
    victim = victim_of(trained, held_out, n=40)
    found = by_any(victim, bank, compute=FLOAT32)
    x, y = victim.x[victim.right], victim.y[victim.right]
    left, first = torch.ones(len(x), dtype=torch.bool), x.clone()
    for label in range(10):
        x_adv = bank.generate(x, torch.full((len(x),), label), victim.threat, compute=FLOAT32)
        falls = left & (predict(trained, x_adv).argmax(1) != y)
        first[falls] = x_adv[falls]
        left &= ~falls
    assert 0 < int(left.sum()) < len(x)
    assert torch.equal(found.x_adv[victim.right], first)
    assert torch.equal(found.stands[victim.right], left)
    assert found.cost.queries == 11 * len(x)  # and once more, for the outcome


def test_the_dgn_of_a_class_without_images_stays(bank, trained, train, held_out):
    mine = train[1] == 4
    once = budgets.adaptive(bank="nce", training=TRAINING.model_copy(update={"epochs": 1}))
    some = train[0][mine][:8], train[1][mine][:8]
    victim = victim_of(trained, held_out)
    adapted = adapt(bank, victim, some, once, compute=FLOAT32)
    for label, (start, end) in enumerate(zip(bank.generators, adapted.generators, strict=True)):
        assert (state_bytes(start) != state_bytes(end)) == (label == 4)
    again = adapt(bank, victim, some, once, compute=FLOAT32)  # the same seed, the same bytes
    assert state_bytes(again.generators[4]) == state_bytes(adapted.generators[4])


def test_a_dgn_sees_the_first_images_of_its_class_alone(bank, trained, train, held_out):
    mine = train[1] == 4
    x, y = train[0][mine][:12], train[1][mine][:12]
    once = budgets.adaptive(bank="nce", training=TRAINING.model_copy(update={"epochs": 1}))
    few = once.model_copy(update={"images_per_class": 8})
    victim = victim_of(trained, held_out)
    before = victim.spent()
    of_few = adapt(bank, victim, (x, y), few, compute=FLOAT32)
    assert (victim.spent() - before).gradients == 8
    of_eight = adapt(bank, victim, (x[:8], y[:8]), once, compute=FLOAT32)
    of_all = adapt(bank, victim, (x, y), once, compute=FLOAT32)
    bytes_of = [state_bytes(made.generators[4]) for made in (of_few, of_eight, of_all)]
    assert bytes_of[0] == bytes_of[1] != bytes_of[2]


# Curves


def test_curves_fall_from_the_clean_accuracy(trained, held_out):
    victim = victim_of(trained, held_out, n=40)
    pgd = PGD.model_copy(update={"eps_step": 0.05})
    params = CurveParams(n=20, radii=(0, 0.1, 1, 5), steps=(0, 1, 8))
    points = list(curves(victim, params, pgd))
    assert [(p.curve, p.eps, p.steps) for p in points] == [
        ("eps", 0, 6),
        ("eps", pytest.approx(0.03), 6),
        ("eps", pytest.approx(0.3), 6),
        ("eps", 1, 6),
        ("steps", pytest.approx(0.3), 0),
        ("steps", pytest.approx(0.3), 1),
        ("steps", pytest.approx(0.3), 8),
    ]
    clean = float(victim.right[:20].double().mean())
    assert points[0].accuracy == points[4].accuracy == clean
    assert points[0].risen == points[4].risen == 0
    assert points[3].accuracy == 0
    assert points[6].accuracy <= points[5].accuracy
    right = victim.right[:20]
    loss = nn.functional.cross_entropy(trained(victim.x[:20][right]), victim.y[:20][right])
    assert points[0].loss == pytest.approx(float(loss), rel=1e-5)
    assert points[6].loss > points[1].loss > points[0].loss
    assert points[6].risen == 1


def test_steps_of_a_curve_cross_the_ball_and_grow_with_it(trained, held_out, monkeypatch):
    met = []

    def run(estimator, params, threat, x, y, *, seed):
        met.append((params.eps_step, params.max_iter, params.num_random_init, threat.eps))
        return x.numpy()

    monkeypatch.setattr(whitebox_module, "run_attack", run)
    pgd = budgets.attack(method="pgd", eps_step=0.06, max_iter=50, num_random_init=3)
    params = CurveParams(n=5, radii=(0, 3), steps=(1, 2, 10, 50))
    list(curves(victim_of(trained, held_out), params, pgd))
    expected = [
        (0.06, 50, 1, 0),
        (0.18, 50, 1, 0.9),
        (0.3, 1, 1, 0.3),
        (0.3, 2, 1, 0.3),
        (0.06, 10, 1, 0.3),
        (0.06, 50, 1, 0.3),
    ]
    assert [tuple(map(float, row)) for row in met] == [pytest.approx(row) for row in expected]


def test_where_the_curves_cross_is_attacked_once(trained, held_out, monkeypatch):
    met = []

    def run(estimator, params, threat, x, y, *, seed):
        met.append((params.max_iter, threat.eps))
        return x.numpy()

    monkeypatch.setattr(whitebox_module, "run_attack", run)
    params = CurveParams(n=5, radii=(0, 1, 3), steps=(3, 6))
    points = list(curves(victim_of(trained, held_out), params, PGD))
    assert met == [(6, 0), (6, 0.3), (6, pytest.approx(0.9)), (3, 0.3)]
    assert [(p.curve, p.eps, p.steps) for p in points][-1] == ("steps", 0.3, 6)
    assert replace(points[-1], curve="eps") == points[1]


def test_a_curve_of_a_network_that_gets_nothing_right(held_out):
    some = held_out[1] != 7
    victim = victim_of(Always(7), (held_out[0][some], held_out[1][some]))
    for point in curves(victim, CurveParams(n=5, radii=(0, 1), steps=(0, 2)), PGD):
        assert point.accuracy == 0
        assert np.isnan(point.loss)


# The whole

CHECKS = [
    "ball",
    "deterministic",
    "logits",
    "gradients",
    "pgd-reach",
    "success-reproduced",
    "eps-0",
    "pgd-not-weaker",
    "doubling",
    "eps-curve",
    "loss-rises",
    "square-not-stronger",
    "whitebox-not-weaker",
    "label-leak",
]
PARAMS = EvaluateParams.model_validate(
    {
        "n": 1000,
        "whitebox": {"fgsm": FGSM, "pgd": PGD},
        "surrogate": PGD.model_copy(update={"num_random_init": 1}),
        "autoattack": budgets.autoattack(max_iter=5, targets=2, queries=30),
        "adaptive": budgets.adaptive(
            bank="nce", training=budgets.training(learning_rate=1e-3, epochs=1, batch_size=8)
        ),
        "curves": {"n": 8, "radii": [0, 1, 4], "steps": [0, 6]},
    }
)


def evaluated(victim: Victim, other: nn.Module, bank: DGNBank, train, **changes) -> Evaluation:
    surrogate = surrogate_images(replace(victim, net=other), PGD)
    lrp = victim.right.cpu().clone()
    lrp[:2] = False
    few = train[0][:60], train[1][:60]
    dgns, others = as_it_is((bank, few)), {"other": as_it_is(surrogate)}
    material = replace(Material(dgns, {"lrp": lrp}, others), **changes)
    return evaluate_all(victim, PARAMS, material, compute=FLOAT32)


@pytest.fixture(scope="module")
def whole(trained, held_out, other, bank, train) -> tuple[Victim, Evaluation, list[str]]:
    """A network, all that is found of it, and what was said on the way."""
    notes: list[str] = []

    def advance(note: str = "", steps: int = 1, *, resumed: bool = False) -> None:
        notes.extend([note] * steps)

    victim = victim_of(copy.deepcopy(trained), held_out, n=20)
    victim = replace(victim, advance=advance)
    return victim, evaluated(victim, other, bank, train), notes


def test_the_worst_case_is_no_better_than_any_attack(whole):
    victim, found, _ = whole
    assert list(found.stands) == ["clean", "transfer", "whitebox", "blackbox", "adaptive"]
    worst = found.worst()
    for protocol, attacks in found.stands.items():
        assert not (worst & ~found.left(protocol)).any()
        for stands in attacks.values():
            assert stands.shape == (20,)
            assert not (found.left(protocol) & ~stands).any()
    every = [stands for attacks in found.stands.values() for stands in attacks.values()]
    assert worst.tolist() == [all(stands[i] for stands in every) for i in range(20)]
    assert torch.equal(found.stands["clean"]["clean"], victim.right)


def test_every_attack_is_there_with_its_cost(whole):
    _, found, notes = whole
    assert list(found.stands["whitebox"]) == ["fgsm", "pgd", "apgd-ce", "apgd-t"]
    assert list(found.stands["blackbox"]) == ["from-other", "square"]
    assert list(found.stands["adaptive"]) == ["dgn", "dgn-any"]
    attacks = [(p, a) for p in ("whitebox", "blackbox", "adaptive") for a in found.stands[p]]
    assert list(found.costs) == attacks
    assert len([note for note in notes if note]) == len(attacks) + 2
    assert notes[-1] == "it: checks"


def test_every_check_is_there_once_and_about_this_network(whole):
    victim, found, _ = whole
    assert (
        [check.name for check in found.checks]
        == CHECKS
        == [row.name for row in NETWORK if not (row.quiet or row.protocol)]
    )
    assert {check.about for check in found.checks} == {victim.name}
    verdicts = {check.name: check.verdict for check in found.checks}
    sound = {"ball", "deterministic", "logits", "gradients", "success-reproduced", "eps-0"}
    assert {verdicts[name] for name in sound | {"loss-rises", "eps-curve", "label-leak"}} == {"ok"}
    assert verdicts["pgd-reach"] == "warn"  # two starts, six steps
    assert [point.curve for point in found.points] == ["eps"] * 3 + ["steps"] * 2


def test_the_whole_of_a_network_that_gets_nothing_right(held_out, other, bank, train):
    some = held_out[1] != 7
    victim = victim_of(Always(7), (held_out[0][some], held_out[1][some]), n=6)
    found = evaluated(victim, other, bank, train)
    assert not found.worst().any()
    assert [check.name for check in found.checks] == ["ball", "clean-above-chance", *CHECKS[1:]]
    gradients = {key: cost.gradients for key, cost in found.costs.items()}
    assert gradients.pop(("adaptive", "dgn")) == 60  # one epoch of what `evaluated` trains on
    assert set(gradients.values()) == {0}


def test_the_whole_on_one_image_without_sets_or_surrogates(trained, held_out, other, bank, train):
    right = trained(held_out[0]).argmax(1) == held_out[1]
    one = held_out[0][right][:1], held_out[1][right][:1]
    found = evaluated(victim_of(trained, one), other, bank, train, sets={}, surrogates={})
    assert list(found.stands) == ["clean", "whitebox", "blackbox", "adaptive"]
    assert found.worst().shape == (1,)
    assert [check.name for check in found.checks] == ["ball", "clean-above-chance", *CHECKS[1:]]


@pytest.mark.filterwarnings("ignore:there are .* points with zero gradient")
def test_the_whole_of_a_masked_network_says_so(trained, held_out, other, bank, train):
    victim = victim_of(Detached(trained), held_out)
    found = evaluated(victim, other, bank, train)
    verdicts = {check.name: check.verdict for check in found.checks}
    for name in ("gradients", "square-not-stronger", "whitebox-not-weaker", "loss-rises"):
        assert verdicts[name] == "fail", name
    assert list(found.stands["whitebox"])[-1] == "apgd-t-more"  # was tried, and helped nothing
    assert found.worst().float().mean() < found.left("whitebox").float().mean()


def test_whitebox_alone(trained, held_out):
    found = evaluate_whitebox(victim_of(trained, held_out), PARAMS)
    assert [one.attack for one in found.findings] == list(found.stands["whitebox"])
    assert list(found.stands) == ["whitebox"]
    assert list(found.stands["whitebox"]) == ["fgsm", "pgd", "apgd-ce", "apgd-t"]
    assert not found.checks
    for one in found.findings:
        assert torch.equal(found.stands["whitebox"][one.attack], one.stands)
