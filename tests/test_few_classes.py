"""Subjects of two and three classes: every attack and every check, and what cannot be as with ten."""

from __future__ import annotations

import math

import budgets
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deepcustom.attacks.art import art_classifier, run_attack
from deepcustom.attacks.bank import DGNBank, ready
from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.settings import DLR_CLASSES, EvaluateParams
from deepcustom.evaluation import checks
from deepcustom.evaluation import whitebox as whitebox_module
from deepcustom.evaluation.blackbox import surrogate_images
from deepcustom.evaluation.check_table import NETWORK
from deepcustom.evaluation.found import Evaluation
from deepcustom.evaluation.full import evaluate_all
from deepcustom.evaluation.material import Material, as_it_is
from deepcustom.evaluation.victim import Attack, Victim, attempt
from deepcustom.evaluation.whitebox import MORE, spend_more, target_margin, whitebox
from deepcustom.training.compute import FLOAT32
from deepcustom.training.fit import train_classifier
from deepcustom.training.job import Job
from deepcustom.training.nets.mnist import MnistGenerator

Images = tuple[Tensor, Tensor]
PGD = budgets.attack(method="pgd", eps_step=0.1, max_iter=8, num_random_init=2)
PARAMS = EvaluateParams.model_validate(
    {
        "n": 1000,
        "whitebox": {"fgsm": budgets.attack(method="fgsm"), "pgd": PGD},
        "surrogate": PGD.model_copy(update={"num_random_init": 1}),
        "autoattack": budgets.autoattack(max_iter=8, queries=30),
        "adaptive": budgets.adaptive(
            bank="nce", training=budgets.training(learning_rate=1e-3, epochs=1, batch_size=8)
        ),
        "curves": {"n": 8, "radii": [0, 1, 4], "steps": [0, 8]},
    }
)


def of_few(images: Images, classes: int, n: int) -> Images:
    """The first images of the first classes."""
    rows = (images[1] < classes).nonzero().flatten()[:n]
    return images[0][rows], images[1][rows]


def network(classes: int, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 20), nn.ReLU(), nn.Linear(20, classes))


class Scaled(nn.Module):
    """So sure of itself that cross entropy has no gradient left."""

    def __init__(self, net: nn.Module, by: float) -> None:
        super().__init__()
        self.net, self.by = net, by

    def forward(self, x: Tensor) -> Tensor:
        return self.by * self.net(x)


def victim_of(net: nn.Module, images: Images, classes: int) -> Victim:
    return Victim("it", net, *images, ThreatModel(0.3), classes, 3, FLOAT32)


@pytest.fixture(scope="module", params=[2, 3])
def few(request, train: Images, held_out: Images) -> Victim:
    """An undefended network of two or three classes, and images of them."""
    classes = request.param
    net, images = network(classes), of_few(train, classes, 200)
    budget = budgets.training(learning_rate=3e-3, epochs=5, batch_size=32)
    train_classifier(net, images, (images[0][:0], images[1][:0]), budget, Job(0, FLOAT32))
    net.eval().requires_grad_(False)
    victim = victim_of(net, of_few(held_out, classes, 24), classes)
    assert victim.right.float().mean() > 0.9
    return victim


@pytest.fixture(scope="module")
def whole(few: Victim, train: Images) -> Evaluation:
    """All that is found of it."""
    bank = []
    for label in range(few.num_classes):
        torch.manual_seed(label)
        bank.append(ready(MnistGenerator(), torch.device("cpu")))
    other = network(few.num_classes, seed=9).eval().requires_grad_(False)
    surrogate = surrogate_images(victim_of(other, (few.x, few.y), few.num_classes), PGD)
    dgns = DGNBank("few", "nce", "perturbation", bank), of_few(train, few.num_classes, 20)
    material = Material(
        as_it_is(dgns), {"lrp": few.right.cpu().clone()}, {"other": as_it_is(surrogate)}
    )
    return evaluate_all(few, PARAMS, material, compute=FLOAT32)


def test_every_attack_and_check_is_there(whole: Evaluation) -> None:
    attacks = [name for name in whole.stands["whitebox"] if name != MORE]
    assert attacks == ["fgsm", "pgd", "apgd-ce", "apgd-t"]
    assert list(whole.stands["blackbox"]) == ["from-other", "square"]
    assert list(whole.stands["adaptive"]) == ["dgn", "dgn-any"]
    assert [check.name for check in whole.checks] == [
        row.name for row in NETWORK if not (row.quiet or row.protocol)
    ]
    figures = [value for check in whole.checks for value in check.figures.values()]
    assert all(math.isfinite(value) for value in figures)


def test_an_undefended_network_falls_and_the_attacks_are_believed(whole: Evaluation) -> None:
    assert not whole.worst().any()
    verdicts = {check.name: check.verdict for check in whole.checks}
    assert verdicts.pop("pgd-reach") == "warn"  # two starts, eight steps
    assert set(verdicts.values()) == {"ok"}, verdicts


