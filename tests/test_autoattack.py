"""AutoAttack as a protocol: the verdicts of its authors' package, whatever happens in between."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import budgets
import pytest
import torch
from pyautoattack import AutoAttack
from pyautoattack.square import SquareAttack
from torch import Tensor, nn

from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.errors import InputError
from deepcustom.base.settings import AutoAttackParams, EvaluateParams
from deepcustom.evaluation.autoattack import PROTOCOL, SEED, autoattack, warnings_of
from deepcustom.evaluation.blackbox import square_attack
from deepcustom.evaluation.found import Evaluation
from deepcustom.evaluation.full import evaluate_all, evaluate_whitebox
from deepcustom.evaluation.material import Material
from deepcustom.evaluation.price import published
from deepcustom.evaluation.results import CLEAN
from deepcustom.evaluation.score_store import Pieces, ScoreStore
from deepcustom.evaluation.square import room
from deepcustom.evaluation.victim import Attack, Victim
from deepcustom.training.compute import FLOAT32

CLASSES, IMAGES, BATCH = 5, 14, 8
ORDER = {
    "standard": ["apgd-ce", "apgd-t", "fab-t", "square"],
    "plus": ["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"],
    "rand": ["apgd-ce", "apgd-dlr"],
}


class Small(nn.Module):
    """Two layers, drawn; a kink in between, so that attacks differ."""

    def __init__(self, classes: int = CLASSES, side: int = 4) -> None:
        super().__init__()
        dice = torch.Generator().manual_seed(3)
        self.first = nn.Parameter(torch.randn(24, side**2, generator=dice))
        self.second = nn.Parameter(torch.randn(classes, 24, generator=dice))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu((x.flatten(1) - 0.5) @ self.first.T) @ self.second.T


def victim(
    net: nn.Module | None = None,
    eps: float = 0.06,
    classes: int = CLASSES,
    norm: str = "linf",
    side: int = 4,
) -> Victim:
    net = (net or Small(classes, side)).eval().requires_grad_(False)
    x = torch.rand(IMAGES, 1, side, side, generator=torch.Generator().manual_seed(0))
    y = net(x).argmax(1)
    y[:3] = (y[:3] + 1) % classes  # which it gets wrong
    return Victim("small", net, x, y, ThreatModel(eps, norm=norm), classes, 1, FLOAT32)


def params(version: str | None = "standard") -> AutoAttackParams:
    return budgets.autoattack(max_iter=3, targets=2, queries=10, batch_size=BATCH, version=version)


def plainly(of: Victim, version: str) -> Tensor:
    """Which images the package, called as its authors do, leaves."""
    norm = {"linf": "Linf", "l2": "L2"}[of.threat.norm]
    made = AutoAttack(of.net, norm=norm, eps=of.threat.eps, seed=SEED, version=version)
    made.apgd_targeted.n_target_classes = made.fab.n_target_classes = of.num_classes - 1
    x_adv, _ = made.run_standard_evaluation(of.x, of.y, batch_size=BATCH)
    return of.net(x_adv).argmax(1) == of.y


def ours(of: Victim, version: str, store: ScoreStore | None = None) -> tuple[Evaluation, Pieces]:
    found, pieces = Evaluation(), Pieces(of, "weights", store or ScoreStore())
    for attack in autoattack(of, params(version), found.stands):
        found.add(pieces.finding(attack))
    return found, pieces


@pytest.mark.parametrize("version", ORDER)
def test_verdicts_are_those_of_the_package_called_plainly(version: str) -> None:
    found, _ = ours(victim(), version)
    assert list(found.stands[PROTOCOL]) == ORDER[version]
    last = found.stands[PROTOCOL][ORDER[version][-1]]
    assert last.tolist() == plainly(victim(), version).tolist()
    assert 0 < int(last.sum()) < int(victim().right.sum()), "some fall and some stand"
    left = [int(stands.sum()) for stands in found.stands[PROTOCOL].values()]
    assert left == sorted(left, reverse=True)
    assert all(one.ball.verdict == "ok" and not one.unlike for one in found.findings)
    assert found.costs[PROTOCOL, "apgd-ce"].gradients > 0


def test_verdicts_in_l2_are_those_of_the_package() -> None:
    of = victim(eps=0.3, norm="l2", side=8)  # of a size that Square's authors' code takes
    found, _ = ours(of, "standard")
    last = found.stands[PROTOCOL]["square"]
    assert last.tolist() == plainly(of, "standard").tolist()
    assert 0 < int(last.sum()) < int(of.right.sum())
    assert all(one.ball.verdict == "ok" and not one.unlike for one in found.findings)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (24, 24), (12, 36), (17, 3), (1, 1)])
def test_square_in_l2_takes_images_of_every_size(height: int, width: int) -> None:
    """Its authors' code ends with an error in each of these."""
    torch.manual_seed(0)
    x, eps = torch.rand(20, 2, height, width), 0.4
    net = nn.Sequential(nn.Flatten(), nn.Linear(2 * height * width, 4)).requires_grad_(False).eval()
    net[1].bias.copy_(-0.5 * net[1].weight.sum(1))  # every class is somewhere near
    y, threat = net(x).argmax(1), ThreatModel(eps, norm="l2")
    of = Victim("small", net, x, y, threat, 4, 1, FLOAT32)
    plain = SquareAttack(net, norm="L2", eps=1e-3, n_queries=2, device="cpu")
    with pytest.raises((RuntimeError, ZeroDivisionError)), torch.no_grad():
        plain.perturb(x, y)
    with torch.no_grad():
        found = square_attack(of, budgets.autoattack(queries=50))(x, y)
    fallen = net(found).argmax(1) != y
    assert found.shape == x.shape
    assert float((found - x).flatten(1).norm(dim=1).max()) <= eps + 1e-5
    assert fallen.any()
    assert len(ours(of, "standard")[0].stands[PROTOCOL]["square"]) == 20


