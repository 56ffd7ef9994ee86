"""The networks for images of any size: sizes, counts, ranges, and that they are what they say."""

from __future__ import annotations

import re
from functools import partial

import pytest
import torch
from torch import nn

from deepcustom.base.errors import InputError
from deepcustom.training.nets.anyshape import AnyConditional, AnyGenerator
from deepcustom.training.nets.base import Conditional, parameter_count
from deepcustom.training.nets.resnet import ResNet
from deepcustom.training.nets.resnet18 import ResNet18
from deepcustom.training.nets.sizes import at_least
from deepcustom.training.nets.small import SmallClassifier
from deepcustom.training.nets.unet import NormedConv, UNetConditional, UNetGenerator

SHAPES = [(1, 8, 8), (3, 9, 13), (1, 28, 28), (2, 33, 16), (3, 64, 64)]
CLASSIFIERS = {
    "small": SmallClassifier,
    "resnet": partial(ResNet, width=4, depth=14),
    "resnet18": partial(ResNet18, width=4),
}


# Classifiers


@pytest.mark.parametrize("classes", [2, 3, 100])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_takes_any_size_and_number_of_classes(name, shape, classes):
    torch.manual_seed(0)
    net = CLASSIFIERS[name](shape, classes).eval()
    x = torch.rand(4, *shape)
    with torch.no_grad():
        seen, logits = net.preactivations(x)
    assert logits.shape == (4, classes)
    assert logits.isfinite().all()
    assert all(float(values.min()) < 0 for values in seen.values())
    assert logits.std(0).max() > 1e-4  # it looks at the image


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_preactivations_are_what_enters_each_relu(name):
    """In their order; and each ReLU is a module of its own, which runs once."""
    torch.manual_seed(0)
    net = CLASSIFIERS[name]((3, 11, 8), 3).eval()
    x = torch.rand(2, 3, 11, 8)
    entered = []
    relus = [part for part in net.modules() if isinstance(part, nn.ReLU)]
    for relu in relus:
        relu.register_forward_hook(lambda _, inputs, __: entered.append(inputs[0]))
    with torch.no_grad():
        seen, logits = net.preactivations(x)
        assert len(relus) == len(entered) == len(seen)
        for values, wanted in zip(seen.values(), entered, strict=True):
            assert torch.equal(values, wanted)
        assert torch.equal(logits, net(x))


def test_the_small_classifier_is_two_convolutions_and_a_dense_layer():
    torch.manual_seed(0)
    net = SmallClassifier((1, 28, 28), 10)
    assert parameter_count(net) == 166_406
    x = torch.rand(3, 1, 28, 28)
    seen, logits = net.preactivations(x)
    shapes = {name: tuple(values.shape[1:]) for name, values in seen.items()}
    assert shapes == {"conv1": (16, 14, 14), "conv2": (32, 7, 7), "dense1": (100,)}
    w = net.state_dict()
    h = x
    for name in ("conv1", "conv2"):
        weight, bias = w[f"hidden.{name}.weight"], w[f"hidden.{name}.bias"]
        h = nn.functional.conv2d(h, weight, bias, stride=2, padding=1).clamp(min=0)
    h = (h.flatten(1) @ w["hidden.dense1.weight"].T + w["hidden.dense1.bias"]).clamp(min=0)
    expected = h @ w["logits.weight"].T + w["logits.bias"]
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize(
    ("depth", "count"), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018)]
)
def test_the_resnet_has_the_papers_number_of_parameters(depth, count):
    """Table 6: 0.27, 0.46, 0.66 and 0.85 million."""
    assert parameter_count(ResNet((3, 32, 32), 10, depth=depth)) == count


def test_the_resnet_has_three_stages_and_a_name_for_every_relu():
    net = ResNet((3, 32, 32), 10).eval()
    with torch.no_grad():
        seen, _ = net.preactivations(torch.rand(1, 3, 32, 32))
    between = [f"block{n}{part}" for n in range(1, 10) for part in "ab"]
    assert list(seen) == ["stem", *between]
    sizes = [(16, 32)] * 7 + [(32, 16)] * 6 + [(64, 8)] * 6
    assert [(v.shape[1], v.shape[2]) for v in seen.values()] == sizes


def test_a_block_that_halves_the_size_has_a_shortcut_without_parameters():
    """With its convolutions at zero, what is left is every second pixel, and zeros in the new maps."""
    net = ResNet((1, 8, 8), 2, width=2, depth=8).eval()
    block = net.blocks[1]
    assert not [name for name, _ in block.named_parameters() if name[:4] not in ("conv", "norm")]
    for conv in (block.conv1, block.conv2):
        conv.weight.data.zero_()
    x = torch.rand(3, 2, 5, 8)
    with torch.no_grad():
        out = block(x)[2]
    assert torch.equal(out[:, :2], x[:, :, ::2, ::2])
    assert torch.equal(out[:, 2:], torch.zeros(3, 2, 3, 4))


