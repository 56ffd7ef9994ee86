"""Augmentation: mirrored and shifted images, and nothing where it is off."""

from __future__ import annotations

import pytest
import torch

from deepcustom.base.settings import AugmentParams
from deepcustom.training.augment import augmented

X = torch.rand(64, 3, 6, 5, generator=torch.Generator().manual_seed(0)) + 0.01  # no pixel is black


def test_off_it_changes_nothing_and_draws_nothing() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert augmented(X, None) is X
    assert torch.equal(torch.get_rng_state(), before)


def test_half_of_the_images_are_mirrored() -> None:
    torch.manual_seed(0)
    found = augmented(X, AugmentParams(flip=True, crop=0))
    same = (found == X).flatten(1).all(1)
    mirrored = (found == X.flip(3)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 20 < mirrored.sum() < 44


@pytest.mark.parametrize("most", [1, 3])
def test_each_image_is_shifted_by_its_own_amount(most: int) -> None:
    torch.manual_seed(0)
    found = augmented(X, AugmentParams(flip=False, crop=most))
    assert found.shape == X.shape
    shifts = set()
    padded = torch.nn.functional.pad(X, (most,) * 4)
    for i in range(len(X)):
        fits = [
            (dy, dx)
            for dy in range(2 * most + 1)
            for dx in range(2 * most + 1)
            if torch.equal(padded[i, :, dy : dy + 6, dx : dx + 5], found[i])
        ]
        assert len(fits) == 1
        shifts.add(fits[0])
    assert len(shifts) > 2 * most + 1


def test_it_leaves_its_argument_alone() -> None:
    before = X.clone()
    augmented(X, AugmentParams(flip=True, crop=2))
    assert torch.equal(X, before)
