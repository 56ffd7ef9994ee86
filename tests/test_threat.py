"""The threat model: exactly inside, seen in float64, and what ``verify`` refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.errors import InputError, ThreatModelError
from deepcustom.data.arrays import images

RADII = [0.3, 8 / 255, 0.0313, 1.0, 1e-3, 0.5, 0.1, 1 / 3, 1e-6, 1e-8]
PIXELS = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)


def every_pixel() -> torch.Tensor:
    """All 256 values a pixel can have, (1, 1, 16, 16)."""
    return images(PIXELS)


def clean_and_wild(seed: int, n: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 1, 28, 28, generator=rng)
    return x, x + 3 * torch.rand(x.shape, generator=rng) - 1.5


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest, in float64."""
    return float((a.double() - b.double()).abs().max())


def test_uint8_pixels_become_the_same_floats_as_in_numpy():
    expected = PIXELS.astype(np.float32) / np.float32(255)
    assert every_pixel().numpy().tobytes() == expected.tobytes()
    for value, pixel in zip(PIXELS.ravel(), every_pixel().flatten(), strict=True):
        assert pixel.numpy() == np.float32(value) / np.float32(255)


@pytest.mark.parametrize("eps", [8, 1.01, -0.1, float("nan")])
def test_a_radius_that_no_ball_of_pixels_has_is_refused(eps):
    with pytest.raises(InputError, match=f"eps is {eps}, want 0 to 1"):
        ThreatModel(eps)


@pytest.mark.parametrize("eps", RADII)
def test_projection_lies_in_the_ball_exactly(eps):
    threat = ThreatModel(eps)
    x, wild = clean_and_wild(0)
    edges = every_pixel()
    for clean, proposed in [(x, wild), (edges, edges + 2), (edges, edges - 2), (x, 1 - x)]:
        x_adv = threat.project(proposed, clean)
        assert x_adv.dtype is torch.float32
        assert distance(x_adv, clean) <= eps
        assert float(x_adv.min()) >= 0
        assert float(x_adv.max()) <= 1
        threat.verify(x_adv.numpy(), clean.numpy())


@pytest.mark.parametrize("eps", RADII)
def test_projection_reaches_the_edge_of_the_ball(eps):
    x = every_pixel()
    up = ThreatModel(eps).project(x + 2, x).double() - x.double()
    room = (1 - x.double()).clamp(max=eps)
    assert float((room - up).max()) <= 2.0**-22


@pytest.mark.parametrize("eps", RADII)
def test_projection_is_idempotent(eps):
    threat = ThreatModel(eps)
    x, wild = clean_and_wild(1)
    once = threat.project(wild, x)
    assert torch.equal(threat.project(once, x), once)


def test_images_well_inside_are_left_alone():
    x = torch.full((2, 1, 3, 3), 0.5)
    inside = x + torch.linspace(-0.29, 0.29, 9).view(1, 1, 3, 3)
    assert torch.equal(ThreatModel(0.3).project(inside, x), inside)


def test_gradient_flows_inside_and_stops_outside():
    x = torch.full((1, 1, 1, 4), 0.5)
    proposed = torch.tensor([[[[0.6, 0.9, 0.1, 0.5]]]], requires_grad=True)
    ThreatModel(0.3).project(proposed, x).sum().backward()
    assert proposed.grad.flatten().tolist() == [1, 0, 0, 1]


def test_clip_false_skips_the_ball_and_keeps_the_range():
    x = torch.zeros(1, 1, 1, 3)
    far = torch.tensor([[[[-1.0, 0.9, 2.0]]]])
    threat = ThreatModel(0.3, clip=False)
    assert threat.project(far, x).flatten().tolist() == pytest.approx([0.0, 0.9, 1.0])
    threat.verify(threat.project(far, x).numpy(), x.numpy())
    with pytest.raises(ThreatModelError, match=r"1 of 1 images lie outside \[0, 1\], by up to 1"):
        threat.verify(far.numpy(), x.numpy())


# verify


