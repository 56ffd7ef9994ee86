"""The networks: sizes, ranges, and that pre-activations are what the layers give."""

from __future__ import annotations

import re
from functools import partial

import pytest
import torch
from networks import CONDITIONAL, GENERATOR, NETWORK
from torch import nn

from deepcustom.base.errors import InputError
from deepcustom.training.compute import FLOAT32, Compute
from deepcustom.training.nets.base import (
    MixedPrecision,
    UpConv2d,
    build,
    build_classifier,
    build_conditional,
    parameter_count,
)
from deepcustom.training.nets.cifar10 import Cifar10Classifier, Cifar10Generator
from deepcustom.training.nets.foreign import Foreign
from deepcustom.training.nets.mnist import MnistClassifier, MnistConditional, MnistGenerator

LAYERS = [f"dense{i}" for i in range(1, 6)]


def test_parameter_counts():
    assert parameter_count(MnistClassifier()) == 27_580
    up = 128 * 64 * 9 + 64 + 2 * 64 + 64 * 32 * 4 + 32 + 2 * 32 + 32 * 4 + 1
    down = 32 * 9 + 32 + 64 * 32 * 9 + 64 + 128 * 64 * 9 + 128
    assert parameter_count(MnistGenerator()) == down + up
    assert parameter_count(Cifar10Classifier()) == 122_570
    weights = 3 * 32 * 9 + 32 * 64 * 9 + 64 * 128 * 9 + 128 * 128 * 9
    weights += 128 * 128 * 9 + 128 * 64 * 16 + 64 * 32 * 16 + 32 * 3 * 9
    biases = (32 + 64 + 128 + 128) + (128 + 64 + 32 + 3)
    norms = 2 * (128 + 64 + 32)
    assert parameter_count(Cifar10Generator()) == weights + biases + norms


def test_mnist_generator_has_the_sizes_of_the_figure():
    net = MnistGenerator().eval()
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


def test_cifar10_generator_has_the_sizes_of_the_figure():
    net = Cifar10Generator().eval()
    h, shapes = torch.rand(2, 3, 32, 32), []
    for part in (*net.encoder, *net.decoder):
        h = part(h)
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            shapes.append(tuple(h.shape[1:]))
    sizes = [30, 14, 12, 5, 11, 14, 30, 32]
    maps = [32, 64, 128, 128, 128, 64, 32, 3]
    assert shapes == [(m, n, n) for m, n in zip(maps, sizes, strict=True)]


@pytest.mark.parametrize(("dataset", "steps"), [("mnist", 2), ("cifar10", 3)])
def test_generator_ends_each_step_up_with_relu_and_batch_norm(dataset, steps):
    kinds = [type(part) for part in build(GENERATOR[dataset]).decoder]
    step = [UpConv2d, nn.ReLU, nn.BatchNorm2d]
    assert kinds == [*(step * steps), UpConv2d]


@pytest.mark.parametrize(
    ("size", "kernel", "stride"), [(5, 3, 2), (3, 3, 2), (7, 2, 2), (14, 4, 2), (11, 4, 1)]
)
def test_up_convolution_is_torchs_transposed_convolution(size, kernel, stride):
    """Values and gradients, in float64, where the rest of the code path is the same."""
    torch.manual_seed(0)
    ours = UpConv2d(6, 4, kernel, stride=stride).double()
    x = torch.randn(3, 6, size, size, dtype=torch.float64, requires_grad=True)
    theirs = nn.functional.conv_transpose2d(x, ours.weight, ours.bias, stride=stride)
    found = ours(x)
    assert found.shape == theirs.shape == (3, 4, *[(size - 1) * stride + kernel] * 2)
    torch.testing.assert_close(found, theirs, rtol=1e-12, atol=1e-12)
    with torch.no_grad():  # another path
        torch.testing.assert_close(ours(x), theirs, rtol=1e-12, atol=1e-12)
    weights = torch.randn_like(theirs)
    parts = (x, ours.weight, ours.bias)
    for a, b in zip(
        torch.autograd.grad((found * weights).sum(), parts),
        torch.autograd.grad((theirs * weights).sum(), parts),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("size", "kernel", "stride"), [(5, 3, 2), (14, 4, 2), (11, 4, 1)])
