"""A user's own network: weights for a class or an exported program in, clear words where they do not fit."""

from __future__ import annotations

import importlib
import json
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from deepcustom.base.errors import InputError
from deepcustom.data.sources import find_source
from deepcustom.evaluation.own_network import load_own, own_source
from deepcustom.training.compute import FLOAT32
from deepcustom.training.nets.base import parameter_count
from deepcustom.training.nets.mnist import MnistClassifier

MNIST = find_source("mnist").spec

MODULE = """
import torch
from torch import nn

class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.scores = nn.Linear(784, 10)
    def forward(self, x):
        return self.scores(x.flatten(1))

class Words:
    pass

class Lazy(Mine):
    def __init__(self):
        super().__init__()
        self.scores = nn.LazyLinear(10)

class Empty(Mine):
    def __init__(self):
        super().__init__()
        self.scores.to("meta")

class Needs(Mine):
    def __init__(self, size):
        super().__init__()
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module of the user's, being the current one."""
    (tmp_path / "my_nets.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_nets", raising=False)
    return tmp_path


def weights(path: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    linear = nn.Linear(784, 10)
    save_file({f"scores.{k}": v for k, v in linear.state_dict().items()}, path)
    return path


def exported(path: Path, net: nn.Module, dynamic: bool = True) -> Path:
    shapes = ({0: torch.export.Dim("images")},) if dynamic else None
    images = (torch.rand(2, 1, 28, 28),)
    torch.export.save(torch.export.export(net.eval(), images, dynamic_shapes=shapes), path)
    return path


def load(path: Path, **options: Any) -> nn.Module:
    """What takes the place of a network of MNIST's."""
    return load_own(path, MNIST, FLOAT32, default=MnistClassifier, **options)


def images() -> Tensor:
    return torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(1))


def test_weights_for_a_class_of_the_users_own(here: Path) -> None:
    path = weights(here / "mine.safetensors")
    net = load(path, architecture="my_nets:Mine")
    torch.manual_seed(0)
    assert torch.equal(net(images()), nn.Linear(784, 10)(images().flatten(1)))
    assert not net.training
    assert not any(parameter.requires_grad for parameter in net.parameters())


