"""Every check of an evaluation on what is sound, and on what it is there to find."""

from __future__ import annotations

import copy
import inspect
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import budgets
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.settings import AttackParams, CurveParams
from deepcustom.data.arrays import AdversarialSet, Split
from deepcustom.evaluation import by_class, checks, curve_checks, sets
from deepcustom.evaluation.blackbox import blackbox, surrogate_images
from deepcustom.evaluation.check_table import FAILED, NETWORK
from deepcustom.evaluation.checks import Check
from deepcustom.evaluation.curves import curves, unlimited
from deepcustom.evaluation.files import checks_json
from deepcustom.evaluation.foretold import foretold
from deepcustom.evaluation.found import Finding
from deepcustom.evaluation.material import as_it_is
from deepcustom.evaluation.points import Point
from deepcustom.evaluation.victim import Outcome, Victim
from deepcustom.evaluation.whitebox import restarted
from deepcustom.training.compute import FLOAT32
from deepcustom.training.nets.base import Classifier

EPS = 0.3
THREAT = ThreatModel(EPS)
PGD = budgets.attack(method="pgd", eps_step=0.1, max_iter=8, num_random_init=1)
FGSM = budgets.attack(method="fgsm")
STRONG = budgets.attack(method="pgd", eps_step=0.01, max_iter=100, num_random_init=5)
AUTO = budgets.autoattack(max_iter=5, targets=2, queries=60)
CURVES = CurveParams(n=20, radii=(0, 0.5, 1, 4), steps=(1, 8))


class Scaled(nn.Module):
    """Logits so far apart that the softmax rounds to one and zeros: no gradient is left."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return 1e4 * self.net(x)


class Noisy(Scaled):
    """Other logits every time."""

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x)
        return logits + 10 * torch.randn_like(logits)


class Softmax(Scaled):
    """Probabilities."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).softmax(1)


class Aware(Scaled):
    """Answers for another image while a gradient is asked for."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.flip(3) if x.requires_grad else x)


class Rounded(Scaled):
    """Sees black and white alone: a step function, flat almost everywhere."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net((x > 0.5).float())


class Detached(Scaled):
    """Cuts the way back to the image."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.detach())


class Infinite(Scaled):
    """Overflows."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) * torch.inf


@dataclass(frozen=True)
class Bench:
    """Networks, and what the cases make with them, made once."""

    net: Classifier
    images: tuple[Tensor, Tensor]

    def victim(self, wrap: Callable[[nn.Module], nn.Module] | None = None) -> Victim:
        net = wrap(self.net).eval() if wrap else self.net
        return Victim("it", net, *self.images, THREAT, 10, 3, FLOAT32)

    def attacked(self, victim: Victim, params: AttackParams = PGD) -> Outcome:
        return restarted(victim, params.method, params, victim.right)

    def points(self, wrap=None) -> list[Point]:
        return list(curves(self.victim(wrap), CURVES, PGD))

    def transferred(self, victim: Victim) -> Tensor:
        """(n,) bool: what stands against images made against the plain network, right without."""
        images = surrogate_images(self.victim(), PGD)
        return next(iter(blackbox(victim, {"plain": as_it_is(images)}, AUTO))).run().stands

    def square(self, victim: Victim) -> Tensor:
        return next(iter(blackbox(victim, {}, AUTO))).run().stands


@pytest.fixture(scope="module")
def bench(trained, held_out) -> Bench:
    right = trained(held_out[0]).argmax(1) == held_out[1]
    # Twenty-four that the network gets right, and one that it does not.
    rows = torch.cat([right.nonzero()[:24, 0], (~right).nonzero()[:1, 0]])
    return Bench(copy.deepcopy(trained), (held_out[0][rows], held_out[1][rows]))


# What the cases are made of


def outside_by_a_pixel(bench: Bench) -> Check:
    x = bench.images[0].numpy()
    x_adv = x.copy()
    x_adv[3, 0, 5, 5] = np.float32(0.0 if x[3, 0, 5, 5] > 0.5 else 1.0)
    return checks.ball("lrp", x_adv, x, THREAT)


