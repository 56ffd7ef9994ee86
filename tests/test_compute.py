"""Device, precision and seeds."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import budgets
import numpy as np
import pytest
import torch

from deepcustom.base.errors import ParamsError
from deepcustom.training import compute as module
from deepcustom.training.compute import (
    FLOAT32,
    Compute,
    derive_seed,
    keep_freed_memory,
    seed_everything,
)

CPU = torch.device("cpu")


@pytest.fixture
def machine(monkeypatch):
    """Make this machine have some devices."""

    def has(*, cuda=False, bf16=True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)

    return has


def of(device="auto", precision="auto") -> Compute:
    return Compute.of(budgets.computing(device=device, precision=precision))


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


@pytest.mark.parametrize(
    ("onednn", "instructions", "dtype"),
    [
        (True, {"avx512_f": True, "avx512_bf16": True, "amx_bf16": False}, "bfloat16"),
        (True, {"avx512_f": True, "avx512_bf16": False, "amx_bf16": True}, "bfloat16"),
        (True, {"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, "float32"),
        (True, {"architecture": "aarch64"}, "float32"),
        (False, {"avx512_bf16": True}, "float32"),
    ],
)
def test_auto_precision_on_a_cpu(machine, monkeypatch, onednn, instructions, dtype):
    machine()
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: onednn)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    assert of().precision is getattr(torch, dtype)


def test_auto_precision_here_is_what_the_processor_has():
    flags = Path("/proc/cpuinfo")
    if not flags.is_file():
        pytest.skip("asks Linux for the processor's flags")
    words = flags.read_text().split()
    native = torch.backends.mkldnn.is_available() and {"avx512_bf16", "amx_bf16"} & set(words)
    assert of("cpu").precision is (torch.bfloat16 if native else torch.float32)


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


# Memory

FAULTS = """
import resource, torch
from deepcustom.training.compute import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.ones(2**24)
given_back = faults()
print(keep_freed_memory())
faults()
# The least of some: a system short of memory takes idle pages back at any time.
print(given_back, min(faults() for _ in range(5)))
"""


@pytest.fixture
def untuned(monkeypatch):
    for name in [*os.environ]:
        if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES":
            monkeypatch.delenv(name)


glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc")


@glibc
@pytest.mark.usefixtures("untuned")
def test_freed_memory_is_used_again_and_not_asked_for_anew():
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], check=True, capture_output=True, text=True
    )
    kept, given_back, again = done.stdout.split()
    assert kept == "True"
    assert int(again) < int(given_back) / 4


@glibc
@pytest.mark.usefixtures("untuned")
@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("MALLOC_ARENA_MAX", "1", False),
        ("MALLOC_TRIM_THRESHOLD_", "131072", False),
        ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=131072", False),
        ("GLIBC_TUNABLES", "glibc.cpu.x86_shstk=on", True),
        ("UNRELATED", "1", True),
    ],
)
def test_the_users_own_settings_of_the_allocator_stand(monkeypatch, name, value, kept):
    monkeypatch.setenv(name, value)
    assert keep_freed_memory() is kept


@pytest.mark.parametrize("libc", [object(), SimpleNamespace(mallopt=lambda *_: 1)])
@pytest.mark.usefixtures("untuned")
def test_another_c_library_is_left_alone(monkeypatch, libc):
    monkeypatch.setattr(module.ctypes, "CDLL", lambda name: libc)
    assert keep_freed_memory() is False


@pytest.mark.parametrize(
    ("most", "trims", "kept"),
    [(2**30, True, True), (2**25, True, True), (2**20, True, False), (2**30, False, False)],
)
@pytest.mark.usefixtures("untuned")
def test_an_older_glibc_takes_smaller_thresholds(monkeypatch, most, trims, kept):
    taken = {}

    def mallopt(option: int, value: int) -> int:
        good = trims if option == module._M_TRIM_THRESHOLD else value <= most
        if good:
            taken[option] = value
        return int(good)

    libc = SimpleNamespace(mallopt=mallopt, gnu_get_libc_version=None)
    monkeypatch.setattr(module.ctypes, "CDLL", lambda name: libc)
    assert keep_freed_memory() is kept
    assert taken.get(module._M_MMAP_THRESHOLD) == (most if most >= 2**25 else None)
    assert (module._M_TRIM_THRESHOLD in taken) is trims  # whatever became of the other


def test_choosing_where_to_compute_keeps_freed_memory(monkeypatch):
    calls = []
    monkeypatch.setattr(module, "keep_freed_memory", lambda: calls.append(1))
    of()
    assert calls == [1]


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


def test_the_kind_of_gpu_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"a card at {device}")
    on_gpu = Compute(torch.device("cuda"), torch.bfloat16).describe()
    assert on_gpu["gpu"] == "a card at cuda"
    assert "gpu" not in FLOAT32.describe()
