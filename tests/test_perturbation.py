"""Adversarial sets made a chunk at a time: what is written, counted and refused, in bounded memory."""

from __future__ import annotations

import math
import subprocess
import sys
import textwrap
from dataclasses import astuple
from functools import partial
from pathlib import Path

import budgets
import numpy as np
import pytest
import torch
from engines import OneByOne
from torch import Tensor

from deepcustom.attacks.art import ByArt
from deepcustom.attacks.bank import DGNBank, ready
from deepcustom.attacks.chunks import ByDgns
from deepcustom.attacks.perturb import Effect, SplitAttack, chunk_size, perturb_split
from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.errors import ThreatModelError
from deepcustom.base.progress import silent
from deepcustom.data.arrays import AdversarialSet, Split
from deepcustom.data.sources import find_source
from deepcustom.training.compute import FLOAT32
from deepcustom.training.nets.base import Classifier
from deepcustom.training.nets.mnist import MnistGenerator

MNIST = find_source("mnist").spec
FILES = ["index.npy", "x.npy", "x_adv.npy", "y.npy"]


@pytest.fixture
def split(digits: Split) -> Split:
    """103 images: chunks of 20 leave some over."""
    return digits.take(np.arange(1200, 1303))


def noise(x: Tensor, y: Tensor, start: int) -> Tensor:
    """Up to 0.3 on every pixel, drawn for each row by itself, so that chunks do not matter."""
    rows = []
    for row, image in enumerate(x, start):
        rng = torch.Generator().manual_seed(row)
        rows.append(image + 0.6 * torch.rand(image.shape, generator=rng) - 0.3)
    return ThreatModel(0.3).project(torch.stack(rows), x)


def made(split: Split, folder: Path, net: Classifier, compute, perturb=noise, **options) -> Effect:
    options = {"threat": ThreatModel(0.3), "only_changed": False, "chunk": 20, **options}
    advance = options.pop("advance", silent)
    attack = SplitAttack(perturb, net, compute=compute, **options)
    return perturb_split(split, MNIST, folder, attack, advance)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def whole(split: Split) -> np.ndarray:
    x, y = split.tensors()
    return noise(x, y, 0).numpy()


def predicted(net: Classifier, x: np.ndarray) -> np.ndarray:
    return net(torch.from_numpy(x)).argmax(1).numpy()


