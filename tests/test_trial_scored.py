"""Odd networks through the whole evaluation: tried first, then attacked in every way, without an error."""

from __future__ import annotations

import budgets
import numpy as np
import odd_networks as odd
import pytest
import torch
from torch import Tensor, nn

from deepcustom.attacks.bank import DGNBank, ready
from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.settings import EvaluateParams
from deepcustom.data.arrays import Split
from deepcustom.data.sources import find_source
from deepcustom.evaluation.found import Evaluation
from deepcustom.evaluation.full import evaluate_all
from deepcustom.evaluation.material import Material, as_it_is
from deepcustom.evaluation.scoring import Testbed
from deepcustom.evaluation.transfer import Network, transfer
from deepcustom.evaluation.trial import batch_sizes, tried_on
from deepcustom.evaluation.victim import Counted, Victim
from deepcustom.training.compute import FLOAT32
from deepcustom.training.nets.healed import Healed
from deepcustom.training.nets.mnist import MnistGenerator

PGD = budgets.attack(method="pgd", eps_step=0.1, max_iter=4, num_random_init=2, batch_size=20)
PARAMS = EvaluateParams.model_validate(
    {
        "n": 30,
        "whitebox": {"fgsm": budgets.attack(method="fgsm", batch_size=20), "pgd": PGD},
        "surrogate": PGD.model_copy(update={"num_random_init": 1}),
        "autoattack": budgets.autoattack(max_iter=5, targets=2, queries=30, batch_size=25),
        "adaptive": budgets.adaptive(
            bank="nce", training=budgets.training(learning_rate=1e-3, epochs=1, batch_size=8)
        ),
        "curves": {"n": 8, "radii": [0, 1, 4], "steps": [0, 4]},
    }
)


@pytest.fixture(scope="module")
def bank() -> DGNBank:
    torch.manual_seed(0)
    nets = [ready(MnistGenerator(), torch.device("cpu")) for _ in range(10)]
    return DGNBank("mnist", "nce", "perturbation", nets)


@pytest.fixture(scope="module")
def bed(digits: Split) -> Testbed:
    return Testbed.of(
        digits.take(np.arange(1000, 1200)),
        "md5",
        subject="mnist",
        classes=find_source("mnist").spec.classes,
        params=PARAMS,
        threat=ThreatModel(0.1),
        compute=FLOAT32,
        seed=3,
    )


def network(kind: type[odd.Means], train) -> Network:
    return Network(kind.__name__, "md5", kind().fitted(*train).eval().requires_grad_(False))


def scored(bed: Testbed, one: Network, bank: DGNBank, train) -> tuple[Victim, Evaluation]:
    victim = bed.victim(one, lambda *args, **more: None)
    material = Material(
        as_it_is((bank, (train[0][:30], train[1][:30]))), {}, {"x": as_it_is(victim.x)}
    )
    return victim, evaluate_all(victim, PARAMS, material, compute=FLOAT32)


SCORED = (
    odd.Means,
    odd.NumpyInside,
    odd.NumpyOut,
    odd.InPlace,
    odd.Bfloat16Out,
    odd.Double,
    odd.ADict,
    odd.Squeezed,
    odd.Inference,
    odd.SometimesNan,
    odd.SomeInfinite,
    odd.PerImage,
    odd.Chance,
    odd.AtMostEight,
    odd.ExactlyFive,
    odd.Dropout,
)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", SCORED, ids=lambda kind: kind.__name__)
def test_an_odd_network_goes_through_the_whole_evaluation(kind, bed, bank, train) -> None:
    victim, found = scored(bed, tried_on(bed, network(kind, train)), bank, train)
    assert {"clean", "whitebox", "blackbox", "adaptive"} == set(found.stands)
    verdicts = {check.name: check.verdict for check in found.checks}
    blind = kind in (odd.NumpyInside, odd.NumpyOut, odd.Inference)
    assert (verdicts["gradients"] == "fail") == blind
    assert (verdicts.get("clean-above-chance") == "fail") == (kind is odd.Chance)
    if kind not in (odd.Dropout, odd.Chance, odd.SometimesNan):
        assert victim.right.float().mean() > 0.7
    if kind not in (odd.Dropout, odd.PerImage) and not blind:
        for name in ("success-reproduced", "eps-0", "ball"):
            assert verdicts[name] == "ok", name


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_nan_counts_as_wrong_everywhere(bed, bank, train, capsys) -> None:
    """On clean images, under every attack, and in the table; attacks on other images are not spoiled."""
    one = tried_on(bed, network(odd.SometimesNan, train))
    black = bed.attacked[0].flatten(1)[:, 400] == 0
    assert (
        f"gives nan for {int(black.sum())} of 30 images, which count as wrong"
        in capsys.readouterr().out
    )
    victim, found = scored(bed, one, bank, train)
    assert black.any()
    assert not victim.right[black].any()
    for attacks in found.stands.values():
        for stands in attacks.values():
            assert not stands[black].any()
    plain = scored(bed, network(odd.Means, train), bank, train)[1]
    assert found.left("whitebox").sum() <= plain.left("whitebox").sum()
    clean = transfer("mnist", one, bed.clean)[1]
    assert not clean[bed.clean.x[:].flatten(1)[:, 400] == 0].any()
    assert found.points[0].accuracy == float(victim.right[:8].float().mean())