def test_the_room_of_square_is_what_its_authors_code_takes() -> None:
    for height in range(1, 26):
        for width in (1, 2, 3, 11, 24):
            taller, wider = room(height, width)
            assert height <= taller < height + 5
            assert width <= wider <= width + 5
            x = torch.rand(1, 1, taller, wider)
            net = nn.Sequential(nn.Flatten(), nn.Linear(taller * wider, 4)).eval()
            attack = SquareAttack(net, norm="L2", eps=1e-3, n_queries=1, device="cpu")
            with torch.no_grad():
                attack.perturb(x, net(x).argmax(1))
    assert [room(*size) for size in ((28, 28), (32, 32), (224, 224))] == [
        (28, 28),
        (32, 32),
        (224, 224),
    ]


def test_after_an_interrupt_the_rest_is_made_and_the_verdicts_are_the_same(tmp_path: Path) -> None:
    of, store = victim(), ScoreStore(tmp_path, {"a": 1})
    whole, _ = ours(of, "standard")
    found, pieces = Evaluation(), Pieces(of, "weights", store)
    store.__enter__()
    for attack in islice(autoattack(of, params(), found.stands), 2):
        found.add(pieces.finding(attack))
    store.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    with store:
        again, pieces = ours(of, "standard", store)
    assert (pieces.taken, pieces.made) == (2, 2)
    for name, stands in whole.stands[PROTOCOL].items():
        assert again.stands[PROTOCOL][name].tolist() == stands.tolist()


def test_where_nothing_is_left_the_other_attacks_cost_nothing() -> None:
    found, _ = ours(victim(eps=0.9), "standard")
    assert not found.stands[PROTOCOL]["square"].any()
    assert found.costs[PROTOCOL, "square"].queries < 5000


def test_too_few_classes_are_one_line() -> None:
    with pytest.raises(InputError, match="needs 4 classes or more, and there are 3"):
        list(autoattack(victim(classes=3), params(), {}))
    assert list(autoattack(victim(classes=3), params(None), {})) == []


