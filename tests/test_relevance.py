"""The epsilon rule against sums written out unit by unit, and how pixels are chosen."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from deepcustom.attacks.relevance import class_relevance, lrp_epsilon, top_pixels
from deepcustom.base.errors import InputError
from deepcustom.training.nets.base import Classifier
from deepcustom.training.nets.foreign import Foreign
from deepcustom.training.nets.healed import Healed, Remedy


def layers_of(net):
    """Weights and biases of a dense ReLU network, as nested lists in float64."""
    dense = [module for module in net.modules() if isinstance(module, nn.Linear)]
    return [(m.weight.detach().double(), m.bias.detach().double()) for m in dense]


def relevance_by_hand(layers, x, label, epsilon):
    """R_i = sum over j of a_i * w_ij / (z_j + epsilon * sign(z_j)) * R_j, for one flat image."""
    activations, sums = [x.double().flatten()], []
    for depth, (weight, bias) in enumerate(layers):
        sums.append(weight @ activations[-1] + bias)
        activations.append(sums[-1] if depth == len(layers) - 1 else sums[-1].clamp(min=0))
    relevance = torch.zeros_like(sums[-1])
    relevance[label] = sums[-1][label]  # the logit, and nothing else
    for (weight, _), a, z in zip(layers[::-1], activations[-2::-1], sums[::-1], strict=True):
        below = torch.zeros_like(a)
        for j in range(len(z)):
            stabilised = z[j] + epsilon * (1.0 if z[j] >= 0 else -1.0)
            for i in range(len(a)) if len(a) < 50 else [slice(None)]:
                below[i] += a[i] * weight[j, i] / stabilised * relevance[j]
        relevance = below
    return relevance


class Small(Classifier):
    """4 pixels, two dense layers of 3 and 5, 2 logits."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.logits = nn.Linear(4, 3), nn.Linear(3, 5), nn.Linear(5, 2)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()

    def preactivations(self, x):
        a = self.one(x.flatten(1))
        b = self.two(self.relu1(a))
        return {"dense1": a, "dense2": b}, self.logits(self.relu2(b))


@pytest.mark.parametrize("epsilon", [1e-6, 1e-2, 0.5])
def test_small_net_against_the_formula(epsilon):
    torch.manual_seed(0)
    net = Small().double()
    for parameter in net.parameters():
        parameter.data.normal_()  # biases matter
    x, y = torch.rand(30, 1, 2, 2, dtype=torch.float64), torch.arange(30) % 2
    found = lrp_epsilon(net, x, y, epsilon)
    assert found.shape == x.shape
    for image, label, relevance in zip(x, y, found, strict=True):
        expected = relevance_by_hand(layers_of(net), image, int(label), epsilon)
        torch.testing.assert_close(relevance.flatten(), expected, rtol=1e-9, atol=1e-12)


def test_mnist_classifier_against_the_formula(target_net, train):
    x, y = train[0][:12].double(), train[1][:12]
    net = copy.deepcopy(target_net).double()
    found = lrp_epsilon(net, x, y, 1e-6)
    for image, label, relevance in zip(x, y, found, strict=True):
        expected = relevance_by_hand(layers_of(net), image, int(label), 1e-6)
        torch.testing.assert_close(relevance.flatten(), expected, rtol=1e-8, atol=1e-10)


def test_two_layers_worked_by_hand():
    """x = (1, 2); z = (1*1 + 2*1 + 1, 1*1 - 2*2) = (4, -3); h = (4, 0); logit 0 = 2*4 - 2 = 6.

    R of the first unit = 4*2 / 6 * 6 = 8 (the bias keeps -2); R_x = (1/4 * 8, 2/4 * 8) = (2, 4).
    """

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.relu, self.two = nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)
            self.one.weight.data = torch.tensor([[1.0, 1.0], [1.0, -2.0]])
            self.one.bias.data = torch.tensor([1.0, 0.0])
            self.two.weight.data = torch.tensor([[2.0, 3.0], [-1.0, 5.0]])
            self.two.bias.data = torch.tensor([-2.0, 0.0])

        def forward(self, x):
            return self.two(self.relu(self.one(x.flatten(1))))

    x = torch.tensor([1.0, 2.0]).view(1, 1, 1, 2)
    assert lrp_epsilon(Two(), x, torch.tensor([0]), 1e-9).flatten().tolist() == pytest.approx(
        [2, 4]
    )
    # Logit 1 = -4: R = -4 to the first unit, whose shares are 1/4 and 1/2.
    found = lrp_epsilon(Two(), x, torch.tensor([1]), 1e-9)
    assert found.flatten().tolist() == pytest.approx([-1, -2])
    # epsilon = 2: R = 8 / 8 * 6 = 6, then (1/6 * 6, 2/6 * 6).
    assert lrp_epsilon(Two(), x, torch.tensor([0]), 2.0).flatten().tolist() == pytest.approx([1, 2])


