"""Images that are read when they are needed: as a tensor of all of them would give them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deepcustom.base.settings import TrainingParams
from deepcustom.data.arrays import Array, images
from deepcustom.data.mapped import MappedImages
from deepcustom.training.compute import FLOAT32
from deepcustom.training.fit import train_classifier
from deepcustom.training.job import Job
from deepcustom.training.prediction import accuracy, predict

CPU = torch.device("cpu")


@pytest.fixture(params=[np.uint8, np.float32])
def array(request: pytest.FixtureRequest, tmp_path: Path) -> Array:
    """Twelve images in a file, mapped from there."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (12, 1, 4, 5))
    whole = x.astype(np.uint8) if request.param is np.uint8 else (x / 255).astype(np.float32)
    np.save(tmp_path / "x.npy", whole)
    return np.load(tmp_path / "x.npy", mmap_mode="r")


@pytest.mark.parametrize("which", [slice(0, 5), slice(9, 99), slice(None), torch.tensor([7, 0, 7])])
def test_rows_are_those_of_a_tensor(array: Array, which: slice | Tensor) -> None:
    mapped = MappedImages.on(array, CPU)
    assert mapped.shape == (12, 1, 4, 5)
    assert torch.equal(mapped[which], images(array)[which])


def test_a_mask_chooses_without_reading(array: Array) -> None:
    mask = torch.arange(12) % 3 == 1
    chosen = MappedImages.on(array, CPU)[mask]
    assert isinstance(chosen, MappedImages)
    whole = images(array)[mask]
    assert len(chosen) == 4
    assert torch.equal(chosen[:], whole)
    assert torch.equal(chosen[torch.tensor([3, 1])], whole[[3, 1]])
    again = chosen[torch.tensor([True, False, False, True])]
    assert torch.equal(again[:], whole[[0, 3]])


def test_images_held_on_a_device_are_the_same(array: Array) -> None:
    """As on a GPU: what is held there is uint8, and becomes float32 when it is read."""
    there = MappedImages(array, CPU, None, torch.tensor(np.asarray(array)))
    assert torch.equal(there[:], images(array))
    mask = torch.arange(12) < 2
    assert torch.equal(there[mask][:], images(array)[:2])


class Pixels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.scores(x.flatten(1))


def test_training_gives_the_same_bytes_from_mapped_images(array: Array) -> None:
    y = torch.arange(12) % 3
    params = TrainingParams(
        learning_rate=0.1,
        epochs=2,
        batch_size=5,
        schedule="one_cycle",
        momentum=0.9,
        weight_decay=0.0,
    )
    found = []
    for x in (images(array), MappedImages.on(array, CPU)):
        torch.manual_seed(0)
        net = Pixels()
        history = train_classifier(net, (x, y), (x, y), params, Job(1, FLOAT32))
        found.append((history, net.scores.weight.detach().clone(), predict(net, x)))
    (first, weights, logits), (second, same, equal) = found
    assert first == second
    assert torch.equal(weights, same)
    assert torch.equal(logits, equal)


def test_an_empty_choice_has_no_accuracy(array: Array) -> None:
    none = MappedImages.on(array, CPU)[torch.zeros(12, dtype=torch.bool)]
    assert len(none) == 0
    assert np.isnan(accuracy(Pixels(), none, torch.zeros(0, dtype=torch.int64)))
    assert predict(Pixels(), none).shape == (0, 3)
