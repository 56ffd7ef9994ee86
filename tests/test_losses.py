"""Every registered loss against its formula written image by image, and how losses are found.

A new loss needs a row in ``CASES``: its formula, slow and in float64.
"""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import budgets
import pytest
import torch
from networks import GENERATOR
from pipeline_fixtures import commands, walk_through
from torch import Tensor, nn

from deepcustom.attacks.losses import (
    CustomLoss,
    LossContext,
    build_loss,
    contexts,
    find_loss,
    register_loss,
    registered,
)
from deepcustom.attacks.losses.base import ANALYSES
from deepcustom.attacks.losses.lrp import lrp_terms
from deepcustom.attacks.losses.suspiciousness import convolution_terms, dense_terms
from deepcustom.attacks.threat import ThreatModel
from deepcustom.attacks.train_bank import train_bank
from deepcustom.base.errors import LossError, ParamsError, UnknownNameError
from deepcustom.base.params import Params
from deepcustom.base.settings import TrainDgnParams
from deepcustom.training.job import Job
from deepcustom.training.nets.cifar10 import Cifar10Classifier

ROOT = Path(__file__).parents[1]
REGISTRY = registered()
MARGIN = "examples.margin_loss:MarginLoss"
LABEL, EPS, K = 3, 0.3, 20

PIXELS = torch.randperm(784, generator=torch.Generator().manual_seed(5))[:K]
SUSPICIOUS = {
    f"suspicious.dense{i}": torch.rand(30, generator=torch.Generator().manual_seed(i)) > 0.8
    for i in range(1, 6)
}
ANALYSIS = {
    "relevance": {"pixels": PIXELS, "relevance": torch.zeros(1, 28, 28)},
    "suspiciousness": {
        **SUSPICIOUS,
        **{f"scores.dense{i}": torch.zeros(30) for i in range(1, 6)},
        "failures": torch.tensor(4),
    },
}


# The formulas, for one image: lists of 784 floats, the network as weights and biases.


def run_by_hand(net: nn.Module, image: list[float]) -> tuple[list[list[float]], list[float]]:
    """Pre-activations of the hidden layers, and logits."""
    layers = [m for m in net.modules() if isinstance(m, nn.Linear)]
    a, seen = torch.tensor(image, dtype=torch.float64), []
    for layer in layers:
        z = layer.weight.detach().double() @ a + layer.bias.detach().double()
        seen.append(z.tolist())
        a = torch.tensor([max(v, 0.0) for v in z.tolist()], dtype=torch.float64)
    return seen[:-1], seen[-1]


def mean_square(a: list[float], b: list[float]) -> float:
    return sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) / len(a)


def cross_entropy(logits: list[float], label: int) -> float:
    return -math.log(math.exp(logits[label]) / sum(math.exp(v) for v in logits))


def lrp(x: list[float], g: list[float], net: nn.Module, o: Mapping[str, float]) -> dict[str, float]:
    c = o["custom_loss_constant"]
    chosen = set(PIXELS.tolist())
    rest = [i for i in range(784) if i not in chosen]
    down = sum((g[i] - (x[i] - EPS)) ** 2 for i in chosen) / len(chosen)
    up = sum((g[i] - (x[i] + EPS)) ** 2 for i in rest) / len(rest)
    return {"relevant": c * down, "rest": (1 - c) * up}


def nce(x: list[float], g: list[float], net: nn.Module, o: Mapping[str, float]) -> dict[str, float]:
    return {
        "mse": o["mse_weight"] * mean_square(g, x),
        "negative_cross_entropy": -o["cross_entropy_weight"]
        * cross_entropy(run_by_hand(net, g)[1], LABEL),
    }


def soft_margin(
    x: list[float], g: list[float], net: nn.Module, o: Mapping[str, float]
) -> dict[str, float]:
    logits = run_by_hand(net, g)[1]
    best_other = max(v for i, v in enumerate(logits) if i != LABEL)
    return {"soft_margin": math.log1p(math.exp(logits[LABEL] - best_other))}


