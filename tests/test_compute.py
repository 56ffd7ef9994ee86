"""Device, precision and seeds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deepcustom.compute import FLOAT32, Compute, derive_seed, seed_everything
from deepcustom.errors import ParamsError
from deepcustom.params import ComputeParams

CPU = torch.device("cpu")


@pytest.fixture
def machine(monkeypatch):
    """Make this machine have some devices."""

    def has(*, cuda=False, bf16=True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)

    return has


def of(device="auto", precision="auto") -> Compute:
    return Compute.of(ComputeParams(device=device, precision=precision))


def test_auto_takes_the_best_device(machine):
    machine(cuda=True)
    assert of().device.type == "cuda"
    machine()
    assert of().device == CPU
    machine(cuda=True)
    assert of(device="cpu").device == CPU


def test_missing_device_names_what_there_is(machine):
    machine()
    message = r"^params\.yaml: compute\.device is 'cuda', but this machine has: cpu$"
    with pytest.raises(ParamsError, match=message):
        of(device="cuda")


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_named_precision_is_taken(name):
    assert of("cpu", name).precision is getattr(torch, name)


def test_auto_precision_on_a_gpu(machine):
    machine(cuda=True, bf16=True)
    assert of().precision is torch.bfloat16
    machine(cuda=True, bf16=False)
    assert of().precision is torch.float16


@pytest.mark.parametrize(("supported", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_auto_precision_on_a_cpu(machine, monkeypatch, supported, dtype):
    machine()
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)
    assert of().precision is getattr(torch, dtype)


def test_autocast_does_nothing_in_float32_and_casts_otherwise():
    a = torch.rand(4, 4)
    with FLOAT32.autocast():
        assert (a @ a).dtype is torch.float32
    for dtype in (torch.bfloat16, torch.float16):
        with Compute(CPU, dtype).autocast():
            assert (a @ a).dtype is dtype


def test_describe_says_what_was_chosen():
    found = Compute(CPU, torch.bfloat16).describe()
    assert found["device"] == "cpu"
    assert found["precision"] == "bfloat16"
    assert found["threads"] == str(torch.get_num_threads())
    assert all(isinstance(value, str) and value for value in found.values())


# Seeds


def test_derived_seeds_are_stable():
    """Numbers kept here: a change of them changes every result."""
    assert derive_seed(20201) == 68188668
    assert derive_seed(20201, "train_dgn", "mnist", "nce") == 996580617
    assert derive_seed(0, "3") == 249556552


def test_derived_seeds_are_distinct_and_in_range():
    names = [(), ("a",), ("b",), ("a", "b"), ("b", "a"), ("a", "a"), ("1",), ("11",), ("1", "1")]
    seeds = [derive_seed(seed, *name) for seed in range(200) for name in names]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert max(seeds) > 2**30


def test_seed_everything_seeds_torch_and_numpy():
    def draw(seed):
        seed_everything(seed)
        return torch.rand(3).tolist(), np.random.rand(3).tolist()

    assert draw(1) == draw(1)
    (a, b), (c, d) = draw(1), draw(2)
    assert a != c
    assert b != d