def test_the_white_box_series_takes_what_its_apgd_did() -> None:
    tree = {
        "n": IMAGES,
        "whitebox": {
            "fgsm": budgets.attack(method="fgsm").model_dump(),
            "pgd": budgets.attack(
                method="pgd", eps_step=0.02, max_iter=3, num_random_init=1
            ).model_dump(),
        },
        "surrogate": budgets.attack(
            method="pgd", eps_step=0.02, max_iter=3, num_random_init=1
        ).model_dump(),
        "autoattack": params().model_dump(),
        "adaptive": {
            "bank": "b",
            "images_per_class": None,
            "training": budgets.training(learning_rate=0.1, epochs=1, batch_size=8).model_dump(),
        },
        "curves": {"n": 4, "radii": [0, 1], "steps": [1, 2]},
    }
    settings = EvaluateParams.model_validate(tree)
    found = evaluate_all(victim(), settings, Material(None, {}, {}), compute=FLOAT32)
    white, auto = found.stands["whitebox"], found.stands[PROTOCOL]
    before = white["fgsm"] & white["pgd"]
    assert white["apgd-ce"].tolist() == (before & auto["apgd-ce"]).tolist()
    assert white["apgd-t"].tolist() == (white["apgd-ce"] & auto["apgd-t"]).tolist()
    quick = evaluate_whitebox(victim(), settings).stands
    assert {name: list(quick[name]) for name in quick} == {"whitebox": ["fgsm", "pgd"]}
    for name in ("fgsm", "pgd"):
        assert quick["whitebox"][name].tolist() == white[name].tolist()
    assert found.costs["whitebox", "apgd-t"].gradients == 0
    assert (
        found.worst().tolist()
        == torch.stack(
            [
                found.stands[CLEAN][CLEAN],
                *white.values(),
                *auto.values(),
                *found.stands["blackbox"].values(),
            ]
        )
        .all(0)
        .tolist()
    )
    (warns,) = (check for check in found.checks if check.name == "autoattack-warns")
    assert warns.verdict == "ok"


class Probabilities(Small):
    """Answers with a softmax."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).softmax(1)


class Random(Small):
    """Adds noise to its answers."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0.1 * torch.rand(len(x), CLASSES)


@pytest.mark.parametrize(
    ("net", "says"),
    [(Probabilities(), "output is a probability distribution"), (Random(), "randomized defense")],
)
def test_what_the_package_warns_of_is_a_check(net: nn.Module, says: str) -> None:
    check = warnings_of(victim(net), params(), {})
    assert check.verdict == "warn"
    assert says in check.text


def test_square_that_breaks_more_is_a_warning() -> None:
    of = victim()
    weaker = {name: of.right.clone() for name in ORDER["standard"]}
    weaker["square"][5:] = False
    check = warnings_of(of, params(), weaker)
    assert "Square Attack has decreased the robust accuracy" in check.text


class Stubborn(nn.Module):
    """Says class 0 whatever it sees, with a gradient."""

    def forward(self, x: Tensor) -> Tensor:
        zeros = torch.zeros(len(x), CLASSES)
        zeros[:, 0] = 9
        return zeros + 0.01 * x.flatten(1)[:, :CLASSES]


@pytest.mark.parametrize("version", ["standard", "rand"])
def test_a_network_that_nothing_fools_costs_nearly_the_bound(version: str) -> None:
    x = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    of = replace(victim(), net=Stubborn(), x=x, y=torch.zeros(4, dtype=torch.int64))
    found, _ = ours(of, version)
    gradients = sum(cost.gradients for cost in found.costs.values()) / 4
    queries = sum(cost.queries for cost in found.costs.values()) / 4
    most = published(version, CLASSES)
    assert 0.7 * most.gradients <= gradients <= most.gradients, (gradients, most)
    assert 0.4 * most.queries <= queries <= most.queries, (queries, most)


def test_nothing_is_asked_for_by_default() -> None:
    assert params(None).version is None
    assert not any(isinstance(one, Attack) for one in autoattack(victim(), params(None), {}))
