"""Networks and arrays as files: what comes back, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from deepcustom.base.errors import InputError, OutputError
from deepcustom.base.files import partial_of
from deepcustom.training.nets.mnist import MnistClassifier, MnistGenerator
from deepcustom.training.weights import (
    load_network,
    load_state,
    load_tensors,
    save_network,
    save_tensors,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.safetensors"


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def test_tensors_and_metadata_come_back(path):
    tensors = {
        "a": torch.rand(2, 3),
        "b.c": torch.tensor([True, False]),
        "n": torch.tensor(7),
        "half": torch.rand(4).half(),
        "turned": torch.rand(3, 5).T,
        "empty": torch.zeros(0, 2),
    }
    about = {"kind": "things", "classes": 10, "nested": {"eps": 0.3, "list": [1, "é"]}}
    save_tensors(path, tensors, about)
    found, metadata = load_tensors(path)
    assert metadata == about
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        assert found[name].dtype is tensor.dtype
        assert torch.equal(found[name], tensor)


@pytest.mark.parametrize(
    ("name", "dtype", "says"),
    [
        ("0.weight", torch.int8, "0.weight holds torch.int8, expected torch.float32"),
        ("1.num_batches_tracked", torch.float32, "holds torch.float32, expected torch.int64"),
    ],
)
def test_whole_numbers_are_no_weights_and_others_no_counts(path, name, dtype, says):
    """Weights of 8 bits come with a scale that a class of plain layers does not know."""
    tensors = small().state_dict()
    save_tensors(path, {**tensors, name: tensors[name].to(dtype)}, {})
    with pytest.raises(InputError, match=says):
        load_network(path, small())


def test_weights_in_eight_bits_of_floating_point_are_read(path):
    tensors = {
        k: t.to(torch.float8_e4m3fn) if "0." in k else t for k, t in small().state_dict().items()
    }
    save_tensors(path, tensors, {})
    net = small()
    load_network(path, net)
    assert torch.equal(net[0].weight, tensors["0.weight"].float())


def test_same_input_same_bytes(tmp_path):
    tensors = {"b": torch.arange(4.0), "a": torch.arange(6).view(2, 3)}
    first, second = tmp_path / "first", tmp_path / "second"
    save_tensors(first, tensors, {"x": 1, "y": 2})
    save_tensors(second, dict(reversed(tensors.items())), {"y": 2, "x": 1})
    assert first.read_bytes() == second.read_bytes()


def test_saving_detaches_and_leaves_the_tensor(path):
    weight = torch.ones(2, requires_grad=True)
    save_tensors(path, {"w": weight * 2}, {})
    assert not load_tensors(path)[0]["w"].requires_grad
    assert weight.requires_grad


def test_network_comes_back_frozen_in_eval_mode(path):
    net = small()
    net(torch.rand(8, 2))  # moves the running statistics
    save_network(path, net, {"kind": "classifier"})
    torch.manual_seed(9)
    other = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).train()
    assert load_network(path, other) == {"kind": "classifier"}
    assert not other.training
    assert not any(p.requires_grad for p in other.parameters())
    for name, tensor in net.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name


def test_half_precision_comes_back_in_the_networks_own(path):
    net = small()
    halved = {k: t.half() if t.is_floating_point() else t for k, t in net.state_dict().items()}
    load_state(net, halved, path)
    assert net[0].weight.dtype is torch.float32
    assert torch.equal(net[0].weight, halved["0.weight"].float())
    assert net[1].num_batches_tracked.dtype is torch.int64


def refused(path, message, net=None):
    with pytest.raises(InputError) as caught:
        load_network(path, net or small())
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file(path):
    refused(path, "is missing")


@pytest.mark.parametrize("content", [b"", b"x", b"\x80\x04K\x01.", b"\xff" * 100])
def test_what_is_no_safetensors_file(path, content):
    path.write_bytes(content)
    refused(path, "is not a DeepCustom safetensors file, or is corrupted")


def test_safetensors_file_of_others(path):
    save_file(small().state_dict(), path, metadata={"format": "pt"})
    refused(path, "is not a DeepCustom safetensors file")


@pytest.mark.parametrize("keep", [9, 100, -1])
def test_truncated_file(path, keep):
    save_network(path, small(), {})
    path.write_bytes(path.read_bytes()[:keep])
    refused(path, "is not a DeepCustom safetensors file, or is corrupted")


def test_network_of_another_kind(path):
    save_network(path, MnistGenerator(), {})
    refused(path, "does not fit MnistClassifier: differing tensors", MnistClassifier())


def test_another_shape(path):
    state = {**small().state_dict(), "0.weight": torch.zeros(3, 7)}
    save_tensors(path, state, {})
    refused(path, "0.weight has shape (3, 7), expected (3, 2)")


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_values_that_are_not_finite(path, value):
    net = small()
    net[1].running_mean[1] = value
    save_network(path, net, {})
    refused(path, "1.running_mean holds values that are not finite")


def test_a_refused_file_leaves_the_network_as_it_was(path):
    net = small()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    state = {name: torch.zeros_like(t) for name, t in before.items()}
    state["1.running_var"] = torch.full((3,), float("nan"))
    save_tensors(path, state, {})
    refused(path, "not finite", net)
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())


def test_files_are_plain_safetensors(path):
    save_network(path, small(), {"kind": "x"})
    assert set(load_file(path)) == set(small().state_dict())


def test_a_full_disk_is_one_line_that_names_the_file_and_the_old_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = partial_of(tmp_path / "nce.safetensors")
    save_tensors(tmp_path / "mine.safetensors", {"weight": torch.ones(2)}, {})
    before = (tmp_path / "mine.safetensors").read_bytes()

    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:5])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"mine.safetensors cannot be written: No space left"):
        save_tensors(tmp_path / "mine.safetensors", {"weight": torch.zeros(2)}, {})
    assert (tmp_path / "mine.safetensors").read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["mine.safetensors"]
    with pytest.raises(OutputError) as caught:
        save_tensors(place, {"weight": torch.zeros(2)}, {})
    why = "No space left on device"
    assert str(caught.value) == f"{tmp_path}/nce.safetensors cannot be written: {why}"


def test_the_bytes_are_those_of_the_formats_own_writer(tmp_path: Path) -> None:
    state = {**small().state_dict(), "half": torch.rand(3).half(), "none": torch.zeros(0, 2)}
    save_tensors(tmp_path / "ours", state, {"kind": "classifier"})
    save_file(state, tmp_path / "theirs", metadata={"deepcustom": '{"kind": "classifier"}'})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
