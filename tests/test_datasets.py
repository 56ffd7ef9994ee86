"""Splits and adversarial sets: what is drawn, what is stored, and what is refused on reading."""

from __future__ import annotations

import hashlib
import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from deepcustom.base.errors import InputError, ParamsError
from deepcustom.data.arrays import AdversarialSet, SetWriter, Split, release
from deepcustom.data.datasets import DatasetSpec, SplitFacts, load_spec, save_spec
from deepcustom.data.draws import carve, in_runs, subset
from deepcustom.data.sources import find_source

NONE = "0" * 64  # a hash that nothing is held against
TINY = DatasetSpec(
    name="tiny",
    title="Tiny",
    shape=(1, 2, 2),
    classes=("a", "b", "c"),
    splits={"train": SplitFacts(90, NONE, NONE), "test": SplitFacts(12, NONE, NONE)},
)


def long_spec(n: int) -> DatasetSpec:
    """Of many images of one pixel."""
    facts = SplitFacts(n, NONE, NONE)
    return DatasetSpec("tiny", "Tiny", (1, 1, 1), ("a",), {"train": facts, "test": facts})


def tiny_split(n: int = 90, seed: int = 0) -> Split:
    """Classes a, b, c in the proportion 3 : 2 : 1."""
    rng = np.random.default_rng(seed)
    y = np.resize(np.array([0, 0, 0, 1, 1, 2], np.uint8), n)
    return Split.whole(rng.integers(0, 256, (n, 1, 2, 2), dtype=np.uint8), rng.permutation(y))


def tiny_set(n: int = 5) -> AdversarialSet:
    split = tiny_split(12)
    x_adv = np.random.default_rng(1).random((n, 1, 2, 2), dtype=np.float32)
    return AdversarialSet(split.x[:n], x_adv, split.y[:n], np.arange(n, dtype=np.int64) * 2)


def assert_equal(got: Split | AdversarialSet, expected: Split | AdversarialSet) -> None:
    assert type(got) is type(expected)
    for name, array in vars(expected).items():
        found = getattr(got, name)
        assert found.dtype == array.dtype, name
        np.testing.assert_array_equal(found, array)


# Specs


def test_what_the_built_in_data_sets_are():
    mnist, cifar10 = find_source("mnist").spec, find_source("cifar10").spec
    assert (mnist.title, mnist.shape, mnist.num_classes) == ("MNIST", (1, 28, 28), 10)
    assert (cifar10.title, cifar10.shape, cifar10.num_classes) == ("CIFAR-10", (3, 32, 32), 10)
    assert cifar10.classes[0] == "airplane"
    assert cifar10.classes[9] == "truck"
    assert [facts.size for facts in mnist.splits.values()] == [60_000, 10_000]
    assert [facts.size for facts in cifar10.splits.values()] == [50_000, 10_000]
    assert cifar10.splits["test"].y_sha256.startswith("cec8a24a")


def test_a_spec_is_read_as_it_was_written_and_its_bytes_are_fixed(tmp_path):
    path = tmp_path / "dataset.json"
    for known in (TINY, find_source("mnist").spec, find_source("cifar10").spec):
        save_spec(known, path)
        assert load_spec(path) == known
    save_spec(TINY, path)
    facts = '{{\n   "size": {},\n   "x_sha256": "{}",\n   "y_sha256": "{}"\n  }}'
    assert path.read_text() == (
        '{\n "classes": [\n  "a",\n  "b",\n  "c"\n ],\n "name": "tiny",\n'
        ' "shape": [\n  1,\n  2,\n  2\n ],\n "splits": {\n'
        f'  "test": {facts.format(12, NONE, NONE)},\n'
        f'  "train": {facts.format(90, NONE, NONE)}\n }},\n "title": "Tiny"\n}}\n'
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"shape": [1, 2]}, "shape: 2: Field required"),
        ({"shape": [1, 0, 2]}, "shape: 1: Input should be greater than or equal to 1"),
        ({"shape": [1, 2.5, 2]}, "shape: 1: Input should be a valid integer"),
        ({"classes": []}, "classes: Tuple should have at least 1 item"),
        ({"classes": "abc"}, "classes: Input should be a valid"),
        ({"title": ""}, "title: String should have at least 1 character"),
        ({"pickle": "no"}, "pickle: Unexpected keyword argument"),
        ({"splits": {}}, "splits: must be of train and test, found none"),
        ({"splits": {"val": {"size": 1, "x_sha256": NONE, "y_sha256": NONE}}}, "found val"),
        ({"splits": {"train": {"size": 1, "x_sha256": "f", "y_sha256": NONE}}}, "x_sha256: String"),
    ],
)
def test_a_spec_with_a_fault_is_refused_in_one_line(tmp_path, change, problem):
    path = tmp_path / "dataset.json"
    save_spec(TINY, path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError) as caught:
        load_spec(path)
    message = str(caught.value)
    assert message.startswith(f"{path} does not describe a data set: ")
    assert problem in message
    assert "\n" not in message


