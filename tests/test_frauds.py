"""Networks that only look robust: each is exposed, or a check that fails says not to believe its numbers."""

from __future__ import annotations

import re
from collections.abc import Callable

import budgets
import pytest
import torch
from pipeline_fixtures import ROOT
from torch import Tensor, nn

from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.settings import EvaluateParams
from deepcustom.evaluation.found import Evaluation
from deepcustom.evaluation.full import evaluate_all
from deepcustom.evaluation.material import Material
from deepcustom.evaluation.victim import Victim
from deepcustom.training.compute import FLOAT32

RADII, IMAGES = {"linf": 0.05, "l2": 0.5}, 60
Images = tuple[Tensor, Tensor]


class Trick(nn.Module):
    """A sound network with something around it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net


class HugeScale(Trick):
    """Multiplies its logits, so that cross entropy has no gradient."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = 1e5 * self.net(x)
        return out


class AtRandom(Trick):
    """Answers at random now and then."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out + out.abs().max() * (torch.rand(len(x), 1) < 0.3) * torch.randn(out.shape)


class Rounded(Trick):
    """Rounds pixels, so that every gradient is zero."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net((x * 16).round() / 16)
        return out


class Detector(Trick):
    """Answers that all classes are alike unless the image is one that it knows."""

    def __init__(self, net: nn.Module, known: Tensor) -> None:
        super().__init__(net)
        self.register_buffer("known", known.flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        near = torch.cdist(x.flatten(1), self.known).amin(1, keepdim=True) < 0.5
        out: Tensor = self.net(x)
        return torch.where(near, out, torch.zeros_like(out))


class AwareOfGradients(Trick):
    """Answers for another image while its input requires a gradient."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x.flip(3) if x.requires_grad else x)
        return out


TRICKS: dict[str, Callable[[nn.Module, Tensor], nn.Module]] = {
    "logits times 100,000": lambda net, x: HugeScale(net),
    "answers at random": lambda net, x: AtRandom(net),
    "gradients made zero by rounding": lambda net, x: Rounded(net),
    "a detector of images that it does not know": Detector,
    "another answer where a gradient is asked for": lambda net, x: AwareOfGradients(net),
}


def settings(eps: float) -> EvaluateParams:
    pgd = budgets.attack(method="pgd", eps_step=0.4 * eps, max_iter=10, num_random_init=2)
    return EvaluateParams.model_validate(
        {
            "n": IMAGES,
            "whitebox": {"fgsm": budgets.attack(method="fgsm"), "pgd": pgd},
            "surrogate": pgd.model_copy(update={"num_random_init": 1}),
            "autoattack": budgets.autoattack(max_iter=15, targets=3, queries=300),
            "adaptive": budgets.adaptive(
                bank="b", training=budgets.training(learning_rate=1e-3, epochs=1, batch_size=8)
            ),
            "curves": {"n": 20, "radii": [0, 1, 4], "steps": [0, 10]},
        }
    )


def evaluated(net: nn.Module, images: Images, norm: str) -> tuple[Evaluation, float]:
    eps = RADII[norm]
    torch.manual_seed(0)
    x, y = (part[:IMAGES] for part in images)
    victim = Victim("it", net.eval(), x, y, ThreatModel(eps, norm=norm), 10, 1, FLOAT32)
    found = evaluate_all(victim, settings(eps), Material(None, {}, {}), compute=FLOAT32)
    return found, 100 * float(found.worst().double().mean())


@pytest.fixture(scope="module")
def honest(trained: nn.Module, held_out: Images) -> dict[str, tuple[Evaluation, float]]:
    """What the network without a trick shows in each norm."""
    return {norm: evaluated(trained, held_out, norm) for norm in RADII}


def table(norm: str) -> dict[str, tuple[str, set[str]]]:
    """The rows of the docs: trick → whether its worst case tells, and checks that fail in the norm."""
    text = (ROOT / "docs/evaluation.md").read_text()
    section = text.split("## Tricks that do not help")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| (yes|no) \| (.+?) \|$", section, re.MULTILINE)
    left_out = r"; in L-infinity .*" if norm != "linf" else r"$^"
    return {
        trick: (tells, set(re.findall(r"`([\w-]+)`", re.sub(left_out, "", checks))))
        for trick, tells, checks in rows
    }


def test_the_docs_have_every_trick() -> None:
    assert set(table("linf")) == set(table("l2")) == set(TRICKS)
    rounding = "gradients made zero by rounding"
    assert table("linf")[rounding][1] - table("l2")[rounding][1] == {"whitebox-not-weaker"}


@pytest.mark.parametrize("norm", RADII)
def test_the_sound_network_neither_falls_whole_nor_fails(
    norm: str, honest: dict[str, tuple[Evaluation, float]]
) -> None:
    found, worst = honest[norm]
    assert 10 < worst < 90
    assert not [one for one in found.checks if one.verdict == "fail"]


@pytest.mark.filterwarnings("ignore:there are .* points with zero gradient")
@pytest.mark.parametrize("norm", RADII)
@pytest.mark.parametrize("trick", TRICKS)
def test_a_trick_is_exposed_or_flagged(
    trick: str,
    norm: str,
    trained: nn.Module,
    held_out: Images,
    honest: dict[str, tuple[Evaluation, float]],
) -> None:
    found, worst = evaluated(TRICKS[trick](trained, held_out[0]), held_out, norm)
    failed = {one.name for one in found.checks if one.verdict == "fail"}
    told = "yes" if worst <= honest[norm][1] + 5 else "no"
    assert told == "yes" or failed, worst
    tells, checks = table(norm)[trick]
    assert told == tells, worst
    assert checks <= failed