def suspiciousness(
    x: list[float], g: list[float], net: nn.Module, o: Mapping[str, float]
) -> dict[str, float]:
    c = o["custom_loss_constant"]
    chosen, others = 0.0, 0.0
    on_x, on_g = run_by_hand(net, x)[0], run_by_hand(net, g)[0]
    for layer, (a_x, a_g) in enumerate(zip(on_x, on_g, strict=True), 1):
        for unit, is_suspicious in enumerate(SUSPICIOUS[f"suspicious.dense{layer}"].tolist()):
            if is_suspicious:
                chosen += a_x[unit] - a_g[unit]
            else:
                others += abs(a_x[unit] - a_g[unit])
    return {
        "suspicious": c * o["theta"] * chosen,
        "others": c * o["gamma"] * others,
        "mse": (1 - c) * mean_square(g, x),
    }


def margin(
    x: list[float], g: list[float], net: nn.Module, o: Mapping[str, float]
) -> dict[str, float]:
    logits = run_by_hand(net, g)[1]
    best_other = max(v for i, v in enumerate(logits) if i != LABEL)
    lead = max(logits[LABEL] - best_other, -o["kappa"])
    return {"margin": o["margin_weight"] * lead, "mse": o["mse_weight"] * mean_square(g, x)}


Reference = Callable[[list[float], list[float], nn.Module, Mapping[str, float]], dict[str, float]]

# Loss → formula, its options as the study has them, and others.
CASES: dict[str, tuple[Reference, dict[str, float], dict[str, float]]] = {
    "lrp": (lrp, {"custom_loss_constant": 0.5}, {"custom_loss_constant": 0.9}),
    "nce": (
        nce,
        {"mse_weight": 1.0, "cross_entropy_weight": 1.0},
        {"mse_weight": 3.0, "cross_entropy_weight": 0.2},
    ),
    "soft_margin": (soft_margin, {}, {}),
    "suspiciousness": (
        suspiciousness,
        {"custom_loss_constant": 0.8, "theta": 0.5, "gamma": 0.5},
        {"custom_loss_constant": 0.3, "theta": 2.0, "gamma": 0.1},
    ),
    MARGIN: (
        margin,
        {"kappa": 0.0, "margin_weight": 1.0, "mse_weight": 1.0},
        {"kappa": 50.0, "margin_weight": 0.5, "mse_weight": 2.0},
    ),
}


def test_every_registered_loss_has_a_row():
    assert {name for name in CASES if ":" not in name} == set(REGISTRY)