@pytest.mark.parametrize("content", [b"", b"no\njson", b"\xff\xfe", b"[]", b"null"])
def test_what_is_no_spec_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "dataset.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"dataset\.json does not describe a data set: ") as caught:
        load_spec(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"gone\.json: No such file or directory$"):
        load_spec(tmp_path / "gone.json")


# Drawing


@pytest.mark.parametrize("val_size", [3, 18, 45, 87])
def test_carve_splits_without_overlap_and_by_class(val_size):
    whole = tiny_split()
    train, val = carve(whole, val_size, seed=3)
    assert (len(train), len(val)) == (90 - val_size, val_size)
    assert sorted([*train.index, *val.index]) == list(range(90))
    for part in (train, val):
        assert (np.diff(part.index) > 0).all()
        np.testing.assert_array_equal(part.x, whole.x[part.index])
        np.testing.assert_array_equal(part.y, whole.y[part.index])
        share = np.bincount(part.y, minlength=3) / len(part)
        assert np.abs(share * len(part) - np.array([3, 2, 1]) / 6 * len(part)).max() <= 1


def test_carve_of_nothing_gives_an_empty_split_of_the_right_shape(tmp_path):
    whole = tiny_split()
    train, val = carve(whole, 0, seed=3)
    assert_equal(train, whole)
    assert val.x.shape == (0, 1, 2, 2)
    val.save(tmp_path)
    assert_equal(Split.load(tmp_path, TINY), val)


def test_labels_that_come_class_after_class_are_told_from_mixed_ones() -> None:
    listed = np.repeat(np.arange(10), 20)
    assert in_runs(listed)
    assert in_runs(np.repeat([3, 0], [900, 100]))
    mixed = np.random.default_rng(0).permutation(listed)
    assert not in_runs(mixed)
    assert not in_runs(np.random.default_rng(0).permutation(np.repeat([3, 0], [900, 100])))
    assert not in_runs(np.tile(np.arange(10), 20))
    for few in ([], [1], [2] * 50):
        assert not in_runs(np.array(few, np.int64))


def test_draws_follow_the_seed():
    whole = tiny_split()
    same, again, other = (carve(whole, 18, seed=seed)[1].index for seed in (3, 3, 4))
    np.testing.assert_array_equal(same, again)
    assert not np.array_equal(same, other)


@pytest.mark.parametrize("val_size", [-1, 1, 2, 88, 90, 91])
def test_carve_names_the_allowed_range(val_size):
    allowed = r"of 90 images: allowed is 0, or 3 \(one per class\) to 87"
    with pytest.raises(ParamsError, match=f"val_size is {val_size}, {allowed}"):
        carve(tiny_split(), val_size, seed=0)


def test_carve_of_a_class_with_one_image_is_refused():
    lonely = Split.whole(np.zeros((9, 1, 2, 2), np.uint8), np.array([0] * 8 + [1], np.uint8))
    message = "val_size is 4, of 9 images: class 1 has one image, too few for a draw: allowed is 0"
    with pytest.raises(ParamsError, match=message):
        carve(lonely, 4, seed=0)


def test_subset_is_stratified_sorted_and_keeps_official_rows():
    train, _ = carve(tiny_split(), 18, seed=3)
    some = subset(train, 12, seed=5)
    assert np.bincount(some.y).tolist() == [6, 4, 2]
    assert (np.diff(some.index) > 0).all()
    assert set(some.index) < set(train.index)
    np.testing.assert_array_equal(some.x, tiny_split().x[some.index])


def test_subset_of_all_is_all():
    whole = tiny_split()
    assert subset(whole, None, seed=0) is whole
    assert_equal(subset(whole, 90, seed=0), whole)