def test_without_a_class_it_is_the_projects_network(here: Path) -> None:
    one = MnistClassifier().eval()
    save_file(one.state_dict(), here / "a.safetensors")
    net = load(here / "a.safetensors")
    assert torch.equal(net(images()), one(images()))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Lazy", "my_nets:Lazy: scores.weight has no shape yet: give its layer a size"),
        ("Empty", "my_nets:Empty: scores.weight lies on the device meta, so it holds nothing"),
    ],
)
def test_a_class_without_weights_of_its_own_is_one_line(
    here: Path, name: str, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load(weights(here / "mine.safetensors"), architecture=f"my_nets:{name}")
    assert "\n" not in str(caught.value)


def test_the_parameters_of_an_exported_program_are_counted(here: Path) -> None:
    net = load(exported(here / "a.pt2", MnistClassifier()))
    assert not list(net.parameters()), "they are not trained"
    assert parameter_count(net) == parameter_count(MnistClassifier())


def test_an_exported_program_gives_logits_and_gradients(here: Path) -> None:
    one = MnistClassifier().eval()
    net = load(exported(here / "a.pt2", one))
    x, z = images().requires_grad_(), images().requires_grad_()
    torch.testing.assert_close(net(x), one(z))
    net(x).sum().backward()
    one(z).sum().backward()
    torch.testing.assert_close(x.grad, z.grad)
    net.eval()


def test_normalisation_is_put_in_front(here: Path) -> None:
    path = weights(here / "mine.safetensors")
    plain = load(path, architecture="my_nets:Mine")
    net = load(path, architecture="my_nets:Mine", mean=[0.5], std=[0.25])
    torch.testing.assert_close(net(images()), plain((images() - 0.5) / 0.25))


NAN, INF = float("nan"), float("inf")
ODD = [([NAN], [1.0]), ([0.5], [NAN]), ([0.5], [INF]), ([123.7], [58.4]), ([-0.5], [1.0])]


@pytest.mark.parametrize(
    ("mean", "std"), [([0.5], []), ([0.1, 0.2], [1.0, 1.0]), ([0.5], [0.0]), ([], [1.0]), *ODD]
)
def test_a_normalisation_that_does_not_fit(here: Path, mean: list[float], std: list[float]) -> None:
    path = weights(here / "mine.safetensors")
    with pytest.raises(
        InputError, match=r"^--mean and --std: want 1 numbers each, std above 0, and mean"
    ):
        load(path, architecture="my_nets:Mine", mean=mean, std=std)


@pytest.mark.parametrize(
    ("name", "architecture", "message"),
    [
        ("mine.safetensors", None, "does not fit MnistClassifier: differing tensors"),
        (
            "mine.safetensors",
            "my_nets",
            "network 'my_nets' must have the form package.module:Class",
        ),
        ("mine.safetensors", "my_nets:None_", "my_nets has no class 'None_'"),
        ("mine.safetensors", "not_there:Mine", "No module named 'not_there'"),
        (
            "mine.safetensors",
            "my_nets:Words",
            "'my_nets:Words' is not a subclass of torch.nn.Module",
        ),
        ("mine.safetensors", "my_nets:Needs", "missing 1 required positional argument"),
        ("gone.safetensors", "my_nets:Mine", "gone.safetensors is missing"),
        ("text.safetensors", "my_nets:Mine", "is no safetensors file, or is corrupted"),
        ("text.pt2", None, "is no exported program, or is corrupted"),
        ("a.pt2", "my_nets:Mine", "holds its own architecture"),
        ("weights.pth", None, "a pickle (.pt, .pth) is not read"),
    ],
)
def test_what_does_not_fit_is_one_line(
    here: Path, name: str, architecture: str | None, message: str
) -> None:
    weights(here / "mine.safetensors")
    exported(here / "a.pt2", MnistClassifier())
    for text in ("text.safetensors", "text.pt2", "weights.pth"):
        (here / text).write_text("words")
    with pytest.raises(InputError) as caught:
        load(here / name, architecture=architecture)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


class Bomb:
    def __reduce__(self):
        return (Path("exploded").write_text, ("x",))


@pytest.mark.parametrize("how", ["file", "list", "opaque"])
def test_an_archive_with_a_pickle_is_refused(here: Path, how: str) -> None:
    whole = exported(here / "a.pt2", MnistClassifier())
    with zipfile.ZipFile(whole) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    root = next(iter(files)).split("/")[0]
    listed = f"{root}/data/constants/model_constants_config.json"
    payload = {"path_name": "tensor_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    files[f"{root}/data/constants/tensor_0"] = pickle.dumps(Bomb())
    if how == "file":
        files[f"{root}/data/constants/opaque_0"] = files.pop(f"{root}/data/constants/tensor_0")
    elif how == "list":
        files[listed] = json.dumps({"config": {"c": payload}}).encode()
    else:
        payload |= {"path_name": "opaque_0", "use_pickle": False}
        files[listed] = json.dumps({"config": {"c": payload}}).encode()
    with zipfile.ZipFile(here / "b.pt2", "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    with pytest.raises(InputError, match="which may be a pickle, and pickles are not read"):
        load(here / "b.pt2")
    assert not (here / "exploded").exists()


def test_the_code_of_a_network_decides_its_source(here: Path) -> None:
    def source(*more: float) -> str:
        for name in ("my_nets", "my_layers"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        load_own(
            weights(here / "a.safetensors"),
            MNIST,
            FLOAT32,
            default=MnistClassifier,
            architecture="my_nets:Mine",
        )
        return own_source("my_nets:Mine", more, more)

    first = source()
    assert source() == first
    (here / "my_layers.py").write_text("SCALE = 1.0\n")
    (here / "my_nets.py").write_text("from my_layers import SCALE\n" + MODULE)
    second = source()
    (here / "my_layers.py").write_text("SCALE = 22.0\n")
    third = source()
    assert len({first, second, third, source(0.5), own_source("my_nets:Needs")}) == 5
    assert own_source(None) == own_source(None) != own_source(None, [0.5], [0.5])