@pytest.fixture(autouse=True)
def _at_the_top(monkeypatch):
    """The user's own losses are imported from the current folder, and registered ones forgotten."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = dict(REGISTRY)
    yield
    REGISTRY.clear()
    REGISTRY.update(before)


@pytest.fixture
def context(target_net) -> LossContext:
    """In float64, with every analysis."""
    return LossContext(copy.deepcopy(target_net).double(), LABEL, ThreatModel(EPS), ANALYSIS)


def clean_and_made(train, n: int = 4) -> tuple[Tensor, Tensor]:
    """Images of the class and a generator's output for them, float64."""
    x = train[0][train[1] == LABEL][:n].double()
    return x, torch.rand(x.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


# Mathematics


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("which", ["default", "other"])
def test_loss_is_its_formula(name, which, context, train):
    reference, defaults, others = CASES[name]
    options = defaults if which == "default" else others
    loss = build_loss(name, budgets.options(name, **options), context)
    x, g = clean_and_made(train)
    terms = loss(x, g)
    expected = [
        reference(a.flatten().tolist(), b.flatten().tolist(), context.target_net, options)
        for a, b in zip(x, g, strict=True)
    ]
    assert set(terms) == set(expected[0])
    for term, values in terms.items():
        assert values.tolist() == pytest.approx([image[term] for image in expected], rel=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_terms_are_one_number_per_image_that_moves_g_alone(name, context, train):
    x, g = clean_and_made(train, n=3)
    terms = build_loss(name, budgets.options(name, **CASES[name][2]), context)(
        x, g.requires_grad_()
    )
    weights = list(context.target_net.parameters())
    for term, values in terms.items():
        assert values.shape == (3,), term
        (slope,) = torch.autograd.grad(values[1], g, retain_graph=True)
        assert slope[1].any(), term
        assert not slope[[0, 2]].any(), term  # an image's term depends on that image alone
    sum(values.sum() for values in terms.values()).backward()
    assert all(weight.grad is None for weight in weights)


@pytest.mark.parametrize("name", CASES)
def test_gradient_is_that_of_the_values(name, context, train):
    x, g = clean_and_made(train, n=2)
    loss = build_loss(name, budgets.options(name, **CASES[name][2]), context)

    def total(g: Tensor) -> Tensor:
        return torch.stack(list(loss(x, g).values())).sum()

    assert torch.autograd.gradcheck(total, g.requires_grad_(), fast_mode=True)


def test_lrp_is_least_where_relevant_pixels_are_down_and_the_rest_up(context, train):
    x, _ = clean_and_made(train)
    best = (x + EPS).flatten(1)
    best[:, PIXELS] -= 2 * EPS
    terms = build_loss("lrp", budgets.options("lrp"), context)(x, best.view_as(x))
    assert all(values.abs().max() < 1e-25 for values in terms.values())


def test_lrp_with_every_pixel_relevant_has_no_rest():
    x, g = torch.rand(2, 1, 2, 2), torch.rand(2, 1, 2, 2)
    terms = lrp_terms(x, g, torch.arange(4), EPS, 0.5)
    assert terms["rest"].tolist() == [0.0, 0.0]
    expected = 0.5 * ((g - x + EPS) ** 2).flatten(1).mean(1)
    torch.testing.assert_close(terms["relevant"], expected)


def test_suspiciousness_worked_by_hand():
    a_x = torch.tensor([[1.0, 2.0, -1.0]])
    a_g = torch.tensor([[3.0, 1.5, 0.0]])
    first, second = dense_terms(a_x, a_g, torch.tensor([True, False, False]), theta=0.5, gamma=0.1)
    assert first.tolist() == [pytest.approx(0.5 * (1 - 3))]
    assert second.tolist() == [pytest.approx(0.1 * (0.5 + 1))]


def test_convolution_terms_worked_by_hand():
    a_x = torch.tensor([[[[1.0, 2.0]], [[0.0, 4.0]], [[-1.0, 1.0]]]])  # three maps of 1x2
    a_g = torch.tensor([[[[3.0, 1.0]], [[1.0, 6.0]], [[-1.0, 0.0]]]])
    first, second = convolution_terms(
        a_x, a_g, torch.tensor([True, False, False]), alpha=0.5, beta=0.1
    )
    assert first.tolist() == [pytest.approx(0.5 * ((1 - 3) + (2 - 1)) / 2)]
    assert second.tolist() == [pytest.approx(0.1 * (1 + 2 + 0 + 1) / 4)]
    for mask in (torch.zeros(3).bool(), torch.ones(3).bool()):
        terms = convolution_terms(a_x, a_g, mask, alpha=0.5, beta=0.1)
        assert float(terms[0 if not mask.any() else 1]) == 0.0


@pytest.mark.parametrize("weights", [{}, {"alpha": 2.0, "beta": 0.3, "theta": 1.5, "gamma": 0.7}])
def test_suspiciousness_of_convolutions_is_its_formula(weights):
    """On the CIFAR-10 network: means over the maps of each convolution, sums over dense units."""
    torch.manual_seed(3)
    net = Cifar10Classifier().double().eval().requires_grad_(False)
    sizes = {"conv1": 32, "conv2": 64, "conv3": 64, "dense1": 64}
    masks = {name: torch.rand(size) > 0.7 for name, size in sizes.items()}
    arrays = {f"suspicious.{name}": mask for name, mask in masks.items()}
    analysis = {"suspiciousness": {**arrays, "failures": torch.tensor(2)}}
    context = LossContext(net, LABEL, ThreatModel(0.03), analysis)
    x, g = torch.rand(2, 2, 3, 32, 32, dtype=torch.float64)
    found = build_loss(
        "suspiciousness",
        budgets.options("suspiciousness", custom_loss_constant=0.9, **weights),
        context,
    )(x, g)
    o = {"alpha": 0.5, "beta": 0.01, "theta": 0.5, "gamma": 0.5, **weights}

    on_x, on_g = net.preactivations(x)[0], net.preactivations(g)[0]
    for image in range(2):
        suspicious = others = 0.0
        for name, mask in masks.items():
            change = [
                (on_x[name][image, unit] - on_g[name][image, unit]).flatten().tolist()
                for unit in range(sizes[name])
            ]
            chosen = [v for values, m in zip(change, mask, strict=True) if m for v in values]
            rest = [abs(v) for values, m in zip(change, mask, strict=True) if not m for v in values]
            dense = name == "dense1"
            suspicious += (
                o["theta" if dense else "alpha"] * sum(chosen) / (1 if dense else len(chosen))
            )
            others += o["gamma" if dense else "beta"] * sum(rest) / (1 if dense else len(rest))
        mse = mean_square(g[image].flatten().tolist(), x[image].flatten().tolist())
        assert float(found["suspicious"][image]) == pytest.approx(0.9 * suspicious, rel=1e-9)
        assert float(found["others"][image]) == pytest.approx(0.9 * others, rel=1e-9)
        assert float(found["mse"][image]) == pytest.approx(0.1 * mse, rel=1e-9)


def test_margin_stops_at_kappa(context, train):
    x, g = clean_and_made(train)
    logits = context.target_net(g)
    others = logits.clone()
    others[:, LABEL] = -math.inf
    lead = logits[:, LABEL] - others.amax(1)
    kappa = float(-lead.median()) if lead.median() < 0 else 0.0
    found = build_loss(MARGIN, budgets.options(MARGIN, kappa=kappa), context)(x, g)["margin"]
    assert float(found.min()) >= -kappa
    torch.testing.assert_close(found, lead.clamp(min=-kappa))


def test_suspiciousness_of_a_class_without_failures_has_no_spectrum(target_net):
    arrays = {**ANALYSIS["suspiciousness"], "failures": torch.tensor(0)}
    context = LossContext(target_net, 7, ThreatModel(EPS), {"suspiciousness": arrays})
    with pytest.raises(LossError, match=r"class 7 has no spectrum, .* fails on none of its train"):
        build_loss("suspiciousness", budgets.options("suspiciousness"), context)


# Finding


def test_registered_names():
    assert {"lrp", "nce", "soft_margin", "suspiciousness"} <= set(REGISTRY)
    for name, cls in REGISTRY.items():
        assert find_loss(name) is cls
        assert issubclass(cls, CustomLoss)
        assert set(cls.requires) <= set(ANALYSES)


def test_duplicate_is_refused_and_the_first_stays():
    first = REGISTRY["nce"]
    with pytest.raises(
        LossError,
        match=r"loss 'nce' is registered already, by deepcustom\.attacks\.losses\.nce\.NceLoss",
    ):
        register_loss("nce")(type("Mine", (CustomLoss,), {}))
    assert REGISTRY["nce"] is first


def test_a_loss_is_found_by_its_file_and_no_other_is_loaded():
    said = subprocess.run(
        [sys.executable, "-c", FIND],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    loaded, refused = said.splitlines()
    assert loaded == "['base', 'nce']"
    assert refused == ("loss 'lrp' is registered already, by deepcustom.attacks.losses.lrp.LrpLoss")


FIND = """
import sys
from deepcustom.attacks.losses import CustomLoss, find_loss, register_loss
find_loss("nce")
room = "deepcustom.attacks.losses."
print(sorted(name.removeprefix(room) for name in sys.modules if name.startswith(room)))
try:
    register_loss("lrp")(type("Mine", (CustomLoss,), {}))
except Exception as error:
    print(error)
"""


def test_a_name_can_be_registered_and_found():
    @register_loss("mine")
    class Mine(CustomLoss):
        def __call__(self, x, g):
            return {}

    assert find_loss("mine") is Mine


def test_unknown_name_lists_the_known():
    with pytest.raises(UnknownNameError) as caught:
        find_loss("ncee")
    assert "unknown loss 'ncee'" in str(caught.value)
    for known in (*REGISTRY, "package.module:Class"):
        assert known in str(caught.value)


def test_own_loss_is_found_from_the_current_folder(tmp_path, monkeypatch):
    file = tmp_path / "my_own_loss_file.py"
    file.write_text(
        "from deepcustom.attacks.losses import CustomLoss\n\n\nclass Mine(CustomLoss):\n"
        "    def __call__(self, x, g):\n        return {}\n"
    )
    monkeypatch.chdir(tmp_path)
    assert find_loss("my_own_loss_file:Mine").__name__ == "Mine"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("examples.no_such:X", "loss 'examples.no_such:X': importing 'examples.no_such' failed"),
        ("examples.margin_loss:Nope", "examples.margin_loss has no class 'Nope'"),
        ("examples.margin_loss:", "must have the form package.module:Class"),
        (
            "examples.margin_loss:MarginOptions",
            "is not a subclass of deepcustom.attacks.losses.CustomLoss",
        ),
        (
            "examples.margin_loss:margin_terms",
            "is not a subclass of deepcustom.attacks.losses.CustomLoss",
        ),
    ],
)
def test_what_cannot_be_imported_is_told(path, message):
    with pytest.raises(LossError) as caught:
        find_loss(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["lrp", "suspiciousness"])
def test_missing_analysis_is_told_before_training(name, target_net):
    needed = REGISTRY[name].requires[0]
    context = LossContext(target_net, LABEL, ThreatModel(EPS), {})
    with pytest.raises(LossError, match=rf"loss '{name}' requires the analysis {needed}, which is"):
        build_loss(name, {}, context)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "nce",
            {"mse_wait": 1},
            "mse_wait is not a known key; allowed: mse_weight, cross_entropy_w",
        ),
        ("nce", {"cross_entropy_weight": -1}, "cross_entropy_weight: should be greater than or eq"),
        ("lrp", {"custom_loss_constant": 1.2}, "custom_loss_constant: should be less than or equ"),
        ("suspiciousness", {"theta": "much"}, "theta: should be a valid number"),
        (MARGIN, {"kapa": 1}, "kapa is not a known key; allowed: kappa, margin_weight, mse_weight"),
    ],
)
def test_bad_options_name_the_loss_and_the_key(name, options, message, context):
    with pytest.raises(ParamsError) as caught:
        build_loss(name, budgets.options(name, **options), context)
    assert message in str(caught.value)
    assert f"options of loss {name!r}" in str(caught.value)