@pytest.mark.parametrize("size", [0, 2, 88, 91])
def test_subset_names_the_allowed_range(size):
    with pytest.raises(
        ParamsError, match=f"size is {size}, of 90 images: allowed is 90, or 3 .* to 87"
    ):
        subset(tiny_split(), size, seed=0)


def test_a_class_of_one_image_is_too_few_for_a_draw():
    split = tiny_split()
    rows = np.r_[np.flatnonzero(split.y != 2), np.flatnonzero(split.y == 2)[:1]]
    split = split.take(np.sort(rows))
    n = len(split)
    message = f"^n is 8, of {n} images: class 2 has one image, too few for a draw: allowed is {n}$"
    with pytest.raises(ParamsError, match=message):
        subset(split, 8, seed=0, key="n")
    assert_equal(subset(split, n, seed=0, key="n"), split)


# Storing


def test_images_of_a_set_are_found_in_the_split_they_were_made_from():
    pixels = np.zeros((4, 1, 2, 2), np.uint8)
    split = Split(pixels, np.zeros(4, np.uint8), np.array([2, 5, 7, 9]))
    assert split.rows_of(np.array([9, 2, 7]), "it", "train").tolist() == [3, 0, 2]
    assert split.rows_of(np.array([], np.int64), "it", "train").tolist() == []
    for other in ([1], [2, 6], [2, 10]):
        with pytest.raises(InputError, match="the set 'nce' was made from another train split"):
            split.rows_of(np.array(other), "the set 'nce'", "train")


@pytest.mark.parametrize(
    "stored", [tiny_split(), tiny_set(), tiny_set(0)], ids=["split", "set", "empty"]
)
def test_round_trip_is_mapped_and_read_only(tmp_path, stored):
    stored.save(tmp_path / "new" / "folder")
    got = type(stored).load(tmp_path / "new" / "folder", TINY)
    assert_equal(got, stored)
    assert isinstance(got.x, np.memmap)
    assert not got.x.flags.writeable
    assert len(got) == len(stored)
    files = sorted(path.name for path in (tmp_path / "new" / "folder").iterdir())
    assert files == sorted(f"{name}.npy" for name in vars(stored))


def test_same_arrays_give_the_same_bytes(tmp_path):
    stored = tiny_set()
    strided = {name: np.repeat(array, 2, axis=0)[::2] for name, array in vars(stored).items()}
    fortran = {name: np.asfortranarray(array) for name, array in vars(stored).items()}
    digests = set()
    for i, arrays in enumerate((vars(stored), strided, fortran)):
        AdversarialSet(**arrays).save(tmp_path / f"{i}")
        files = sorted((tmp_path / f"{i}").iterdir())
        digests.add(hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest())
    assert len(digests) == 1


def test_save_over_the_files_one_is_mapped_from(tmp_path):
    stored = tiny_split()
    stored.save(tmp_path)
    Split.load(tmp_path, TINY).take(np.arange(0, 90, 2)).save(tmp_path)
    mapped = Split.load(tmp_path, TINY)
    mapped.save(tmp_path)
    assert_equal(Split.load(tmp_path, TINY), stored.take(np.arange(0, 90, 2)))