class Never(Classifier):
    """Says class 3, whatever it sees."""

    def preactivations(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        return {}, torch.eye(10)[3].expand(len(x), 10)


# What is written


@pytest.mark.parametrize("chunk", [1, 20, 103, 2000])
def test_bytes_are_those_of_the_set_made_whole(split, target_net, compute, tmp_path, chunk):
    AdversarialSet(split.x, whole(split), split.y, split.index).save(tmp_path / "whole")
    made(split, tmp_path / "parts", target_net, compute, chunk=chunk)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert list(contents(tmp_path / "parts")) == FILES


def test_only_changed_keeps_the_rows_whose_prediction_changed(split, target_net, compute, tmp_path):
    x_adv = whole(split)
    changed = predicted(target_net, split.tensors()[0].numpy()) != predicted(target_net, x_adv)
    assert 5 < changed.sum() < 98
    every = AdversarialSet(split.x, x_adv, split.y, split.index)
    every.take(changed).save(tmp_path / "kept")
    effect = made(split, tmp_path / "parts", target_net, compute, only_changed=True)
    assert contents(tmp_path / "parts") == contents(tmp_path / "kept")
    assert effect.images == changed.sum()
    assert effect.predictions_changed == pytest.approx(changed.mean())


def test_a_set_of_nothing_is_a_set(split, compute, tmp_path):
    """No prediction changed; and no image was there in the first place."""
    effect = made(split, tmp_path / "unchanged", Never(), compute, only_changed=True)
    none = made(split.take(np.arange(0)), tmp_path / "empty", Never(), compute)
    x_adv = np.zeros((0, *MNIST.shape), np.float32)
    AdversarialSet(split.x[:0], x_adv, split.y[:0], split.index[:0]).save(tmp_path / "saved")
    for name in ("unchanged", "empty"):
        assert contents(tmp_path / name) == contents(tmp_path / "saved")
    assert len(AdversarialSet.load(tmp_path / "empty", MNIST)) == 0
    assert (effect.images, effect.predictions_changed, none.images) == (0, 0.0, 0)
    assert effect.mean_linf > 0.2
    assert all(math.isnan(value) for value in astuple(none)[1:])


def test_rows_may_repeat_and_be_mapped_from_files(split, target_net, compute, tmp_path):
    """What a benchmark does that needs more images than there are."""
    many = split.take(np.arange(300) % len(split))
    many.save(tmp_path / "many")
    arrays = (np.load(tmp_path / f"many/{name}.npy", mmap_mode="r") for name in ("x", "y", "index"))
    effect = made(Split(*arrays), tmp_path / "parts", target_net, compute)
    assert effect.images == 300
    np.testing.assert_array_equal(np.load(tmp_path / "parts/index.npy"), many.index)
    np.testing.assert_array_equal(np.load(tmp_path / "parts/x_adv.npy"), whole(many))


def test_wider_floats_are_stored_as_float32(split, target_net, compute, tmp_path):
    made(split, tmp_path / "narrow", target_net, compute)

    def wide(x: Tensor, y: Tensor, start: int) -> Tensor:
        return noise(x, y, start).double()

    made(split, tmp_path / "wide", target_net, compute, wide)
    assert contents(tmp_path / "wide") == contents(tmp_path / "narrow")


# What is asked and said


def test_perturb_gets_every_image_once_in_order_with_its_row(split, target_net, compute, tmp_path):
    seen = []

    def perturb(x: Tensor, y: Tensor, start: int) -> Tensor:
        seen.append((x, y, start))
        return x

    counts = []

    def advance(note: str = "", steps: int = 1, **more) -> None:
        counts.append(steps)

    made(split, tmp_path, target_net, compute, perturb, advance=advance)
    x, y = split.tensors()
    assert torch.equal(torch.cat([images for images, _, _ in seen]), x)
    assert torch.equal(torch.cat([labels for _, labels, _ in seen]), y)
    assert {(images.dtype, labels.dtype) for images, labels, _ in seen} == {(x.dtype, y.dtype)}
    assert [start for _, _, start in seen] == [0, 20, 40, 60, 80, 100]
    assert counts == [20, 20, 20, 20, 20, 3]


@pytest.mark.parametrize("only_changed", [False, True])
@pytest.mark.parametrize("chunk", [7, 103])
def test_effect_is_that_of_a_slow_reference(
    split, target_net, compute, tmp_path, chunk, only_changed
):
    x, x_adv = split.x / 255.0, whole(split).astype(np.float64)
    before = predicted(target_net, split.tensors()[0].numpy())
    after = predicted(target_net, whole(split))
    right = [row for row in range(len(split)) if before[row] == split.y[row]]
    changed = [row for row in range(len(split)) if before[row] != after[row]]
    moved = [(x_adv[row] - x[row]).ravel() for row in range(len(split))]
    expected = Effect(
        images=len(changed) if only_changed else 103,
        clean_accuracy=len(right) / 103,
        target_accuracy=sum(after == split.y) / 103,
        attack_success_rate=sum(after[row] != split.y[row] for row in right) / len(right),
        predictions_changed=len(changed) / 103,
        mean_linf=sum(max(abs(image)) for image in moved) / 103,
        mean_l2=sum(math.sqrt(sum(image**2)) for image in moved) / 103,
    )
    options = {"chunk": chunk, "only_changed": only_changed}
    effect = made(split, tmp_path, target_net, compute, **options)
    assert astuple(effect) == pytest.approx(astuple(expected), rel=1e-6)
    assert len(set(astuple(effect))) == 7, "the shares are too alike to tell apart"


# What is refused


def test_an_image_outside_the_ball_leaves_nothing(split, target_net, compute, tmp_path):
    def outside(x: Tensor, y: Tensor, start: int) -> Tensor:
        x_adv = noise(x, y, start)
        if start == 40:
            x_adv[7] = 1 - x[7]
        return x_adv

    with pytest.raises(ThreatModelError, match=r"1 of 20 images lie outside the eps=0\.3 ball"):
        made(split, tmp_path, target_net, compute, outside)
    assert list(tmp_path.iterdir()) == []
    unbound = ThreatModel(0.3, clip=False)
    assert made(split, tmp_path, target_net, compute, outside, threat=unbound).images == 103


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda x: x[:, :, 1:], "shapes differ"),
        (lambda x: x[1:], "shapes differ"),
        (lambda x: x / 0 * 0, "20 of 20 images lie outside"),
    ],
    ids=["smaller", "fewer", "nan"],
)
def test_what_is_no_such_image_is_refused(split, target_net, compute, tmp_path, wrong, message):
    with pytest.raises(ThreatModelError, match=message):
        made(split, tmp_path, target_net, compute, lambda x, y, start: wrong(x))
    assert list(tmp_path.iterdir()) == []


def test_a_failure_half_way_leaves_the_older_set(split, target_net, compute, tmp_path):
    made(split, tmp_path, target_net, compute, lambda x, y, start: x)
    before = contents(tmp_path)

    def fails(x: Tensor, y: Tensor, start: int) -> Tensor:
        if start == 60:
            raise KeyboardInterrupt
        return noise(x, y, start)

    with pytest.raises(KeyboardInterrupt):
        made(split, tmp_path, target_net, compute, fails)
    assert contents(tmp_path) == before
    made(split, tmp_path, target_net, compute)
    assert contents(tmp_path) != before


# Memory