def test_loss_without_options_takes_none(context, monkeypatch):
    class Bare(CustomLoss):
        def __call__(self, x: Tensor, g: Tensor) -> Mapping[str, Tensor]:
            return {"zero": g.flatten(1).sum(1) * 0}

    monkeypatch.setitem(REGISTRY, "bare", Bare)
    assert isinstance(build_loss("bare", {}, context).options, Params)
    with pytest.raises(ParamsError, match="anything is not a known key"):
        build_loss("bare", {"anything": 1}, context)


# The example, from its path to a trained bank


def section(**changes: Any) -> TrainDgnParams:
    values = {
        "loss": MARGIN,
        "output": "perturbation",
        "training": {"learning_rate": 3e-3, "epochs": 20, "batch_size": 6},
        "options": {"mse_weight": 0.1},
        **changes,
    }
    return budgets.bank(values)


def test_example_trains_a_bank_by_its_path(target_net, train, threat, compute):
    x, y = train[0][:200], train[1][:200]
    two = y < 2
    bank, history = train_bank(
        GENERATOR["mnist"],
        "mnist",
        contexts(target_net, threat, {}, 2),
        (x[two], y[two]),
        (x[two], y[two]),
        section(),
        Job(0, compute),
    )
    assert bank.loss == MARGIN
    assert {"loss", "margin", "mse", "val_target_accuracy"} <= set(history)
    assert history["margin"][-1] < history["margin"][0]
    x_adv = bank.generate(x[two], y[two], threat, compute=compute)
    clean = (target_net(x[two]).argmax(1) == y[two]).float().mean()
    assert (target_net(x_adv).argmax(1) == y[two]).float().mean() < clean - 0.2


def test_example_says_where_it_is_named(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)

    from examples import margin_loss

    walk = commands((ROOT / "docs/losses.md").read_text())
    assert commands(margin_loss.__doc__ or "") == walk[:1]
    bank = walk_through()["train_dgn"]["mnist-margin"]
    assert find_loss(bank["loss"]) is margin_loss.MarginLoss
    margin_loss.MarginOptions.model_validate(bank["options"])
    assert (ROOT / bank["code"]).is_file()
