"""Messages are told whole: the remedy often stands at the end."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import deepcustom
from deepcustom.base.errors import InputError, ParamsError, one_line, some_of
from deepcustom.base.params import validate
from deepcustom.base.settings import TrainingParams
from deepcustom.data.sources import _npm_problem
from deepcustom.training.compute import FLOAT32
from deepcustom.training.short_trial import check_outputs

LONG = "the shapes do not fit, " * 40
REMEDY = "reshape the images to 32 x 32 first"


class Refusing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError(f"{LONG}\n{REMEDY}")


class Broken(Dataset[tuple[Tensor, int]]):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        raise RuntimeError(f"{LONG}\n{REMEDY}")


def test_an_error_is_one_line_and_whole() -> None:
    assert one_line(ValueError("one\n  two " + "x" * 500)) == f"ValueError: one two {'x' * 500}"


def test_what_is_left_out_of_a_list_is_counted() -> None:
    assert some_of(["a", "b"], 2) == "a, b"
    assert some_of(["a", "b", "c", "d"], 2) == "a, b and 2 more"


def test_what_a_network_says_is_not_cut() -> None:
    x, y = torch.rand(20, 1, 8, 8), torch.arange(20) % 10
    with pytest.raises(InputError, match=REMEDY):
        deepcustom.evaluate(Refusing(), x, y, 0.1)
    with pytest.raises(InputError, match=f"{REMEDY}$"):
        check_outputs(Refusing(), (1, 8, 8), 10, FLOAT32, "own.nets.mine:Refusing")


def test_what_a_data_set_says_is_not_cut() -> None:
    with pytest.raises(InputError, match=f"{REMEDY}$"):
        deepcustom.evaluate(nn.Flatten(), Broken(), eps=0.1)


def test_what_npm_says_is_not_cut() -> None:
    lines = [f"npm error code {n}" for n in range(4)]
    told = _npm_problem("\n".join(["npm warn hm", *lines, f"npm error {LONG}{REMEDY}"]))
    assert told.endswith(REMEDY)
    assert "code 3" in told
    assert "warn" not in told


def test_faults_that_are_not_told_are_counted() -> None:
    wrong = {"learning_rate": 2, "epochs": 0, "batch_size": 0, "momentum": 2, "weight_decay": -1}
    with pytest.raises(ParamsError, match=r"batch_size: .*; and 2 more$"):
        validate(TrainingParams, {**wrong, "schedule": "constant"}, "recipes.a.training")