def test_twice_gives_the_same_and_leaves_the_net_and_images_as_they_were(target_net, train):
    x, y = train[0][:5].clone(), train[1][:5]
    before = {name: t.clone() for name, t in target_net.state_dict().items()}
    first = lrp_epsilon(target_net, x, y, 1e-6)
    assert torch.equal(lrp_epsilon(target_net, x, y, 1e-6), first)
    assert not torch.equal(lrp_epsilon(target_net, x, y, 0.5), first)
    assert torch.equal(x, train[0][:5])
    assert not x.requires_grad
    assert not first.requires_grad
    assert all(torch.equal(t, before[name]) for name, t in target_net.state_dict().items())
    assert not any(module._forward_hooks for module in target_net.modules())


def test_relevance_is_averaged_per_class_and_zero_without_images(target_net, train):
    x, y = train[0][:60], train[1][:60].clone()
    y[y == 4] = 5  # no image of class 4 is left
    found = class_relevance(target_net, x, y, 12, batch_size=7)
    assert found.shape == (12, 1, 28, 28)
    assert found.dtype is torch.float32
    each = lrp_epsilon(target_net, x, y, 1e-6).double()
    for label in range(12):
        mine = [image for image, its in zip(each, y, strict=True) if its == label]
        if not mine:
            assert label in (4, 10, 11)
            assert not found[label].any()
            continue
        expected = sum(mine) / len(mine)
        torch.testing.assert_close(found[label].double(), expected, rtol=1e-4, atol=1e-5)


def test_class_relevance_uses_epsilon(target_net, train):
    x, y = train[0][:20], train[1][:20]
    coarse = class_relevance(target_net, x, y, 10, epsilon=1.0)
    assert not torch.allclose(coarse, class_relevance(target_net, x, y, 10, epsilon=1e-6))


def test_relevance_starts_from_the_given_label(target_net, train):
    """The same image under ten labels: ten maps, each the formula's for its logit."""
    x = train[0][:1]
    by_label = class_relevance(target_net, x.repeat(10, 1, 1, 1), torch.arange(10), 10)
    for label, found in enumerate(by_label):
        expected = relevance_by_hand(layers_of(target_net), x[0], label, 1e-6)
        torch.testing.assert_close(found.flatten().double(), expected, rtol=1e-3, atol=1e-4)


# Choosing pixels


def test_top_pixels_are_ordered_and_signed():
    relevance = torch.tensor([[0.1, -9.0, 0.5], [0.3, 0.4, -0.2]]).view(2, 1, 1, 3)
    assert top_pixels(relevance, 2).tolist() == [[2, 0], [1, 0]]
    assert top_pixels(relevance, 3).tolist() == [[2, 0, 1], [1, 0, 2]]


def test_top_pixels_of_equals_the_earlier_wins():
    relevance = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.5, 1.0]).view(1, 1, 2, 3)
    assert top_pixels(relevance, 5).tolist() == [[1, 3, 5, 4, 0]]
    many = torch.zeros(1, 1, 28, 28)
    assert top_pixels(many, 20).tolist() == [list(range(20))]


def test_top_pixels_count_over_all_channels():
    relevance = torch.zeros(1, 3, 2, 2)
    relevance[0, 2, 1, 0], relevance[0, 1, 0, 1] = 2.0, 1.0
    found = top_pixels(relevance, 2)
    assert found.tolist() == [[10, 5]]
    assert found.dtype is torch.int64


class Viewed(nn.Sequential):
    """Cannot tell the size of a batch of no images, and takes at most seven."""

    def __init__(self):
        super().__init__(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))

    def forward(self, x):
        if len(x) > 7:
            raise RuntimeError("out of memory")
        return super().forward(x.view(x.size(0), -1))


def test_what_is_spared_some_batches_keeps_its_relevance():
    torch.manual_seed(0)
    net = Foreign(Viewed(), mean=[0.4], std=[0.3])
    x, y = torch.rand(20, 1, 2, 2), torch.arange(20) % 2
    plain = class_relevance(net, x, y, 2, batch_size=5)
    for remedy in (Remedy(2, empty=True, most=7), Remedy(2, most=7)):
        found = class_relevance(Healed(net, remedy), x, y, 2)
        torch.testing.assert_close(found, plain)
    with pytest.raises(InputError, match="LRP has no rule"):
        class_relevance(Healed(net, Remedy(2, most=7, exact=True)), x, y, 2)