def ball_of_an_attack(bench: Bench) -> Check:
    victim = bench.victim()
    x_adv = bench.attacked(victim).x_adv
    return checks.ball("pgd", x_adv.numpy(), victim.x.numpy(), THREAT)


def deterministic(bench: Bench, wrap=None) -> Check:
    victim = bench.victim(wrap)
    return checks.deterministic("it", victim.net, victim.x)


def logits(bench: Bench, wrap=None) -> Check:
    victim = bench.victim(wrap)
    return checks.logits("it", victim.net, victim.x)


def reproduced(bench: Bench, wrap=None) -> Check:
    torch.manual_seed(1)
    victim = bench.victim(wrap)
    outcomes = [bench.attacked(victim, params) for params in (FGSM, PGD, WEAK)]
    unlike = sum(Finding.of(victim, outcome).unlike for outcome in outcomes)
    return checks.reproduced("it", unlike, sum(int(o.tried.sum()) for o in outcomes))


def zero_radius(bench: Bench, wrap=None) -> Check:
    torch.manual_seed(1)
    victim = bench.victim(wrap)
    clean = float(victim.right[: CURVES.n].double().mean())
    zero = next(curves(victim, CURVES, PGD))
    assert zero.eps == 0
    return curve_checks.zero_radius("it", clean, zero.accuracy)


def pgd_against_transfer(bench: Bench, wrap=None) -> Check:
    victim = bench.victim(wrap)
    strong, weak = bench.attacked(victim).stands, bench.transferred(victim)
    return checks.not_beaten("pgd", "it", strong, weak, ("PGD", "a set of another network"))


def doubled(bench: Bench, params: AttackParams) -> Check:
    """White-box alone, then PGD in earnest on what stands."""
    victim = bench.victim()
    left = bench.attacked(victim, params).stands
    after = restarted(victim, "doubled", PGD, left).stands
    return checks.doubled("it", left, after)


