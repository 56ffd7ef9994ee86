"""The two norms: what each brings into its ball, which way is steepest, and what is drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from deepcustom.attacks.norms import NORMS
from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.errors import InputError, ThreatModelError

SHAPE = (3, 16, 16)
PIXELS = math.prod(SHAPE)


def images(n: int = 50, seed: int = 0) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(seed))


def lengths(norm: str, change: Tensor) -> np.ndarray:
    wide = change.double().flatten(1)
    return torch.linalg.vector_norm(wide, math.inf if norm == "linf" else 2, dim=1).numpy()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("eps", [1e-6, 1e-3, 0.03, 0.9])
def test_what_is_brought_into_the_ball_lies_in_it_exactly(norm: str, eps: float) -> None:
    threat, x = ThreatModel(eps, norm=norm), images()
    for far in (0.1, 3.0):
        x_adv = threat.project(x + far * torch.randn(x.shape), x)
        threat.verify(x_adv.numpy(), x.numpy())
        moved = lengths(norm, x_adv - x).max()
        assert moved <= eps
        if eps == 0.03:
            assert moved > 0.5 * eps


@pytest.mark.parametrize("norm", NORMS)
def test_what_lies_inside_stays_as_it_is(norm: str) -> None:
    threat, x = ThreatModel(0.5, norm=norm), images() * 0.8 + 0.1
    near = x + 0.001 * torch.randn(x.shape).clamp(-3, 3)
    assert torch.equal(threat.project(near, x), near)


@pytest.mark.parametrize("norm", NORMS)
def test_an_image_outside_is_found(norm: str) -> None:
    threat, x = ThreatModel(0.5, norm=norm), np.full((3, *SHAPE), 0.2, np.float32)
    x_adv = x.copy()
    x_adv[1, 0, 0, :2] += 0.6 if norm == "linf" else 0.5
    with pytest.raises(ThreatModelError, match=r"1 of 3 images lie outside the eps=0\.5"):
        threat.verify(x_adv, x)


@pytest.mark.parametrize("norm", NORMS)
def test_a_generators_output_spreads_over_the_ball(norm: str) -> None:
    threat, x = ThreatModel(0.05, norm=norm), torch.full((20, *SHAPE), 0.5)
    assert torch.equal(threat.spread(torch.full_like(x, 0.5), x), x)
    s = torch.rand(x.shape)
    s.requires_grad_()
    made = threat.spread(s, x)
    assert lengths(norm, made.detach() - x).max() <= 0.05 * (1 + 1e-5)
    assert lengths(norm, made.detach() - x).min() > 0.04
    (gradient,) = torch.autograd.grad(made.square().sum(), s)
    assert gradient.isfinite().all()
    middle = torch.full_like(x, 0.5).requires_grad_()
    (gradient,) = torch.autograd.grad(threat.spread(middle, x).sum(), middle)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("norm", NORMS)
def test_the_steepest_direction_raises_a_linear_loss_most(norm: str) -> None:
    gradient = torch.randn(4, *SHAPE)
    best = NORMS[norm].steepest(gradient)
    assert lengths(norm, best) == pytest.approx(1)
    gain = (gradient * best).flatten(1).sum(1)
    for _ in range(20):
        other = torch.randn(gradient.shape)
        other /= torch.from_numpy(lengths(norm, other)).float()[:, None, None, None]
        assert ((gradient * other).flatten(1).sum(1) <= gain).all()
    assert not NORMS[norm].steepest(torch.zeros(2, *SHAPE)).any()


@pytest.mark.parametrize("norm", NORMS)
def test_what_is_drawn_lies_in_the_ball_of_radius_one(norm: str) -> None:
    torch.manual_seed(0)
    drawn = NORMS[norm].drawn(torch.zeros(500, 1, 2, 2))
    found = lengths(norm, drawn)
    assert found.max() <= 1 + 1e-6
    assert abs(float(drawn.mean())) < 0.05
    # Half of a ball's points lie within the radius 2 ** (-1 / dimensions).
    assert 0.4 < (found < 0.5**0.25).mean() < 0.6


@pytest.mark.parametrize("norm", NORMS)
def test_a_corner_has_length_one_and_a_ball_without_a_limit_holds_it(norm: str) -> None:
    signs = torch.randint(0, 2, (3, *SHAPE)).float() * 2 - 1
    assert lengths(norm, NORMS[norm].corner(signs)) == pytest.approx(1)
    assert lengths(norm, 0.75 * signs) == pytest.approx(NORMS[norm].unlimited(0.75, PIXELS))


def test_radii_and_norms_that_do_not_exist_are_refused() -> None:
    with pytest.raises(InputError, match="norm is 'l3': choose from linf, l2"):
        ThreatModel(0.1, norm="l3")
    with pytest.raises(InputError, match=r"eps is 2.0, want 0 to 1"):
        ThreatModel(2.0)
    assert ThreatModel(2.0, norm="l2").eps == 2.0
    for eps in (-1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="eps is"):
            ThreatModel(eps, norm="l2")
