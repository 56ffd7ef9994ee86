"""What is kept of interrupted work: what comes back, and what is not relied on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from deepcustom.training import checkpoint as module
from deepcustom.training.checkpoint import NOWHERE, Checkpoint
from deepcustom.training.weights import load_tensors, save_tensors

TENSORS = {
    "weight": torch.rand(3, 4, generator=torch.Generator().manual_seed(0)),
    "turned": torch.arange(6.0).view(2, 3).T,
    "batches": torch.tensor(7),
    "none": torch.zeros(0, 2),
}
ABOUT = {"epoch": 2, "history": [["loss", [1 / 3, 1e-300]], ["a", [0.1 + 0.2]]]}


@pytest.fixture
def kept(tmp_path: Path) -> Checkpoint:
    made = Checkpoint(tmp_path / "stage/item", "f")
    made.save("epoch", TENSORS, ABOUT)
    return made


@pytest.fixture
def file(kept: Checkpoint, tmp_path: Path) -> Path:
    (found,) = (path for path in tmp_path.rglob("*") if path.is_file())
    return found


def test_everything_comes_back(kept: Checkpoint) -> None:
    tensors, about = Checkpoint(kept.folder, "f").load("epoch") or ({}, {})
    assert about == ABOUT
    assert set(tensors) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert torch.equal(tensors[name], tensor)
        assert tensors[name].dtype is tensor.dtype


def test_the_last_state_counts(kept: Checkpoint) -> None:
    kept.save("epoch", {"w": torch.ones(1)}, {"epoch": 3})
    assert kept.load("epoch") == ({"w": torch.ones(1)}, {"epoch": 3})


def test_each_name_and_each_part_has_its_own(kept: Checkpoint) -> None:
    other = kept.part("class_3")
    assert (kept.load("class_3"), other.load("epoch")) == (None, None)
    other.save("epoch", {}, {"epoch": 9})
    kept.save("class_3", {}, {"done": True})
    assert other.load("epoch") == ({}, {"epoch": 9})
    assert kept.load("class_3") == ({}, {"done": True})
    other.clear()
    assert other.load("epoch") is None
    assert kept.load("class_3") == ({}, {"done": True})
    assert kept.load("epoch") is not None


def test_cleared_it_is_gone_with_its_parts(kept: Checkpoint) -> None:
    kept.part("a").save("epoch", {}, {})
    kept.clear()
    assert not kept.folder.exists()
    assert kept.load("epoch") is None
    kept.clear()


def test_a_folder_that_another_run_clears_is_made_again(
    kept: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same stage, started twice: the other run ends while this one is at work."""

    def write_and_clear(*given: object) -> None:
        save_tensors(*given)
        monkeypatch.setattr(module, "save_tensors", save_tensors)
        kept.clear()

    monkeypatch.setattr(module, "save_tensors", write_and_clear)
    kept.save("epoch", {}, {"epoch": 5})
    assert kept.load("epoch") == ({}, {"epoch": 5})


def test_another_fingerprint_counts_as_absent(kept: Checkpoint, file: Path) -> None:
    other = Checkpoint(kept.folder, "g")
    assert other.load("epoch") is None
    assert kept.load("epoch") is not None
    assert load_tensors(file)[1]["fingerprint"] == "f"
    other.save("epoch", {}, {})
    assert kept.load("epoch") is None


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5])


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def overwritten(file: Path) -> None:
    """As after a crash of the machine: of the right size, and the end of it never written."""
    file.write_bytes(file.read_bytes()[:-8] + bytes(8))


def other_history(file: Path) -> None:
    data = file.read_bytes()
    assert data.count(b"1e-300") == 1
    file.write_bytes(data.replace(b"1e-300", b"1e-301"))


def other_shape(file: Path) -> None:
    tensors, about = load_tensors(file)
    save_tensors(file, {**tensors, "weight": tensors["weight"].view(4, 3)}, about)


def something_else(file: Path) -> None:
    save_tensors(file, TENSORS, {"kind": "classifier"})


def folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize(
    "spoil", [cut, emptied, overwritten, other_history, other_shape, something_else, folder]
)
def test_what_is_damaged_counts_as_absent(
    kept: Checkpoint, file: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(file)
    assert kept.load("epoch") is None


def test_a_save_that_fails_leaves_the_state_before(
    kept: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(path: Path, *args: object) -> None:
        path.write_bytes(b"half a file")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "save_tensors", half)
        with pytest.raises(KeyboardInterrupt):
            kept.save("epoch", {}, {})
    assert (kept.load("epoch") or ({}, {}))[1] == ABOUT
    kept.save("epoch", {}, {"epoch": 3})
    assert kept.load("epoch") == ({}, {"epoch": 3})
    assert len(list(kept.folder.iterdir())) == 1


def test_nowhere_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place in (NOWHERE, NOWHERE.part("a")):
        place.save("epoch", TENSORS, ABOUT)
        assert place.load("epoch") is None
        place.clear()
    assert list(tmp_path.iterdir()) == []