def test_the_wide_resnet_has_the_usual_number_of_parameters_and_a_name_for_every_relu():
    """11.17 million, as for every ResNet-18 that starts with 3 x 3 and has 10 classes."""
    net = ResNet18((3, 32, 32), 10).eval()
    assert parameter_count(net) == 11_173_962
    with torch.no_grad():
        seen, _ = net.preactivations(torch.rand(1, 3, 32, 32))
    between = [f"block{n}{part}" for n in range(1, 9) for part in "ab"]
    assert list(seen) == ["stem", *between]
    sizes = [(64, 32)] * 5 + [(128, 16)] * 4 + [(256, 8)] * 4 + [(512, 4)] * 4
    assert [(v.shape[1], v.shape[2]) for v in seen.values()] == sizes


def test_a_wide_block_that_changes_the_size_projects_its_shortcut():
    """With its convolutions at zero, what is left is the projection, normed; elsewhere the image itself."""
    net = ResNet18((1, 8, 8), 2, width=2).eval()
    plain, halving = net.blocks[1], net.blocks[2]
    assert not list(plain.short.parameters())
    for block in (plain, halving):
        for conv in (block.conv1, block.conv2):
            conv.weight.data.zero_()
    x = torch.rand(3, 2, 6, 8)
    with torch.no_grad():
        assert torch.equal(plain(x)[2], x)
        projected = nn.functional.conv2d(x, halving.short[0].weight, stride=2)
        expected = (projected / (1 + halving.short[1].eps) ** 0.5).clamp(min=0)
        torch.testing.assert_close(halving(x)[2], expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ResNet18((3, 32, 32), 10, width=0), "ResNet18: width must be 1 or more, found 0"),
        (lambda: ResNet18((3, 7, 32), 10), "at least 8 x 8 pixels, found (3, 7, 32)"),
        (lambda: UNetGenerator((1, 8, 8), widths=()), "widths are numbers of 1 or more, found []"),
        (lambda: UNetGenerator((1, 8, 8), widths=(4, 0)), "of 1 or more, found [4, 0]"),
        (lambda: UNetConditional((1, 8, 8), 2, blocks=-1), "blocks must be 0 or more, found -1"),
        (lambda: UNetConditional((0, 8, 8), 2), "at least 1 x 1 pixels, found (0, 8, 8)"),
        (lambda: ResNet((3, 32, 32), 10, depth=18), "ResNet: depth must be 6 n + 2 (8, 14, 20"),
        (lambda: ResNet((3, 32, 32), 10, depth=2), "ResNet: depth must be 6 n + 2"),
        (lambda: ResNet((3, 32, 32), 10, width=0), "ResNet: width must be 1 or more, found 0"),
        (lambda: ResNet((3, 32, 7), 10), "at least 8 x 8 pixels, found (3, 32, 7)"),
        (lambda: SmallClassifier((1, 4, 28), 10), "SmallClassifier takes images (C, H, W)"),
        (lambda: SmallClassifier((28, 28), 10), "of one channel or more and at least 8 x 8"),
        (lambda: AnyGenerator((0, 28, 28)), "at least 1 x 1 pixels, found (0, 28, 28)"),
    ],
)
def test_what_a_network_cannot_be_is_one_line(make, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_shape_from_a_file_is_a_list():
    assert at_least([3, 8, 9], "It") == (3, 8, 9)


# Generators


@pytest.mark.parametrize("shape", [*SHAPES, (1, 1, 1), (3, 7, 5), (3, 96, 98)])
def test_a_generator_keeps_shape_and_range_and_is_float32(shape):
    torch.manual_seed(0)
    x, y = torch.rand(2, *shape), torch.tensor([0, 2])
    unets = UNetGenerator(shape).eval(), UNetConditional(shape, 3).eval()
    for net, last, given in (
        (AnyGenerator(shape), "decoder", (x,)),
        (AnyConditional(shape, 3), "decoder", (x, y)),
        (unets[0], "last", (x,)),
        (unets[1], "last", (x, y)),
    ):
        getattr(net.net, last).weight.data.mul_(100)  # far into the sigmoid's ends
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            g = net(*given)
        assert (g.shape, g.dtype) == (x.shape, torch.float32)
        assert 0 <= float(g.min()) < float(g.max()) <= 1 or shape[1] == 1


def test_generators_are_small():
    assert parameter_count(AnyGenerator((3, 32, 32))) == 62_444
    assert parameter_count(AnyConditional((3, 64, 64), 100)) == 62_444 + 100 * 32
    assert parameter_count(AnyGenerator((1, 28, 28))) < 62_444
    assert parameter_count(UNetGenerator((3, 32, 32))) == 112_275
    assert parameter_count(UNetConditional((3, 32, 32), 10)) == 112_275 + 10 * (16 + 32 + 64)


@pytest.mark.parametrize("stride", [1, 2])
def test_in_eval_mode_the_norm_is_a_part_of_the_convolution(stride):
    """And gradients flow as they would through both."""
    torch.manual_seed(0)
    step = NormedConv(3, 5, stride=stride)
    for _ in range(3):
        step(torch.rand(8, 3, 6, 7) * 4)  # running means and variances unlike 0 and 1
    step.norm.weight.data.uniform_(0.5, 2)
    step.norm.bias.data.uniform_(-1, 1)
    step.eval()
    x = torch.rand(2, 3, 6, 7, requires_grad=True)
    expected = step.norm(step.conv(x)).relu()
    torch.testing.assert_close(step(x), expected)
    wanted = torch.autograd.grad(expected.square().sum(), [x, *step.parameters()])
    found = torch.autograd.grad(step(x).square().sum(), [x, *step.parameters()])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_u_net_sees_every_resolution():
    """Its levels have the sizes that their names say, and what is costly works on few pixels."""
    net = UNetGenerator((3, 32, 32), widths=(4, 8, 6), blocks=2).eval()
    sizes = []
    for part in net.modules():
        if isinstance(part, NormedConv):
            part.register_forward_hook(lambda _, __, out: sizes.append(tuple(out.shape[1:])))
    with torch.no_grad():
        net(torch.rand(1, 3, 32, 32))
    down = [(4, 32, 32), (8, 16, 16), (6, 8, 8)]
    assert sizes == [*down, (6, 8, 8), (6, 8, 8), (8, 16, 16), (4, 32, 32)]


def test_an_odd_size_is_the_even_one_cropped():
    """The last column is repeated, which is what an image with that column twice would give."""
    torch.manual_seed(0)
    net = AnyGenerator((1, 6, 5)).eval()
    x = torch.rand(2, 1, 6, 5)
    with torch.no_grad():
        wide = net(torch.cat([x, x[..., -1:]], dim=3))
        torch.testing.assert_close(net(x), wide[..., :5])


@pytest.mark.parametrize("size", [(5, 6), (8, 7), (1, 3)])
def test_a_u_net_fills_a_side_with_its_last_pixels(size):
    torch.manual_seed(0)
    net = UNetGenerator((1, *size)).eval()
    x = torch.rand(2, 1, *size)
    below, right = (-n % 4 for n in size)
    filled = torch.cat([x, *[x[..., -1:]] * right], dim=3)
    filled = torch.cat([filled, *[filled[:, :, -1:]] * below], dim=2)
    with torch.no_grad():
        torch.testing.assert_close(net(x), net(filled)[:, :, : size[0], : size[1]])


@pytest.mark.parametrize("kind", [AnyConditional, UNetConditional])
@pytest.mark.parametrize("classes", [3, 100])
def test_the_label_decides_and_reaches_every_pixel(classes, kind):
    torch.manual_seed(0)
    net = kind((3, 16, 16), classes).eval()
    assert isinstance(net, Conditional)
    assert net.classes == classes
    x = torch.rand(1, 3, 16, 16).expand(classes, -1, -1, -1)
    with torch.no_grad():
        g = net(x, torch.arange(classes))
    assert ((g[0] - g[1:]).abs() > 0).all()
    assert len({one.numpy().tobytes() for one in g}) == classes


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 15, 22)])
def test_every_weight_learns(shape):
    torch.manual_seed(0)
    x = torch.rand(4, *shape)
    for net, given in (
        (AnyGenerator(shape), (x,)),
        (AnyConditional(shape, 3), (x, torch.tensor([0, 1, 2, 0]))),
        (SmallClassifier(shape, 3), (x,)),
        (ResNet(shape, 3, width=4, depth=8), (x,)),
        (ResNet18(shape, 3, width=4), (x,)),
        (UNetGenerator(shape), (x,)),
        (UNetConditional(shape, 3), (x, torch.tensor([0, 1, 2, 0]))),
    ):
        (net(*given) ** 2).sum().backward()
        for name, parameter in net.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