class Reader(nn.Module):
    """Reads the class off the corner where :func:`stamped` writes it, else asks the network."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) + 1000 * x[:, 0, 0, :10]


def stamped(bench: Bench) -> Tensor:
    """The true label as a pixel of the first row, which is black in every digit, within the ball."""
    x, y = bench.images
    x_adv = x.clone()
    x_adv[torch.arange(len(x)), 0, 0, y] += 0.2
    return x_adv


def label_leak(bench: Bench, x_adv: Tensor) -> Check:
    x, y = bench.images
    net = Reader(bench.net)
    clean, read = (net(images).argmax(1) == y for images in (x, x_adv))
    return checks.no_label_leak("it", clean, {"clean": clean, "lrp": read})


def label_in_perturbation(stamp: bool) -> Check:
    rng = np.random.default_rng(0)
    y = np.arange(200) % 10
    change = rng.uniform(-0.3, 0.3, (200, 1, 6, 6)).astype(np.float32)
    if stamp:
        change[np.arange(200), 0, 0, y % 6] = 3.0
        change[np.arange(200), 0, 1, y // 6] = 3.0
    return checks.label_in_perturbation("lrp", change, y, seed=0)


def above_chance(bench: Bench, right: Tensor) -> Check:
    return checks.above_chance("it", right, bench.images[1], 10)


def undefended(bench: Bench, params: AttackParams) -> Check:
    victim = bench.victim()
    return checks.undefended_falls(victim, bench.attacked(victim, params).stands)


WEAK = budgets.attack(method="pgd", eps_step=0.001, max_iter=1, num_random_init=0)
READS = {
    "train_target@mnist": ["data/prepared/mnist/train", "data/prepared/mnist/val"],
    "train_dgn@mnist-lrp": ["data/prepared/mnist/train", "models/target/mnist.safetensors"],
}
GUILTY = {**READS, "adversarial_train@mnist-nce": ["data/prepared/mnist/test"]}

Case = Callable[[Bench], Check]
CASES: dict[str, tuple[Case, Case]] = {
    "ball": (ball_of_an_attack, outside_by_a_pixel),
    "deterministic": (deterministic, lambda b: deterministic(b, Noisy)),
    "same_with_gradient": (
        lambda b: checks.same_with_gradient("it", b.victim().net, b.images[0][:20]),
        lambda b: checks.same_with_gradient("it", b.victim(Aware).net, b.images[0][:20]),
    ),
    "logits": (logits, lambda b: logits(b, Softmax)),
    "gradients": (
        lambda b: checks.gradients(b.victim()),
        lambda b: checks.gradients(b.victim(Scaled)),
    ),
    "reach": (
        lambda b: checks.reach("it", STRONG, THREAT),
        lambda b: checks.reach("it", STRONG.model_copy(update={"eps_step": 0.0059}), THREAT),
    ),
    "reproduced": (reproduced, lambda b: reproduced(b, Noisy)),
    "zero_radius": (zero_radius, lambda b: zero_radius(b, Noisy)),
    "not_beaten": (pgd_against_transfer, lambda b: pgd_against_transfer(b, Scaled)),
    "doubled": (lambda b: doubled(b, PGD), lambda b: doubled(b, WEAK)),
    "falls_with_eps": (
        lambda b: curve_checks.falls_with_eps("it", b.points()),
        lambda b: curve_checks.falls_with_eps("it", b.points(Detached)),
    ),
    "loss_rises": (
        lambda b: curve_checks.loss_rises("it", b.points()),
        lambda b: curve_checks.loss_rises("it", b.points(Rounded)),
    ),
    "no_label_leak": (
        lambda b: label_leak(b, b.attacked(b.victim()).x_adv),
        lambda b: label_leak(b, stamped(b)),
    ),
    "label_in_perturbation": (
        lambda b: label_in_perturbation(stamp=False),
        lambda b: label_in_perturbation(stamp=True),
    ),
    "above_chance": (
        lambda b: above_chance(b, b.victim().right),
        lambda b: above_chance(b, b.images[1] == 3),
    ),
    "undefended_falls": (lambda b: undefended(b, PGD), lambda b: undefended(b, WEAK)),
    "test_unread": (
        lambda b: checks.test_unread("mnist", READS),
        lambda b: checks.test_unread("mnist", GUILTY),
    ),
}
"""Function of the two modules → a case in which it is ok, and one in which it fails."""


def test_every_check_has_its_two_cases():
    """A new check needs a row above."""
    made = {
        name
        for module in (checks, curve_checks)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__
        and not name.startswith("_")
        and inspect.signature(function).return_annotation == "Check"
    }
    assert made == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_a_check_is_ok_where_all_is_well(name, bench):
    check = CASES[name][0](bench)
    assert check.verdict == "ok", check
    assert check.text.endswith(".")
    assert all(math.isfinite(value) for value in check.figures.values())


@pytest.mark.parametrize("name", CASES)
def test_a_check_fails_where_it_should(name, bench):
    check, ok = CASES[name][1](bench), CASES[name][0](bench)
    assert check.verdict == "fail", check
    assert check.text != ok.text
    assert (check.name, len(check.text) > 20) == (ok.name, True)
    assert json.loads(checks_json([check]))["checks"][0]["verdict"] == "fail"


def test_the_meaning_of_every_failure_is_told(bench):
    """A new check needs a row of check_table.NETWORK, or a text beside it."""
    fixed = {CASES[name][1](bench).name for name in CASES if name != "not_beaten"}
    assert {*fixed, by_class.CHECK, *(row.name for row in NETWORK)} == set(FAILED)
    assert len({row.name for row in NETWORK}) == len(NETWORK)
    assert all(text.endswith(".") for text in FAILED.values())


def test_names_are_unlike(bench):
    fixed = [name for name in CASES if name != "not_beaten"]  # which is told its name
    names = [CASES[name][1](bench).name for name in fixed if name not in ("zero_radius",)]
    assert len(set(names)) == len(names)


# What makes an attack blind, check by check


@pytest.mark.parametrize("wrap", [Rounded, Detached])
def test_gradients_that_are_missing_are_zero_gradients(wrap, bench):
    check = checks.gradients(bench.victim(wrap))
    assert check.verdict == "fail"
    assert check.figures == {"zero": 1.0, "not_finite": 0.0}
    assert "masked" in check.text


def test_a_network_that_is_not_frozen_has_gradients_all_the_same(bench):
    loose = replace(bench, net=copy.deepcopy(bench.net).requires_grad_(True))
    assert checks.gradients(loose.victim()).verdict == "ok"
    assert checks.gradients(loose.victim(Detached)).figures["zero"] == 1
    assert all(p.grad is None for p in loose.net.parameters())


def test_gradients_leave_the_images_as_they_are(bench):
    victim = bench.victim()
    checks.gradients(victim)
    assert not victim.x.requires_grad
    assert victim.counted.gradients == 0


def test_gradients_that_are_not_finite(bench):
    class Sharp(Scaled):
        def forward(self, x: Tensor) -> Tensor:
            return self.net(x) + (0 * x).sqrt().flatten(1).sum(1, keepdim=True)

    check = checks.gradients(bench.victim(Sharp))
    assert check.verdict == "fail"
    assert check.figures["not_finite"] == 1


def test_gradients_where_nothing_is_right_are_no_finding(bench):
    wrong = Victim(
        "it", bench.net, bench.images[0][-1:], bench.images[1][-1:], THREAT, 10, 0, FLOAT32
    )
    assert checks.gradients(wrong).figures == {"zero": 0, "not_finite": 0}


def test_masked_gradients_are_beaten_by_square_and_curves_tell(bench):
    victim = bench.victim(Scaled)
    pgd, square = bench.attacked(victim).stands, bench.square(victim)
    words = ("PGD", "Square")
    check = checks.not_beaten("square-not-stronger", "it", pgd, square, words)
    assert check.verdict == "fail"
    assert "fall to Square, but stand against PGD" in check.text
    assert check.figures["beaten"] == pytest.approx(int((pgd & ~square).sum()) / 25)
    plain = bench.victim()
    pgd, square = bench.attacked(plain).stands, bench.square(plain)
    assert checks.not_beaten("square-not-stronger", "it", pgd, square, words).verdict == "ok"
    points = bench.points(Scaled)
    assert curve_checks.loss_rises("it", points).verdict == "fail"


def test_a_step_function_is_found_by_the_curve_of_its_loss(bench):
    points = bench.points(Rounded)
    assert curve_checks.falls_with_eps("it", points).figures["last"] > 0.05
    assert curve_checks.loss_rises("it", points).figures["not_risen"] > 0.05


def test_noise_is_seen_in_every_check_that_looks_twice(bench):
    assert deterministic(bench, Noisy).figures["largest_difference"] > 0
    assert reproduced(bench, Noisy).figures["unlike"] > 0
    figures = zero_radius(bench, Noisy).figures
    assert figures["clean"] != figures["eps_0"]


def test_nan_each_time_is_the_same_answer(bench):
    class Undefined(Scaled):
        def forward(self, x: Tensor) -> Tensor:
            return self.net(x) / (torch.arange(len(x)) > 0).float()[:, None] * 0 + self.net(x)

    assert deterministic(bench, Undefined).verdict == "ok"


def test_training_mode_is_found(bench):
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(784), nn.Linear(784, 10))
    assert checks.deterministic("it", net.eval(), bench.images[0]).verdict == "ok"
    net[1].train()
    check = checks.deterministic("it", net, bench.images[0])
    assert (check.verdict, check.figures["training_mode"]) == ("fail", 1)


def test_outputs_that_are_not_finite_are_no_logits(bench):
    assert logits(bench, Infinite).verdict == "fail"
    assert logits(bench, Infinite).text.startswith("Outputs of 25 of 25 images are not finite;")


def test_log_probabilities_are_logits(bench):
    class Log(Scaled):
        def forward(self, x: Tensor) -> Tensor:
            return self.net(x).log_softmax(1)

    assert logits(bench, Log).verdict == "ok"


# Figures and bounds, by hand


def test_ball_says_how_many_lie_outside(bench):
    check = outside_by_a_pixel(bench)
    assert "1 of 25 images lie outside the eps=0.3 ball" in check.text
    assert check.figures == {"images": 25}


@pytest.mark.parametrize(
    ("step", "steps", "starts", "verdict", "reach"),
    [
        (0.01, 100, 5, "ok", 10 / 3),
        (0.012, 50, 5, "ok", 2),
        (0.01, 100, 4, "warn", 10 / 3),
        (0.1, 49, 5, "warn", 49 / 3),
        (0.1, 10, 0, "warn", 10 / 3),
        (0.01, 59, 5, "fail", 59 / 30),
    ],
)
def test_reach_by_hand(step, steps, starts, verdict, reach):
    pgd = budgets.attack(method="pgd", eps_step=step, max_iter=steps, num_random_init=starts)
    check = checks.reach("it", pgd, ThreatModel(0.3))
    assert check.figures == {
        "reach": pytest.approx(reach),
        "steps": steps,
        "restarts": starts,
    }
    assert check.verdict == verdict


def bools(n: int, true: int) -> Tensor:
    return torch.arange(n) < true


@pytest.mark.parametrize(
    ("beaten", "verdict"), [(0, "ok"), (2, "ok"), (3, "warn"), (10, "warn"), (11, "fail")]
)
def test_not_beaten_counts_image_by_image(beaten, verdict):
    """As many fall to both, but others."""
    strong, weak = bools(1000, 500), bools(1000, 500 - beaten)
    weak[900 : 900 + beaten] = True
    check = checks.not_beaten("name", "it", strong, weak, ("PGD", "FGSM"))
    assert (check.name, check.verdict) == ("name", verdict)
    assert check.figures == {"beaten": beaten / 1000, "n": 1000}
    assert check.text.startswith(f"{beaten} of 1000 images fall to FGSM")
    assert checks.beaten(strong, weak) == beaten / 1000


@pytest.mark.parametrize(
    ("gain", "verdict"), [(0, "ok"), (5, "ok"), (6, "warn"), (10, "warn"), (11, "fail")]
)
def test_doubled_by_hand(gain, verdict):
    check = checks.doubled("it", bools(1000, 400), bools(1000, 400 - gain))
    assert (check.verdict, check.figures["change"]) == (verdict, gain / 1000)


def two_pixels(pairs: Tensor, threat: ThreatModel, net: nn.Module | None = None) -> Victim:
    """Images of two pixels, whose logits are the pixels; the first is the right one."""
    x, y = pairs.view(-1, 1, 1, 2), torch.zeros(len(pairs), dtype=torch.long)
    return Victim("target", (net or nn.Flatten()).eval(), x, y, threat, 2, 3, FLOAT32)


@pytest.mark.parametrize(
    ("left", "foretells", "verdict"),
    [
        (0, None, "ok"),
        (10, None, "ok"),
        (11, 0, "warn"),
        (50, 0, "warn"),
        (51, 0, "fail"),
        (501, 500, "ok"),
        (559, 500, "ok"),
        (561, 500, "warn"),
        (601, 500, "fail"),
    ],
)
def test_undefended_by_hand(left: int, foretells: int | None, verdict: str) -> None:
    pairs = torch.tensor([[0.6, 0.4]]).repeat(1000, 1)
    pairs[: foretells or 0] = torch.tensor([0.9, 0.1])
    check = checks.undefended_falls(two_pixels(pairs, THREAT), bools(1000, left))
    figures = {"left": left / 1000, **({} if foretells is None else {"foretold": foretells / 1000})}
    assert check.verdict == verdict
    assert check.figures == pytest.approx(figures)
    assert ("too weak" in check.text) == (verdict != "ok")


@pytest.mark.parametrize(
    ("norm", "pair", "eps", "stands"),
    [
        ("linf", (0.9, 0.1), 0.39, True),
        ("linf", (0.9, 0.1), 0.41, False),
        ("l2", (0.9, 0.1), 0.56, True),
        ("l2", (0.9, 0.1), 0.57, False),
        ("linf", (0.1, 0.9), 0.01, False),  # wrong without an attack
        ("linf", (1.0, 0.0), 0.49, True),
        ("linf", (1.0, 0.0), 0.51, False),
    ],
)
def test_foretold_by_hand(norm: str, pair: tuple[float, float], eps: float, stands: bool) -> None:
    victim = two_pixels(torch.tensor([pair]), ThreatModel(eps, norm=norm))
    assert foretold(victim).tolist() == [stands]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_what_a_pixel_cannot_do_is_not_foretold(norm: str) -> None:
    """It lends the right class its lead when it brightens, so black helps nobody."""

    class Black(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            first = x.flatten(1)[:, :1]
            return torch.cat([0.1 + first, torch.zeros_like(first)], 1)

    given = ThreatModel(0.3, norm=norm)
    assert foretold(two_pixels(torch.tensor([[0.0, 0.5]]), given, Black())).tolist() == [True]
    assert foretold(two_pixels(torch.tensor([[0.1, 0.5]]), given, Black())).tolist() == [True]


class Lead(nn.Module):
    """Its first class leads over the other by what is linear in the pixels."""

    def __init__(self, weights: Tensor, more: float) -> None:
        super().__init__()
        self.weights, self.more = weights, more

    def forward(self, x: Tensor) -> Tensor:
        own = x.flatten(1) @ self.weights + self.more
        return torch.stack([own, torch.zeros_like(own)], 1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_nothing_in_ball_and_range_takes_more_than_is_foretold(norm: str) -> None:
    """Against every change on a fine grid; some pixels come to the end of their range."""
    weights, threat = torch.tensor([10.0, 1.0]), ThreatModel(0.5, norm=norm)
    pairs = torch.tensor([[0.9, 0.5], [0.2, 0.5], [0.0, 0.9], [0.45, 0.3], [0.6, 0.05]])
    line = torch.linspace(-0.5, 0.5, 401)
    grid = torch.cartesian_prod(line, line)
    grid = grid[grid.norm(dim=1) <= 0.5] if norm == "l2" else grid
    for pair in pairs:
        inside = grid[((pair + grid >= 0) & (pair + grid <= 1)).all(1)]
        most = -float((inside @ weights).min())

        for more in (-0.05, 0.05):
            net = Lead(weights, most + more - float(pair @ weights))
            found = foretold(two_pixels(pair[None], threat, net))
            assert found.tolist() == [more > 0]


@pytest.mark.parametrize("wrap", [Detached, Infinite])
def test_no_gradient_foretells_nothing(wrap: type[nn.Module]) -> None:
    victim = two_pixels(torch.tensor([[0.9, 0.1]]), THREAT, wrap(nn.Flatten()))
    assert foretold(victim).tolist() == [False]


def test_a_small_ball_makes_no_attack_too_weak(bench: Bench) -> None:
    """The network keeps much there, and its gradients foretell it."""
    victim = replace(bench.victim(), threat=ThreatModel(0.02))
    pgd = budgets.attack(method="pgd", eps_step=0.005, max_iter=20, num_random_init=1)
    check = checks.undefended_falls(victim, bench.attacked(victim, pgd).stands)
    assert check.figures["left"] > 0.05
    assert check.verdict == "ok"


def eps_curve(*accuracies: float) -> list[Point]:
    points = [Point("eps", i / 2, 100, a, 1.0, 1.0) for i, a in enumerate(accuracies)]
    return [*reversed(points), Point("steps", 0.3, 5, 0.9, 1.0, 1.0)]


@pytest.mark.parametrize(
    ("accuracies", "verdict", "last", "rise"),
    [
        ((0.9, 0.5, 0.0), "ok", 0.0, 0.0),
        ((0.9, 0.5, 0.03), "warn", 0.03, 0.0),
        ((0.9, 0.5, 0.06), "fail", 0.06, 0.0),
        ((0.5, 0.515, 0.0), "warn", 0.0, 0.015),
        ((0.5, 0.53, 0.0), "fail", 0.0, 0.03),
        ((0.5, 0.53, 0.02), "fail", 0.02, 0.03),
        ((0.5, math.nan), "fail", math.nan, math.nan),
        ((0.9, 0.7), "warn", 0.7, 0.0),  # 0.5 is a limit still
        ((0.9, 0.01), "ok", 0.01, 0.0),
        ((0.6, 0.7), "fail", 0.7, 0.1),
    ],
)
def test_falls_with_eps_by_hand(accuracies, verdict, last, rise):
    check = curve_checks.falls_with_eps("it", eps_curve(*accuracies))
    assert check.verdict == verdict
    assert check.figures["last"] == pytest.approx(last, nan_ok=True)
    assert check.figures["largest_rise"] == pytest.approx(rise, nan_ok=True)


@pytest.mark.parametrize("eps", [0.02, 1e-5, 0.4])
def test_a_network_that_withstands_small_balls_is_not_suspected(eps, bench):
    """A radius is added in which an attack must win, and there this one does; there alone is it judged."""
    victim = replace(bench.victim(), threat=ThreatModel(eps))
    radii = CURVES.model_copy(update={"radii": (0, 1, 1.5)})
    points = [point for point in curves(victim, radii, PGD) if point.curve == "eps"]
    assert [point.eps for point in points] == pytest.approx(
        [0, eps, 1.5 * eps, 0.75][: 3 + (eps < 0.4)]
    )
    assert curve_checks.falls_with_eps("it", points).verdict == "ok"
    if eps < 0.4:
        misled = [*points[:3], replace(points[3], accuracy=0.9)]
        assert "without a limit must succeed" in curve_checks.falls_with_eps("it", misled).text
        few = curve_checks.falls_with_eps("it", points[:3])
        assert (few.verdict, "let a radius reach 0.75" in few.text) == ("warn", True)


def test_a_ball_below_rounding_is_told_of():
    pgd = budgets.attack(method="pgd", eps_step=0.01, max_iter=100, num_random_init=5)
    check = checks.reach("it", pgd, ThreatModel(1e-9))
    assert (check.verdict, "nothing was attacked" in check.text) == ("fail", True)
    still = Point("steps", 1e-9, 50, 0.9, 1.0, 0.0)
    assert curve_checks.loss_rises("it", [still]).verdict == "ok"


def test_in_l2_a_ball_below_rounding_has_a_larger_radius():
    """Its length is spread over all pixels: an attack leaves the image as it is."""
    x = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    small, large = (ThreatModel(eps, norm="l2") for eps in (2e-5, 2e-2))
    change = large.ball.steepest(torch.randn(x.shape, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(small.project(x + small.eps * change, x), x)
    pgd = budgets.attack(method="pgd", eps_step=0.01, max_iter=100, num_random_init=5)
    for threat, failed in ((small, True), (large, False)):
        victim = Victim("it", nn.Identity(), x, torch.zeros(2), threat, 10, 3, FLOAT32)
        least = unlimited(victim, checks.ROUNDING)
        said = checks.reach("it", pgd, threat, least).text
        assert ("nothing was attacked" in said) is failed
        still = Point("steps", threat.eps, 50, 0.9, 1.0, 0.0)
        assert (curve_checks.loss_rises("it", [still], least).verdict == "ok") is failed


def test_steps_longer_than_the_radius_warn():
    pgd = budgets.attack(method="pgd", eps_step=0.03, max_iter=100, num_random_init=5)
    check = checks.reach("it", pgd, ThreatModel(0.02))
    assert (check.verdict, "jumps from border to border" in check.text) == ("warn", True)
    assert checks.reach("it", pgd, ThreatModel(0.03)).verdict == "ok"


@pytest.mark.parametrize(
    ("hits", "n", "verdict"),
    [(12, 100, "fail"), (19, 100, "warn"), (30, 100, "ok"), (0, 100, "fail"), (1, 1, "warn")],
)
def test_above_chance_by_hand(hits, n, verdict):
    check = checks.above_chance("it", bools(n, hits), torch.arange(n) % 10, 10)
    assert check.verdict == verdict
    assert check.figures["clean"] == hits / n
    assert ("was the normalisation forgotten" in check.text) == (n > 1 and verdict != "ok")


@pytest.mark.parametrize(
    ("risen", "verdict"), [(1.0, "ok"), (0.995, "ok"), (0.97, "warn"), (0.9, "fail")]
)
def test_loss_rises_looks_at_the_most_steps(risen, verdict):
    points = [
        Point("steps", 0.3, 50, 0.1, 3.0, risen),
        Point("steps", 0.3, 1, 0.5, 1.0, 0.5),
        Point("eps", 0.9, 100, 0.0, 9.0, 0.0),
    ]
    check = curve_checks.loss_rises("it", points)
    assert check.verdict == verdict
    assert check.figures == {"not_risen": pytest.approx(1 - risen), "loss": 3.0}


def test_loss_of_a_network_that_is_never_right_is_no_finding():
    point = Point("steps", 0.3, 50, 0.0, math.nan, math.nan)
    assert curve_checks.loss_rises("it", [point]).verdict == "ok"


@pytest.mark.parametrize(("gain", "verdict"), [(-200, "ok"), (0, "ok"), (9, "ok"), (11, "fail")])
def test_label_leak_by_hand(gain, verdict):
    clean = bools(1000, 800)
    sets = {"fgsm": bools(1000, 100), "lrp": bools(1000, 800 + gain)}
    check = checks.no_label_leak("it", clean, sets)
    assert (check.verdict, "lrp" in check.text) == (verdict, verdict == "fail")
    assert checks.no_label_leak("it", clean, {}).verdict == "ok"


@pytest.mark.parametrize("labels", [[0, 0, 1], [0, 1, 2, 3, 4], [0] * 5 + [1, 1]])
def test_labels_of_which_there_are_few_are_read_without_error(labels):
    y = np.array(labels)
    change = np.random.default_rng(0).uniform(-1, 1, (len(y), 1, 2, 2)).astype(np.float32)
    figures = checks.label_in_perturbation("lrp", change, y, seed=0).figures
    assert 0 <= figures["read"] <= 1
    assert 0 < figures["chance"] <= 1


def test_reading_the_test_split_is_told_by_name():
    check = checks.test_unread("mnist", GUILTY)
    assert check.text.startswith("adversarial_train@mnist-nce read the test split")
    assert check.figures == {"runs": 3, "that_read_test": 1}
    deeper = {"train_dgn@mnist-lrp": ["data/adversarial/mnist/test/lrp"]}
    assert checks.test_unread("mnist", deeper).verdict == "fail"
    like = {"train_dgn@mnist-lrp": ["data/prepared/mnist/train", "data/latest/mnist"]}
    assert checks.test_unread("mnist", like).verdict == "ok"
    assert checks.test_unread("mnist", {}).verdict == "warn"


def test_reproduced_counts_what_was_tried_alone(bench):
    victim = bench.victim()
    outcome = bench.attacked(victim)
    found = Finding.of(victim, outcome)
    assert (found.unlike, int(found.tried.sum()), len(found.stands)) == (0, 24, 25)
    lied = replace(outcome, stands=~outcome.stands)
    assert Finding.of(victim, lied).unlike == 24


@pytest.mark.parametrize(("unlike", "verdict"), [(0, "ok"), (1, "warn"), (2, "fail")])
def test_reproduced_by_hand(unlike, verdict):
    check = checks.reproduced("it", unlike, 2000)
    assert check.figures == {"unlike": unlike, "predictions": 2000}
    assert check.verdict == verdict
    assert checks.reproduced("it", 0, 0).verdict == "ok"


def test_zero_radius_by_hand():
    assert curve_checks.zero_radius("it", 0.9, 0.9).verdict == "ok"
    assert curve_checks.zero_radius("it", 0.9, 0.899).verdict == "fail"
    assert curve_checks.zero_radius("it", 0.9, math.nan).verdict == "fail"
    assert curve_checks.zero_radius("it", 0.9, None).verdict == "warn"


def test_the_search_for_a_label_leak_does_not_hold_more_values_than_it_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of large images fewer are searched."""
    shape = (400, 1, 8, 8)
    y = np.arange(400, dtype=np.uint8) % 2
    made = AdversarialSet(np.zeros(shape, np.uint8), np.zeros(shape, np.float32), y, np.arange(400))
    split = Split(made.x, y, made.index)
    stored = sets.StoredSet("a", "f" * 32, made)

    def searched() -> float:
        cpu = torch.device("cpu")
        found = sets.checked(stored, split, ThreatModel(0.1), cpu, seed=0)[2]
        return next(c.figures["n"] for c in found if c.name == "label-in-perturbation")

    real = checks.label_in_perturbation

    def counting(attack: str, change: np.ndarray, labels: np.ndarray, seed: int) -> Check:
        return replace(real(attack, change, labels, seed), figures={"n": float(len(change))})

    monkeypatch.setattr(checks, "label_in_perturbation", counting)
    assert searched() == 400
    monkeypatch.setattr(sets, "_LEAK_VALUES", 150 * 64)
    assert searched() == 150