PEAKS = """
    import sys
    from pathlib import Path
    import numpy as np
    import torch
    from deepcustom.training.compute import FLOAT32, keep_freed_memory
    from deepcustom.data.arrays import AdversarialSet, Split
    from deepcustom.data.sources import find_source
    from deepcustom.attacks.bank import DGNBank
    from deepcustom.training.nets.base import Classifier
    from deepcustom.attacks.perturb import SplitAttack, perturb_split
    from deepcustom.training.nets.base import Classifier
    from deepcustom.attacks.perturb import perturb_split
    from deepcustom.attacks.threat import ThreatModel

    class FirstPixels(Classifier):
        def preactivations(self, x):
            return {}, x.flatten(1)[:, :10]

    def dgn():
        net = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3, padding=1), torch.nn.Sigmoid())
        return net.eval().requires_grad_(False)

    def peak(n):
        '''Of this process so far, in MB, after making and reading a set of n images.'''
        rng = np.random.default_rng(0)
        with open(folder / "x.npy", "wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "|u1", "fortran_order": False, "shape": (n, *cifar10.shape)}
            )
            for _ in range(n // 1000):
                file.write(rng.bytes(1000 * 3072))
        x = np.load(folder / "x.npy", mmap_mode="r")
        split = Split(x, rng.integers(0, 10, n, dtype=np.uint8), np.arange(n))
        attack = SplitAttack(
            lambda x, y, start: bank.generate(x, y, threat, compute=FLOAT32),
            FirstPixels(), threat, FLOAT32, only_changed=False, chunk=250,
        )
        made = perturb_split(split, cifar10, folder / "set", attack)
        assert made.images == len(AdversarialSet.load(folder / "set", cifar10)) == n
        # Not ru_maxrss: it begins with what the process that started this one held.
        (line,) = [s for s in open("/proc/self/status") if s.startswith("VmHWM")]
        return int(line.split()[1]) / 1024

    torch.set_num_threads(1)
    keep_freed_memory()
    folder, cifar10, threat = Path(sys.argv[1]), find_source("cifar10").spec, ThreatModel(0.1)
    bank = DGNBank("cifar10", "none", "perturbation", [dgn() for _ in range(10)])
    print(peak(4000), peak(16000))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the peak")
def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    """12,000 more images are 37 MB as bytes and 147 MB as the floats of each of x and x_adv."""
    command = [sys.executable, "-c", textwrap.dedent(PEAKS), str(tmp_path)]

    def grown() -> float:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        few, many = map(float, done.stdout.split())
        print(f"{few:.0f} MB for 4,000 images, {many:.0f} MB for 16,000")
        return many - few

    # A busy system takes freed pages back late, which only ever adds.
    assert grown() < 12 or grown() < 12


@pytest.mark.parametrize(
    ("wanted", "shape", "batch", "size"),
    [
        (2000, (1, 28, 28), 200, 2000),
        (2000, (3, 32, 32), 128, 1920),
        (20_000, (3, 32, 32), 200, 5400),
        (2000, (3, 256, 256), 8, 80),
        (2000, (3, 256, 256), 500, 500),
        (100, (1, 8, 8), 200, 200),
    ],
)
def test_chunks_are_whole_batches_of_little_memory(
    wanted: int, shape: tuple[int, ...], batch: int, size: int
) -> None:
    assert chunk_size(wanted, shape, batch) == size


@pytest.mark.parametrize("method", ["fgsm", "pgd", "dgn", "dgn, predicted label"])
def test_chunks_made_as_tasks_are_the_same_bytes(
    method: str, digits: Split, target_net: Classifier, threat: ThreatModel, tmp_path: Path
) -> None:
    split = digits.take(np.arange(1000, 1050))
    if method.startswith("dgn"):
        nets = []
        for label in range(10):
            torch.manual_seed(label)
            nets.append(ready(MnistGenerator(), torch.device("cpu")))
        label = "predicted" if "predicted" in method else "true"
        bank = DGNBank("mnist", "nce", "perturbation", nets)
        maker = ByDgns(bank, target_net, threat, label, batch_size=8)
    else:
        steps = {"eps_step": 0.1, "max_iter": 2, "num_random_init": 1}
        params = budgets.attack(method=method, batch_size=8, **(steps if method == "pgd" else {}))
        maker = ByArt(target_net, params, threat, num_classes=10, seed=7)
    attack = SplitAttack(
        partial(maker, compute=FLOAT32), target_net, threat, FLOAT32, True, chunk=16, maker=maker
    )
    engine, told = OneByOne(), []
    here = perturb_split(split, MNIST, tmp_path / "here", attack)
    there = perturb_split(
        split,
        MNIST,
        tmp_path / "there",
        attack,
        lambda note="", steps=1, **k: told.append(steps),
        engine,
    )
    assert engine.done == [f"rows from {start}" for start in (48, 32, 16, 0)]
    assert sum(told) == len(split)
    assert here == there
    files = [
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("here", "there")
    ]
    assert files[0] == files[1]
    assert here.predictions_changed > 0
