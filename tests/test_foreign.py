"""Any network as a classifier: normalised, its hidden layers found or listed, its weights understood."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file, save_model
from torch import Tensor, nn

from deepcustom.attacks.relevance import class_relevance
from deepcustom.base.errors import InputError
from deepcustom.training.nets.base import Architecture, build
from deepcustom.training.nets.foreign import Foreign, unexplained
from deepcustom.training.nets.mnist import MnistClassifier
from deepcustom.training.weights import load_network, load_weights, save_network

X = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Functional(nn.Module):
    """Its activations are functions."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.dense = nn.Linear(5 * 36, 7)
        self.scores = nn.Linear(7, classes)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.conv(x), inplace=True).flatten(1)
        return self.scores(torch.relu(self.dense(h)))


class Plain(nn.Sequential):
    """Its activations are modules, and every layer runs once."""

    def __init__(self, *, inplace: bool = False) -> None:
        super().__init__(
            nn.Conv2d(3, 5, 3), nn.ReLU(inplace), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(45, 4)
        )


class Residual(nn.Module):
    """One ReLU module that runs twice, and an addition."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.norm, self.relu = nn.BatchNorm2d(3), nn.ReLU()
        self.scores = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.norm(self.first(x)))
        return self.scores(self.relu(x + self.second(h)).mean((2, 3)))


def test_hidden_layers_are_found_where_activations_are_functions() -> None:
    net = Functional()
    seen, logits = Foreign(net).preactivations(X)
    assert {name: tuple(t.shape) for name, t in seen.items()} == {
        "hidden1": (6, 5, 6, 6),
        "hidden2": (6, 7),
    }
    assert torch.equal(seen["hidden1"], net.conv(X))  # before the ReLU that writes into it
    assert torch.equal(logits, net(X))


def test_hidden_layers_are_found_where_one_module_runs_twice() -> None:
    seen, _ = Foreign(Residual().eval()).preactivations(X)
    assert list(seen) == ["hidden1", "hidden2"]
    assert (seen["hidden1"] < 0).any()


def test_hidden_layers_have_gradients() -> None:
    x = X.clone().requires_grad_()
    seen, _ = Foreign(Functional()).preactivations(x)
    (gradient,) = torch.autograd.grad(seen["hidden1"].square().sum(), x)
    assert gradient.abs().sum() > 0


def test_listed_layers_are_taken_instead() -> None:
    net = Residual().eval()
    wrapped = Foreign(net, layers=["norm"])
    seen, _ = wrapped.preactivations(X)
    assert list(seen) == ["norm"]
    assert torch.equal(seen["norm"], net.norm(net.first(X)))
    assert not net.norm._forward_hooks
    with pytest.raises(InputError, match="has no layer 'nrom'; it has: first, second, norm, relu"):
        Foreign(net, layers=["nrom"])


def test_a_network_without_hidden_layers_says_so() -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    with pytest.raises(InputError, match="no hidden layer was found"):
        Foreign(linear).preactivations(X)


def test_images_are_normalised_in_front() -> None:
    net = Functional()
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    wrapped = Foreign(net, mean=mean, std=std)
    by_hand = (X - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert torch.equal(wrapped(X), net(by_hand))
    assert set(wrapped.state_dict()) == {f"net.{name}" for name in net.state_dict()}
    own = MnistClassifier()
    images = torch.rand(2, 1, 28, 28)
    seen, _ = Foreign(own, mean=[0.1], std=[0.3]).preactivations(images)
    assert torch.equal(seen["dense1"], own.preactivations((images - 0.1) / 0.3)[0]["dense1"])


def test_a_class_gets_the_facts_that_it_has_parameters_for() -> None:
    facts = {"classes": 9, "shape": (3, 8, 8)}
    here = f"{__name__}:Functional"
    assert build(Architecture(here, facts=facts)).scores.out_features == 9
    assert build(Architecture(here, {"classes": 2}, facts)).scores.out_features == 2
    assert isinstance(build(Architecture(f"{__name__}:Residual", facts=facts)), Residual)


# Weights


@pytest.mark.parametrize(
    "front", ["", "module.", "_orig_mod.", "module._orig_mod.", "model.", "model.module."]
)
@pytest.mark.parametrize("wrap", [False, True])
def test_weights_are_understood_whatever_was_put_in_front(
    tmp_path: Path, front: str, wrap: bool
) -> None:
    net, file = Functional(), tmp_path / "w.safetensors"
    save_file({f"{front}{name}": t for name, t in net.state_dict().items()}, file)
    other = Functional()
    load_weights(Foreign(other) if wrap else other, file)
    assert torch.equal(other(X), net(X))


class Tied(Functional):
    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Linear(7, 7)
        self.again = nn.Linear(7, 7)
        self.again.weight = self.scores.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.again(super().forward(x))


def test_shared_tensors_are_understood_and_written(tmp_path: Path) -> None:
    net, file, own = Tied(), tmp_path / "w.safetensors", tmp_path / "own.safetensors"
    save_model(net, str(file))
    other = Tied()
    load_weights(other, file)
    assert torch.equal(other(X), net(X))
    save_network(own, other, {})
    third = Tied()
    load_network(own, third)
    assert torch.equal(third(X), net(X))


def test_other_weights_are_one_line(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    with pytest.raises(InputError, match=r"w.safetensors is missing"):
        load_weights(Functional(), file)
    file.write_bytes(b"no")
    with pytest.raises(InputError, match="is no safetensors file, or is corrupted"):
        load_weights(Functional(), file)
    save_file({"conv.weight": torch.zeros(1)}, file)
    with pytest.raises(InputError, match="does not fit Functional: differing tensors"):
        load_weights(Functional(), file)


# Relevance


@pytest.mark.parametrize(
    ("net", "fault"),
    [
        (Plain(), None),
        (Plain(inplace=True), None),
        (MnistClassifier(), None),
        (Functional(), "relu is computed outside of its layers"),
        (Residual(), "add is computed outside of its layers"),
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.GELU()), "2 is a GELU"),
    ],
)
def test_only_networks_whose_every_part_has_a_rule_go_through_lrp(
    net: nn.Module, fault: str | None
) -> None:
    x = torch.rand(2, 1, 28, 28) if isinstance(net, MnistClassifier) else X
    y = torch.zeros(len(x), dtype=torch.int64)
    wrapped = Foreign(net.eval(), mean=[0.5], std=[0.5])
    if fault is None:
        assert class_relevance(wrapped, x, y, 4).abs().sum() > 0
        return
    with pytest.raises(
        InputError, match=f"LRP has no rule for this network: {fault}; set relevance"
    ):
        class_relevance(wrapped, x, y, 4)
    for method in ("input_x_gradient", "integrated_gradients"):
        assert class_relevance(wrapped, x, y, 4, method=method).abs().sum() > 0


def test_a_layer_that_runs_twice_has_no_rule() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu, self.flat, self.dense = nn.ReLU(), nn.Flatten(), nn.Linear(192, 192)

        def forward(self, x: Tensor) -> Tensor:
            return self.dense(self.relu(self.dense(self.flat(x))))

    assert unexplained(Twice(), X, (nn.ReLU, nn.Linear)) == "dense runs twice"


def test_relevance_of_a_linear_network_is_input_times_weight() -> None:
    """By every method, since a linear network leaves no choice."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 4, bias=False))
    y = torch.tensor([0, 1, 2, 3, 0, 0])
    parts = torch.stack([X[i] * net[1].weight[y[i]].view(3, 8, 8) for i in range(6)])
    wanted = torch.stack([parts[y == label].mean(0) for label in range(4)]).detach()
    for method in ("lrp", "input_x_gradient", "integrated_gradients"):
        found = class_relevance(net, X, y, 4, epsilon=1e-9, method=method)
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)


def test_a_relu_that_writes_into_its_input_makes_no_difference_to_relevance() -> None:
    one, other = Plain(), Plain(inplace=True)
    other.load_state_dict(one.state_dict())
    y = torch.zeros(6, dtype=torch.int64)
    assert torch.equal(class_relevance(one, X, y, 4), class_relevance(other, X, y, 4))