def test_save_refuses_what_load_would_refuse(tmp_path):
    split = tiny_split()
    with pytest.raises(InputError, match=r"x\.npy: float32 of shape .*, expected uint8"):
        Split(split.x.astype(np.float32), split.y, split.index).save(tmp_path / "out")
    with pytest.raises(
        InputError, match=r"index\.npy: int64 of shape \(89,\), expected .* \(90,\)"
    ):
        Split(split.x, split.y, split.index[1:]).save(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("cuts", [[], [0, 0], [1], [5, 5, 9], range(12)], ids=str)
@pytest.mark.parametrize("n", [0, 9, 12])
def test_a_set_written_in_parts_has_the_same_bytes(tmp_path, cuts, n):
    """Also where the length in the header has one digit more than the 0 that was first there."""
    stored = tiny_set(n)
    stored.save(tmp_path / "whole")
    edges = [0, *(min(cut, n) for cut in cuts), n]
    with SetWriter(tmp_path / "new" / "parts", TINY) as writer:
        for start, stop in pairwise(edges):
            part = stored.take(slice(start, stop))
            writer.append(AdversarialSet(part.x, np.asfortranarray(part.x_adv), part.y, part.index))
            assert not list((tmp_path / "new" / "parts").glob("*.npy"))
    assert folder_bytes(tmp_path / "new" / "parts") == folder_bytes(tmp_path / "whole")


@pytest.mark.parametrize(
    ("name", "array", "problem"),
    [
        ("x_adv", tiny_set().x_adv.astype(np.float64), "float64 of shape (5, 1, 2, 2), expected"),
        ("x", tiny_set().x[:, :, :1], "uint8 of shape (5, 1, 1, 2), expected uint8 of shape (5,"),
        ("index", tiny_set().index[1:], "int64 of shape (4,), expected int64 of shape (5,)"),
    ],
)
def test_a_wrong_part_is_refused_and_the_older_set_stays(tmp_path, name, array, problem):
    tiny_set().save(tmp_path)
    before = folder_bytes(tmp_path)
    wrong = AdversarialSet(**{**vars(tiny_set()), name: array})

    def write() -> None:
        with SetWriter(tmp_path, TINY) as writer:
            writer.append(tiny_set(3))
            writer.append(wrong)

    with pytest.raises(InputError, match=rf"/{name}\.npy: {re.escape(problem)}"):
        write()
    assert folder_bytes(tmp_path) == before


def resident(array: np.ndarray) -> int:
    """kB in memory of the file that ``array`` is mapped from."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.endswith(str(array.filename)))
    return int(next(line for line in lines[start:] if line.startswith("Rss:")).split()[1])


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="asks Linux")
@pytest.mark.parametrize("view", [lambda a: a, lambda a: a[5:], lambda a: np.asarray(a)[::2]])
def test_released_pages_leave_memory_and_stay_readable(tmp_path, view):
    np.save(tmp_path / "x.npy", np.full(1_000_000, 7, np.int64))
    array = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert array.sum() == 7_000_000
    assert resident(array) > 7000
    release(np.zeros(3), view(array))
    assert resident(array) < 100
    assert array.sum() == 7_000_000


def test_release_forgets_no_change(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(5000))
    changed = np.load(tmp_path / "x.npy", mmap_mode="c")
    changed[:] = 1
    release(changed, changed[10:], np.asarray(changed))
    assert changed.sum() == 5000


@pytest.mark.parametrize("row", [1, 2047, 2048, 4999])
def test_a_row_twice_is_found_in_any_chunk(tmp_path, row):
    n = 5000
    long = long_spec(n)
    index = np.arange(n)[::-1].copy()
    stored = Split(np.zeros((n, 1, 1, 1), np.uint8), np.zeros(n, np.uint8), index)
    stored.save(tmp_path)
    assert len(Split.load(tmp_path, long)) == n
    index[row] = index[0]
    stored.save(tmp_path)
    with pytest.raises(InputError, match=r"index\.npy: a row occurs twice"):
        Split.load(tmp_path, long)


def changed(array: np.ndarray, value: float) -> np.ndarray:
    array = array.copy()
    array[-1] = value
    return array


GOOD = tiny_set()
WRONG = [
    (
        "x",
        GOOD.x.astype(np.float32),
        "float32 of shape (5, 1, 2, 2), expected uint8 of shape (5, 1, 2, 2)",
    ),
    ("x", GOOD.x[:4], "uint8 of shape (4, 1, 2, 2), expected uint8 of shape (5, 1, 2, 2)"),
    ("x", GOOD.x.reshape(5, 4), "uint8 of shape (5, 4), expected uint8 of shape (5, 1, 2, 2)"),
    ("x_adv", GOOD.x_adv.astype(np.float64), "float64 of shape (5, 1, 2, 2), expected float32"),
    ("x_adv", changed(GOOD.x_adv, np.nan), "values from nan to nan, expected 0 to 1, all finite"),
    ("x_adv", changed(GOOD.x_adv, np.inf), "to inf, expected 0 to 1, all finite"),
    ("x_adv", changed(GOOD.x_adv, np.nextafter(np.float32(1), 2)), "expected 0 to 1, all finite"),
    ("x_adv", changed(GOOD.x_adv, -1e-6), "values from -9.99"),
    ("y", changed(GOOD.y, 3), "to 3, expected 0 to 2"),
    ("y", np.uint8(1), "uint8 of shape (), expected uint8 of shape (5,)"),
    ("index", GOOD.index.astype(np.int32), "int32 of shape (5,), expected int64 of shape (5,)"),
    ("index", changed(GOOD.index, 90), "values from 0 to 90, expected 0 to 89"),
    ("index", changed(GOOD.index, -1), "values from -1 to 6, expected 0 to 89"),
    ("index", changed(GOOD.index, 0), "a row occurs twice"),
]


@pytest.mark.parametrize(("name", "array", "problem"), WRONG)
def test_load_names_the_file_what_it_holds_and_what_is_expected(tmp_path, name, array, problem):
    GOOD.save(tmp_path)
    np.save(tmp_path / f"{name}.npy", array)
    with pytest.raises(InputError, match=re.escape(problem)) as caught:
        AdversarialSet.load(tmp_path, TINY)
    assert str(caught.value).startswith(f"{tmp_path / name}.npy: ")
    assert "\n" not in str(caught.value)


def test_a_wrong_value_is_found_in_any_chunk(tmp_path):
    n = 5000
    wide = long_spec(n)
    x = np.zeros((n, 1, 1, 1), np.uint8)
    x_adv = x.astype(np.float32)
    stored = AdversarialSet(x, x_adv, np.zeros(n, np.uint8), np.arange(n))
    for row in (0, 2500, n - 1):
        x_adv[:] = 0
        x_adv[row] = np.nan
        stored.save(tmp_path)
        with pytest.raises(InputError, match=r"x_adv\.npy: values from nan"):
            AdversarialSet.load(tmp_path, wide)


def no_file(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("not an array\n")


def objects(path: Path) -> None:
    np.save(path, np.array([{}, {}], dtype=object), allow_pickle=True)


def archive(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, x=np.zeros(3))


@pytest.mark.parametrize("spoil", [no_file, cut, empty, text, objects, archive])
@pytest.mark.parametrize("name", ["x", "index"])
def test_load_refuses_files_that_are_no_arrays(tmp_path, spoil, name):
    tiny_split().save(tmp_path)
    spoil(tmp_path / f"{name}.npy")
    with pytest.raises(InputError, match=rf"/{name}\.npy: .*\.npy") as caught:
        Split.load(tmp_path, TINY)
    assert "\n" not in str(caught.value)


# Tensors


def test_tensors_of_a_split(tmp_path):
    import torch

    tiny_split().save(tmp_path)
    split = Split.load(tmp_path, TINY)
    x, y = split.tensors()
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert x.shape == (90, 1, 2, 2)
    np.testing.assert_array_equal(x.numpy(), split.x.astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(y.numpy(), split.y)
    before = split.x.copy()
    x.zero_()
    np.testing.assert_array_equal(split.x, before)


def test_every_pixel_value_maps_into_the_unit_range_exactly():
    values = np.arange(256, dtype=np.uint8).reshape(64, 1, 2, 2)
    x, _ = Split.whole(values, np.zeros(64, np.uint8)).tensors()
    expected = (np.arange(256) / 255).astype(np.float32)
    np.testing.assert_array_equal(x.numpy().ravel(), expected)


@pytest.mark.parametrize("n", [5, 0])
def test_tensors_of_an_adversarial_set_are_copies(tmp_path, n):
    import torch

    tiny_set(n).save(tmp_path)
    stored = AdversarialSet.load(tmp_path, TINY)
    x, x_adv, y = stored.tensors()
    assert x.shape == x_adv.shape == (n, 1, 2, 2)
    assert (x.dtype, x_adv.dtype, y.dtype) == (torch.float32, torch.float32, torch.int64)
    np.testing.assert_array_equal(x_adv.numpy(), stored.x_adv)
    x_adv.zero_()
    np.testing.assert_array_equal(stored.x_adv, tiny_set(n).x_adv)


def test_rows_of_finds_each_image_in_its_split():
    split = some(6)
    chosen = split.index[[4, 0, 3]]
    rows = split.rows_of(chosen, "the set", "test")
    assert (rows.tolist(), rows.dtype) == ([4, 0, 3], np.int64)
    assert split.rows_of(chosen[:0], "the set", "test").tolist() == []


@pytest.mark.parametrize("missing", [-1, 1, 1000])
def test_rows_of_refuses_what_is_of_another_split(missing):
    split = some(6)
    wanted = np.array([split.index[0], split.index[-1] + missing if missing == 1000 else missing])
    with pytest.raises(InputError, match=r"^the set was made from another test split$"):
        split.rows_of(wanted, "the set", "test")


def some(n):
    x = np.zeros((n, 1, 28, 28), np.uint8)
    return Split(x, np.zeros(n, np.uint8), 10 * np.arange(n, dtype=np.int64))