def test_up_convolution_in_the_precision_and_layout_of_real_runs(size, kernel, stride, training):
    torch.manual_seed(0)
    ours = UpConv2d(32, 16, kernel, stride=stride).to(memory_format=torch.channels_last)
    x = torch.randn(8, 32, size, size).to(memory_format=torch.channels_last)
    theirs = nn.functional.conv_transpose2d(x, ours.weight, ours.bias, stride=stride)
    with torch.set_grad_enabled(training), torch.autocast("cpu", dtype=torch.bfloat16):
        found = ours(x)
    assert found.dtype is torch.bfloat16
    torch.testing.assert_close(found.float(), theirs, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(("dataset", "shape"), [("mnist", (1, 28, 28)), ("cifar10", (3, 32, 32))])
def test_generator_gives_images_in_range_and_in_float32_under_autocast(dataset, shape):
    torch.manual_seed(0)
    net = build(GENERATOR[dataset])
    net.decoder[-1].weight.data.mul_(100)  # far into the sigmoid's ends
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        g = net(torch.rand(8, *shape))
    assert g.shape == (8, *shape)
    assert g.dtype is torch.float32
    assert 0 <= float(g.min()) < 0.1
    assert 0.9 < float(g.max()) <= 1


def test_preactivations_are_what_enters_each_relu():
    net = MnistClassifier()
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
    net = MnistClassifier().double()
    x = torch.rand(4, 1, 28, 28, dtype=torch.float64)
    h = x.reshape(4, 784)
    for layer in net.hidden.values():
        h = (h @ layer.weight.T + layer.bias).clamp(min=0)
    expected = h @ net.logits.weight.T + net.logits.bias
    torch.testing.assert_close(net(x), expected, rtol=1e-12, atol=1e-12)


def test_cifar10_classifier_is_three_convolutions_and_a_dense_layer():
    torch.manual_seed(0)
    net = Cifar10Classifier().double()
    x = torch.rand(4, 3, 32, 32, dtype=torch.float64)
    w = net.state_dict()
    expected, h = {}, x
    for name in ("conv1", "conv2", "conv3"):
        weight, bias = w[f"hidden.{name}.weight"], w[f"hidden.{name}.bias"]
        patches = nn.functional.unfold(h, 3).transpose(1, 2)  # (N, positions, inputs)
        side = h.shape[2] - 2
        z = (patches @ weight.flatten(1).T + bias).transpose(1, 2).reshape(4, -1, side, side)
        expected[name] = z
        h = z.clamp(min=0)
        if name != "conv3":
            half = side // 2
            h = h[:, :, : 2 * half, : 2 * half].reshape(4, -1, half, 2, half, 2).amax((3, 5))
    expected["dense1"] = h.flatten(1) @ w["hidden.dense1.weight"].T + w["hidden.dense1.bias"]
    logits = expected["dense1"].clamp(min=0) @ w["logits.weight"].T + w["logits.bias"]
    seen, found = net.preactivations(x)
    assert list(seen) == list(expected)
    for name, z in expected.items():
        torch.testing.assert_close(seen[name], z, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(found, logits, rtol=1e-11, atol=1e-12)


class Wide(MnistClassifier):
    """One that takes options."""

    def __init__(self, width: int, *, deep: bool = False) -> None:
        super().__init__()
        if width < 1:
            raise ValueError("width must\nbe positive")
        self.made_with = (width, deep)


def test_a_network_is_made_by_its_name_with_options():
    assert type(build(GENERATOR["cifar10"])) is Cifar10Generator
    assert type(build_classifier(NETWORK["mnist"])) is MnistClassifier
    assert build(f"{__name__}:Wide", width=3, deep=True).made_with == (3, True)
    generator = build_conditional(CONDITIONAL["mnist"], 7)
    assert (type(generator), generator.classes) == (MnistConditional, 7)


def test_the_same_seed_gives_the_same_weights_by_name_and_by_class():
    torch.manual_seed(0)
    named = build_classifier(NETWORK["cifar10"]).state_dict()
    torch.manual_seed(0)
    for name, tensor in Cifar10Classifier().state_dict().items():
        assert torch.equal(named[name], tensor)


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (build, "mnist", "network 'mnist' must have the form package.module:Class"),
        (build, "no_such:Net", "network 'no_such:Net': importing 'no_such' failed"),
        (build, f"{__name__}:Nope", f"{__name__} has no class 'Nope'"),
        (build, f"{__name__}:LAYERS", "LAYERS' is not a subclass of torch.nn.Module"),
        (build, f"{__name__}:FLOAT32", "FLOAT32' is not a subclass of torch.nn.Module"),
        (build, f"{__name__}:Wide", "making one failed: TypeError: Wide.__init__() missing 1 req"),
        (
            build_classifier,
            GENERATOR["mnist"],
            "MnistGenerator' is not a subclass of deepcustom.training.nets.base.Classifier",
        ),
        (
            partial(build_conditional, classes=10),
            NETWORK["mnist"],
            "MnistClassifier' is not a subclass of deepcustom.training.nets.base.Conditional",
        ),
        (partial(build, width=0), f"{__name__}:Wide", "failed: ValueError: width must be positive"),
    ],
)
def test_what_is_no_network_is_one_line(make, name, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        make(name)
    assert "\n" not in str(caught.value)


def test_mixed_precision_computes_in_bfloat16_and_gives_float32():
    torch.manual_seed(0)
    net = Cifar10Classifier().eval().requires_grad_(False)
    x = torch.rand(4, 3, 32, 32, requires_grad=True)
    kinds = []
    net.logits.register_forward_hook(lambda _, __, out: kinds.append(out.dtype))
    mixed = MixedPrecision(net, Compute(torch.device("cpu"), torch.bfloat16))
    seen, logits = mixed.preactivations(x)
    exact, expected = net.preactivations(x)
    assert kinds == [torch.bfloat16, torch.float32]
    assert {t.dtype for t in (*seen.values(), logits)} == {torch.float32}
    torch.testing.assert_close(logits, expected, atol=0.02, rtol=0.02)
    assert not torch.equal(logits, expected)
    (slope,) = torch.autograd.grad(logits[:, 0].sum(), x)
    (wanted,) = torch.autograd.grad(expected[:, 0].sum(), x)
    assert float(nn.functional.cosine_similarity(slope.flatten(), wanted.flatten(), 0)) > 0.99
    full = MixedPrecision(net, FLOAT32)
    assert torch.equal(full(x), expected)
    assert list(seen) == list(exact)


def test_mixed_precision_needs_no_hidden_layers_for_logits():
    """A network whose activations nobody finds, such as an exported program's, is attacked all the same."""
    silent = Foreign(nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.Tanh(), nn.Linear(4, 3)))
    x = torch.rand(2, 3, 2, 2)
    mixed = MixedPrecision(silent, FLOAT32)
    assert torch.equal(mixed(x), silent.net(x))
    with pytest.raises(InputError, match="no hidden layer was found"):
        mixed.preactivations(x)