@pytest.mark.parametrize("eps", [0.3, 8 / 255, 0.0313, 1e-3])
@pytest.mark.parametrize("direction", [-1, 1])
def test_verify_refuses_one_pixel_one_step_outside(eps, direction):
    x = np.full((7, 1, 4, 4), 0.5, np.float32)
    x_adv = x.copy()
    edge = np.float32(0.5) + np.float32(direction * eps)
    for _ in range(3):  # to the first float32 beyond the ball
        if abs(float(edge) - 0.5) > eps:
            break
        edge = np.nextafter(edge, np.float32(direction * 9))
    x_adv[4, 0, 1, 2] = np.nextafter(edge, np.float32(0.5))
    ThreatModel(eps).verify(x_adv, x)
    x_adv[4, 0, 1, 2] = edge
    with pytest.raises(ThreatModelError, match=rf"^1 of 7 images lie outside the eps={eps} ball"):
        ThreatModel(eps).verify(x_adv, x)


@pytest.mark.parametrize("value", [-1e-7, 1 + 2.0**-23])
def test_verify_refuses_one_pixel_outside_the_range(value):
    x = np.round(np.full((3, 1, 2, 2), value, np.float32))
    x_adv = x.copy()
    x_adv[1, 0, 0, 0] = value
    for threat in (ThreatModel(0.3), ThreatModel(0.3, clip=False)):
        with pytest.raises(ThreatModelError, match=r"1 of 3 images lie outside .*\[0, 1\]"):
            threat.verify(x_adv, x)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("clip", [True, False])
def test_verify_refuses_what_is_not_finite(value, clip):
    x = np.full((3, 1, 2, 2), 0.5, np.float32)
    x_adv = x.copy()
    x_adv[2, 0, 1, 1] = value
    with pytest.raises(ThreatModelError, match=r"1 of 3 images lie outside .* by up to inf"):
        ThreatModel(0.3, clip=clip).verify(x_adv, x)


def test_verify_refuses_clean_images_that_are_not_finite():
    x_adv = np.full((3, 1, 2, 2), 0.5, np.float32)
    x = x_adv.copy()
    x[0, 0, 0, 0] = np.nan
    with pytest.raises(ThreatModelError, match="1 of 3 images"):
        ThreatModel(0.3).verify(x_adv, x)


def test_verify_counts_over_all_chunks_and_gives_the_largest_excess():
    x = np.full((10, 1, 140, 140), 0.5, np.float32)  # three at a time
    x_adv = x.copy()
    x_adv[[0, 5, 9], 0, 0, 0] = [0.85, 0.95, 0.9]
    with pytest.raises(ThreatModelError, match=r"3 of 10 images .* by up to 0\.15$"):
        ThreatModel(0.3).verify(x_adv, x)


def test_verify_takes_images_that_are_larger_than_its_chunks():
    x = np.full((2, 3, 200, 200), 0.5, np.float32)
    x_adv = x.copy()
    ThreatModel(0.3).verify(x_adv, x)
    x_adv[1, 2, 199, 199] = 0.85
    with pytest.raises(ThreatModelError, match=r"1 of 2 images .* by up to 0\.05$"):
        ThreatModel(0.3).verify(x_adv, x)


def test_verify_refuses_other_shapes():
    x = np.zeros((2, 1, 3, 3), np.float32)
    with pytest.raises(ThreatModelError, match=r"adversarial \(1, 1, 3, 3\), clean \(2, 1, 3, 3\)"):
        ThreatModel(0.3).verify(x[:1], x)


def test_verify_takes_empty_arrays():
    ThreatModel(0.3).verify(np.zeros((0, 1, 3, 3), np.float32), np.zeros((0, 1, 3, 3), np.uint8))


def test_verify_takes_stored_images():
    threat = ThreatModel(0.3)
    x_adv = threat.project(every_pixel() + 1, every_pixel()).numpy()
    threat.verify(x_adv, PIXELS)
    with pytest.raises(ThreatModelError, match="1 of 1 images"):
        threat.verify(x_adv + np.float32(0.001), PIXELS)