def test_an_attack_that_makes_nan_has_won(train) -> None:
    """The pixel that the network takes the logarithm of can be made black."""
    net = network(odd.SometimesNan, train).net
    x, y = train
    rows = (net(x).argmax(1) == y).nonzero()[:20, 0]
    victim = Victim("it", net, x[rows], y[rows], ThreatModel(1.0), 10, 3, FLOAT32)
    dark = victim.x.clone()
    dark[:, 0, 14, 8] = 0  # pixel 400
    assert not victim.withstands(dark, victim.y).any()
    assert victim.counted.queries == len(dark)


class AtMost256(odd.Means):
    """As a program exported with ``Dim("n", max=256)``."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 256:
            raise RuntimeError("expected at most 256")
        return self.logits(x)


def test_no_check_shows_more_images_at_once_than_were_tried(digits, bed, bank, train) -> None:
    many = PARAMS.model_copy(update={"n": 400})
    large = Testbed.of(
        digits.take(np.arange(1000, 1400)),
        "md5",
        subject="mnist",
        classes=bed.classes,
        params=many,
        threat=ThreatModel(0.01),
        compute=FLOAT32,
        seed=3,
    )
    one = tried_on(large, Network("many", "md5", AtMost256().fitted(*train).eval()))
    victim, found = scored(large, one, bank, train)
    assert int(victim.right.sum()) > 256
    assert {check.name for check in found.checks} >= {"gradients", "whitebox-not-weaker"}


def test_what_attacks_see_is_finite_and_finite_logits_stay_as_they_are(train) -> None:
    net = network(odd.SometimesNan, train).net
    x, y = train[0][:50].clone().requires_grad_(), train[1][:50]
    seen = Counted(net)(x)
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(seen, y), x)
    nan = net(x).isnan().any(1)
    assert 0 < nan.sum() < 50
    assert torch.equal(seen[~nan], net(x)[~nan])
    assert not seen[nan].any()
    assert gradient.isfinite().all()
    assert (gradient.flatten(1)[~nan] != 0).any(1).all()
    assert not gradient[nan].any()


def test_what_attacks_see_is_theirs_to_write_into(train) -> None:
    """Square does; a network may give a part of itself."""

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("kept", torch.ones(1, 10))

        def forward(self, x: Tensor) -> Tensor:
            return self.kept.expand(len(x), 10)

    net = Own()
    Counted(net)(train[0][:3])[:, 1] = -1
    assert torch.equal(net.kept, torch.ones(1, 10))


def test_the_network_under_attack_is_itself_if_it_lacks_nothing(bed, train) -> None:
    one = network(odd.Means, train)
    assert tried_on(bed, one) is one
    healed = tried_on(bed, network(odd.AtMostEight, train))
    assert isinstance(healed.net, Healed)
    assert healed.source not in ("", tried_on(bed, network(odd.ADict, train)).source)


def test_the_sizes_are_those_of_the_attacks() -> None:
    assert batch_sizes(PARAMS, 1000) == [8, 20, 25, 200]
    assert batch_sizes(PARAMS, 22) == [8, 20, 22, 200]
