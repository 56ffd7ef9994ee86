"""The networks: sizes, ranges, and that pre-activations are what the layers give."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from deepcustom import nets
from deepcustom.errors import UnknownNameError

LAYERS = [f"dense{i}" for i in range(1, 6)]


def test_parameter_counts():
    assert nets.parameter_count(nets.classifier("mnist")) == 27_580
    up = 128 * 64 * 9 + 64 + 2 * 64 + 64 * 32 * 4 + 32 + 2 * 32 + 32 * 4 + 1
    down = 32 * 9 + 32 + 64 * 32 * 9 + 64 + 128 * 64 * 9 + 128
    assert nets.parameter_count(nets.generator("mnist")) == down + up


def test_mnist_generator_has_the_sizes_of_the_figure():
    net = nets.generator("mnist").eval()
    sizes = [28]
    shapes = []

    def note(module, inputs, output):
        assert output.shape[2] == output.shape[3]
        shapes.append(tuple(output.shape[1:]))
        if output.shape[2] != sizes[-1]:
            sizes.append(output.shape[2])

    for part in (*net.encoder, *net.decoder):
        part.register_forward_hook(note)
    assert net(torch.rand(2, 1, 28, 28)).shape == (2, 1, 28, 28)
    assert sizes == [28, 14, 7, 5, 3, 7, 14, 28]
    assert [shape[0] for shape in shapes if shape[1] == 5] == [128, 128]  # conv and its ReLU
    assert (128, 3, 3) in shapes  # the latent


def test_mnist_generator_ends_each_step_up_with_relu_and_batch_norm():
    kinds = [type(part) for part in nets.generator("mnist").decoder]
    step = [nn.ConvTranspose2d, nn.ReLU, nn.BatchNorm2d]
    assert kinds == [*step, *step, nn.ConvTranspose2d]


def test_generator_gives_images_in_range_and_in_float32_under_autocast():
    torch.manual_seed(0)
    net = nets.generator("mnist")
    net.decoder[-1].weight.data.mul_(100)  # far into the sigmoid's ends
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        g = net(torch.rand(8, 1, 28, 28))
    assert g.dtype is torch.float32
    assert 0 <= float(g.min()) < 0.1
    assert 0.9 < float(g.max()) <= 1


def test_preactivations_are_what_enters_each_relu():
    net = nets.classifier("mnist")
    x = torch.rand(5, 1, 28, 28)
    entered = {}

    def note(name, module, inputs, output):
        entered[name] = inputs[0]

    for name, relu in net.relu.items():
        relu.register_forward_hook(partial(note, name))
    with torch.no_grad():
        seen, logits = net.preactivations(x)
    assert list(seen) == list(entered) == LAYERS
    for name in LAYERS:
        assert seen[name].shape == (5, 30)
        assert torch.equal(seen[name], entered[name])
        assert float(seen[name].min()) < 0  # before the ReLU, not after
    assert torch.equal(logits, net(x))


def test_classifier_is_five_dense_layers_with_relu():
    net = nets.classifier("mnist").double()
    x = torch.rand(4, 1, 28, 28, dtype=torch.float64)
    h = x.reshape(4, 784)
    for layer in net.hidden.values():
        h = (h @ layer.weight.T + layer.bias).clamp(min=0)
    expected = h @ net.logits.weight.T + net.logits.bias
    torch.testing.assert_close(net(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("make", [nets.classifier, nets.generator])
def test_unknown_data_set_lists_the_known(make):
    with pytest.raises(UnknownNameError, match="unknown data set 'mnits': choose from mnist"):
        make("mnits")


def test_both_tables_know_the_same_data_sets():
    assert set(nets.CLASSIFIERS) == set(nets.GENERATORS)
