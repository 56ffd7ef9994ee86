"""What an evaluation costs at most, held against what it does cost."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.settings import AttackParams, AutoAttackParams, EvaluateParams
from deepcustom.evaluation.blackbox import blackbox
from deepcustom.evaluation.check_table import noise, twice
from deepcustom.evaluation.curves import curves
from deepcustom.evaluation.price import Bound, announce, bound, parts, published, rates
from deepcustom.evaluation.victim import Victim
from deepcustom.evaluation.whitebox import whitebox
from deepcustom.training.compute import FLOAT32

CLASSES = 5
PGD = {"method": "pgd", "eps_step": 0.1, "max_iter": 4, "num_random_init": 3, "batch_size": 8}


class Stubborn(nn.Module):
    """Says class 0 whatever it sees, with a gradient."""

    def forward(self, x):
        zeros = torch.zeros(len(x), CLASSES)
        zeros[:, 0] = 9
        return zeros + 0.01 * x.flatten(1)[:, :CLASSES]


@pytest.fixture
def params() -> EvaluateParams:
    return EvaluateParams.model_validate(
        {
            "n": 12,
            "whitebox": {"fgsm": {"method": "fgsm", "batch_size": 8}, "pgd": PGD},
            "surrogate": PGD | {"num_random_init": 1},
            "autoattack": AutoAttackParams(
                max_iter=6, num_random_init=2, targets=9, queries=30, batch_size=8
            ).model_dump(),
            "adaptive": {
                "bank": "b",
                "images_per_class": None,
                "training": {
                    "learning_rate": 0.1,
                    "epochs": 1,
                    "batch_size": 8,
                    "schedule": "constant",
                    "momentum": 0.9,
                    "weight_decay": 0.0,
                },
            },
            "curves": {"n": 5, "radii": [0.0, 1.0], "steps": [1, 4]},
        }
    )


@pytest.fixture
def victim() -> Victim:
    x = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    y = torch.zeros(12, dtype=torch.long)
    y[10:] = 1  # which it gets wrong
    return Victim("stubborn", Stubborn(), x, y, ThreatModel(0.1), CLASSES, 1, FLOAT32)


def spent(victim: Victim, params: EvaluateParams) -> tuple[int, int]:
    """Gradients and queries of all attacks, the curves and the checks on a network that nothing fools."""
    stands: dict[str, dict[str, torch.Tensor]] = {}
    attacks = whitebox(victim, params.whitebox, params.autoattack, stands)
    for attack in attacks:
        outcome = attack.run()
        assert bool(outcome.stands[:10].all())
        stands.setdefault(attack.protocol, {})[attack.name] = outcome.stands
    for attack in blackbox(victim, {}, params.autoattack):
        attack.run()
    twice(victim, AttackParams(**PGD), victim.right).run()
    noise(victim).run()
    list(curves(victim, params.curves, params.whitebox["pgd"]))
    return victim.counted.gradients, victim.counted.queries


def test_a_network_that_nothing_fools_costs_nearly_the_bound(victim, params):
    most = bound(params, right=10, classes=CLASSES)
    gradients, queries = spent(victim, params)
    assert 0.8 * most.gradients <= gradients <= most.gradients
    assert 0.6 * most.queries <= queries <= most.queries


def test_the_ball_that_curves_add_is_in_the_bound(victim, params):
    """The steps here share no point with the radii."""
    longer = params.curves.model_copy(update={"steps": [1, 3]})
    asked: list[int] = []

    class Watched(Stubborn):
        def forward(self, x):
            asked.append(len(x) if torch.is_grad_enabled() and x.requires_grad else 0)
            return super().forward(x)

    list(curves(replace(victim, net=Watched()), longer, params.whitebox["pgd"]))
    fewer = longer.model_copy(update={"n": 1})
    five, one = (
        bound(params.model_copy(update={"curves": c}), right=10, classes=CLASSES)
        for c in (longer, fewer)
    )
    assert sum(asked) == (five.gradients - one.gradients) / 4 * 5 == 5 * (3 * 4 + 1 + 3)


def test_a_target_more_costs_what_apgd_spends_on_it(params):
    """Beyond the number of other classes there is no further target."""
    apgd = params.autoattack
    fewer = params.model_copy(update={"autoattack": apgd.model_copy(update={"targets": 3})})
    four, three = (bound(p, right=10, classes=CLASSES) for p in (params, fewer))
    assert four.gradients - three.gradients == 10 * 2 * (6 + 1)


def test_rates_come_from_a_batch_that_is_not_counted(victim):
    gradient, query = rates(victim)
    assert 0 < query < gradient
    assert (victim.counted.gradients, victim.counted.queries) == (0, 0)


def test_the_price_is_said_in_one_line(victim, params):
    said: list[str] = []
    heard = replace(victim, advance=lambda note, steps, resumed: said.append(note))
    announce(heard, params)
    most = bound(params, right=10, classes=CLASSES)
    (line,) = said
    assert line.startswith("stubborn: 10 of 12 images are right; at most ")
    assert f"{most.gradients:,.0f} gradients" in line
    assert "without apgd-t-more" in line
    for part in ("whitebox", "blackbox", "checks", "curves"):
        assert f"{part} 0.0" in line


def test_the_parts_make_the_whole(victim, params):
    each = parts(params, right=10, classes=CLASSES, surrogates=2)
    assert list(each) == ["whitebox", "blackbox", "checks", "curves"]
    whole = bound(params, right=10, classes=CLASSES, surrogates=2)
    assert whole == sum(each.values(), Bound())
    auto = params.autoattack.model_copy(update={"version": "standard"})
    asked = params.model_copy(update={"autoattack": auto})
    with_it = parts(asked, right=10, classes=CLASSES, surrogates=2)
    assert with_it["autoattack"] == published("standard", CLASSES).times(10)
    assert with_it["whitebox"].gradients < each["whitebox"].gradients
