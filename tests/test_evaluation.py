"""Scores on sets made against another network, counted by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deepcustom.evaluation.results import Result
from deepcustom.evaluation.transfer import Network, TestSet, transfer
from deepcustom.training.nets.base import Classifier


class FirstPixel(Classifier):
    """Says the class that the first pixel names, in tenths."""

    def preactivations(self, x):
        named = (x[:, 0, 0, 0] * 10).round().long()
        return {}, nn.functional.one_hot(named, 10).float()


def images(*classes: int) -> torch.Tensor:
    return torch.tensor(classes).float().div(10).view(-1, 1, 1, 1)


Y = torch.tensor([0, 1, 2, 3])


def scored(attack: str, x: torch.Tensor, y: torch.Tensor) -> tuple[Result, torch.Tensor]:
    network = Network("robust", "a" * 32, FirstPixel())
    return transfer("mnist", network, TestSet(attack, "d" * 32, x, y))


@pytest.mark.parametrize(
    ("attack", "x", "right"),
    [
        ("clean", images(0, 1, 2, 3), [True, True, True, True]),
        ("lrp", images(0, 1, 9, 9), [True, True, False, False]),
        ("fgsm", images(5, 5, 5, 5), [False, False, False, False]),
    ],
)
def test_transfer_counts_by_hand(attack, x, right):
    result, stands = scored(attack, x, Y)
    assert stands.dtype == torch.bool
    assert stands.tolist() == right
    assert result == Result.of(
        dataset="mnist",
        network="robust",
        protocol="transfer",
        attack=attack,
        correct=sum(right),
        n=4,
        network_md5="a" * 32,
        set_md5="d" * 32,
        queries=4,
    )
    assert result.accuracy == sum(right) / 4
    assert result.ci_low <= result.accuracy <= result.ci_high
    assert (result.gradients, result.queries) == (0, 4)


def test_transfer_on_no_image_is_empty_and_no_error():
    result, stands = scored("none", images(), Y[:0])
    assert result.empty
    assert stands.shape == (0,)


def test_transfer_takes_any_module():
    class Backwards(nn.Module):
        def forward(self, x):
            return FirstPixel()(x).flip(1)

    y = torch.tensor([9, 8, 0])
    network = Network("own", "a" * 32, Backwards())
    result, stands = transfer("mnist", network, TestSet("clean", "b" * 32, images(0, 1, 2), y))
    assert stands.tolist() == [True, True, False]
    assert result.accuracy == pytest.approx(2 / 3, abs=1e-6)