def apgd_t(victim: Victim, **changes: int) -> Attack:
    """The last of the series, on all that the network gets right."""
    params = budgets.autoattack(max_iter=8, **changes)
    *_, last = whitebox(victim, {}, params, {})
    return last


def test_targeted_apgd_breaks_alone_what_the_network_gets_right(few: Victim) -> None:
    outcome = apgd_t(few).run()
    assert torch.equal(outcome.tried, few.right)
    assert not outcome.stands.any()


def test_a_very_sure_network_stops_cross_entropy_and_not_the_margin(few: Victim) -> None:
    sure = victim_of(Scaled(few.net, 1e4), (few.x, few.y), few.num_classes)
    params = budgets.autoattack(max_iter=8)
    left = {
        name: attempt(
            sure, "whitebox", name, sure.right, whitebox_module._apgd(sure, name, params)
        ).stands.sum()
        for name in ("apgd-ce", "apgd-t")
    }
    assert left["apgd-t"] == 0
    assert left["apgd-ce"] > 0.5 * sure.right.sum()


def test_the_third_class_is_a_target_too() -> None:
    """The first pixel leads to the second class and the ball ends before it; the second to the third."""

    class Corners(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            a, b = x[:, 0, 0, 0], x[:, 0, 0, 1]
            return torch.stack([torch.ones_like(a), 0.9 + 0.2 * a, 4 * b], 1)

    x, y = torch.zeros(4, 1, 2, 2), torch.zeros(4, dtype=torch.long)
    victim = Victim("it", Corners(), x, y, ThreatModel(0.3), 3, 3, FLOAT32)
    assert apgd_t(victim, targets=1).run().stands.all()
    assert not apgd_t(victim, targets=9).run().stands.any()  # more than there are


def test_the_margin_by_hand() -> None:
    logits = torch.tensor([[2.0, -1.0, 5.0], [0.5, 4.0, 1.0]])
    found = target_margin(logits, torch.tensor([0, 1]), torch.tensor([2, 0]))
    assert found.tolist() == [3.0, -3.5]
    two = target_margin(logits[:, :2], torch.tensor([0, 1]), torch.tensor([1, 0]))
    assert two.tolist() == [-3.0, -3.5]


@pytest.mark.parametrize("classes", [2, 3, DLR_CLASSES, 10])
def test_the_kept_scores_know_which_loss_it_was(classes: int) -> None:
    """And those of four classes and more are what they were."""
    images = torch.zeros(3, 1, 28, 28), torch.zeros(3, dtype=torch.long)
    victim = victim_of(network(classes).eval().requires_grad_(False), images, classes)
    cross_entropy, targeted = whitebox(victim, {}, PARAMS.autoattack, {})
    more = spend_more(victim, PARAMS.autoattack, victim.right)
    usual = {"max_iter", "num_random_init", "batch_size", "rows"}
    extra = {"loss"} if classes < DLR_CLASSES else set()
    assert set(cross_entropy.settings) == usual
    assert set(targeted.settings) == set(more.settings) == usual | {"targets"} | extra


def test_arts_attacks_follow_the_gradient_of_the_true_class(few: Victim) -> None:
    """ART treats labels of two classes in a way of its own; here they are class numbers."""
    estimator = art_classifier(few.net, (1, 28, 28), few.num_classes, few.compute.device)
    fgsm = PARAMS.whitebox["fgsm"]
    made = run_attack(estimator, fgsm, few.threat, few.x, few.y)
    x = few.x.clone().requires_grad_()
    loss = nn.functional.cross_entropy(few.net(x), few.y, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, x)
    wanted = few.threat.project(few.x + few.threat.eps * gradient.sign(), few.x)
    assert np.abs(made - wanted.numpy()).max() < 1e-6


@pytest.mark.parametrize(
    ("stamped", "verdict"), [(0.0, "ok"), (0.55, "warn"), (1.0, "fail")], ids=["no", "half", "all"]
)
@pytest.mark.parametrize("classes", [2, 3])
def test_a_label_that_is_read_off_is_found_where_chance_is_high(
    classes: int, stamped: float, verdict: str
) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(1200) % classes
    change = rng.uniform(-0.3, 0.3, (1200, 1, 2, 2)).astype(np.float32)
    told = rng.uniform(size=1200) < stamped
    change[told, 0, 0, 0] = 3.0 * (y[told] == 0)
    change[told, 0, 0, 1] = 3.0 * (y[told] == 1)
    change[~told, 0, 0, :] = 0.0
    check = checks.label_in_perturbation("lrp", change, y, seed=0)
    assert check.verdict == verdict, check
    assert check.figures["chance"] == pytest.approx(1 / classes, abs=0.02)
