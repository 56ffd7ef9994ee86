"""The same work in plain PyTorch, as one would write it first: float32, NCHW, no tricks.

The networks are ports of :mod:`deepcustom.training.nets` that share nothing with them but their numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def classifier(dataset: str) -> nn.Sequential:
    """Images (N, C, H, W) in [0, 1] to logits (N, 10)."""
    if dataset in RESIDUAL:
        return residual(*RESIDUAL[dataset])
    if dataset == "mnist":
        dense = [layer for _ in range(4) for layer in (nn.Linear(30, 30), nn.ReLU())]
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 30), nn.ReLU(), *dense, nn.Linear(30, 10))
    return nn.Sequential(
        nn.Conv2d(3, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1024, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


class Basic(nn.Module):
    """A residual block: two convolutions; where the size changes, a shortcut as ``option`` A or B has it."""

    def __init__(self, inputs: int, outputs: int, stride: int, option: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.more = stride, outputs - inputs
        self.shortcut = nn.Sequential()
        if option == "B" and self.more:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.more and not len(self.shortcut):
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))
        return F.relu(out + self.shortcut(x))


class Mean(nn.Module):
    """The mean over all positions."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def residual(widths: tuple[int, ...], blocks: int, option: str) -> nn.Sequential:
    """A residual network: a convolution, ``blocks`` blocks for each width, logits."""
    first = widths[0]
    parts: list[nn.Module] = [
        nn.Conv2d(3, first, 3, padding=1, bias=False),
        nn.BatchNorm2d(first),
        nn.ReLU(),
    ]
    inputs = first
    for width in widths:
        for number in range(blocks):
            parts.append(Basic(inputs, width, 1 if number or width == first else 2, option))
            inputs = width
    return nn.Sequential(*parts, Mean(), nn.Linear(inputs, 10))


RESIDUAL = {
    "cifar10-resnet20": ((16, 32, 64), 3, "A"),
    "cifar10-resnet18": ((64, 128, 256, 512), 2, "B"),
}


def generator(dataset: str) -> nn.Sequential:
    """Images (N, C, H, W) in [0, 1] to the same shape and range."""
    if dataset == "mnist":
        return nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 128, 3),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.ConvTranspose2d(128, 64, 3, stride=2),
            nn.ReLU(),
            nn.BatchNorm2d(64),
            nn.ConvTranspose2d(64, 32, 2, stride=2),
            nn.ReLU(),
            nn.BatchNorm2d(32),
            nn.ConvTranspose2d(32, 1, 2, stride=2),
            nn.Sigmoid(),
        )
    return nn.Sequential(
        nn.Conv2d(3, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2),
        nn.ReLU(),
        nn.Conv2d(64, 128, 3),
        nn.ReLU(),
        nn.Conv2d(128, 128, 3, stride=2),
        nn.ReLU(),
        nn.ConvTranspose2d(128, 128, 3, stride=2),
        nn.ReLU(),
        nn.BatchNorm2d(128),
        nn.ConvTranspose2d(128, 64, 4),
        nn.ReLU(),
        nn.BatchNorm2d(64),
        nn.ConvTranspose2d(64, 32, 4, stride=2),
        nn.ReLU(),
        nn.BatchNorm2d(32),
        nn.ConvTranspose2d(32, 3, 3),
        nn.Sigmoid(),
    )


def port(net: nn.Module, source: nn.Module) -> nn.Module:
    """Give ``net`` a copy of the numbers of ``source``, tensor by tensor in their order; eval mode."""
    tensors = source.state_dict().values()
    state = {
        name: tensor.clone().contiguous()
        for name, tensor in zip(net.state_dict(), tensors, strict=True)
    }
    net.load_state_dict(state)
    return net.eval()


Net = Callable[[Tensor], Tensor]
"""Images to logits."""


def fgsm(net: Net, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """One step of ``eps`` along the sign of the gradient of the cross entropy."""
    return pgd(net, x, y, eps, eps, 1)


def pgd(net: Net, x: Tensor, y: Tensor, eps: float, eps_step: float, steps: int) -> Tensor:
    """``steps`` such steps of ``eps_step``, kept in the ball and in [0, 1]; no random start."""
    x_adv = x
    for _ in range(steps):
        x_adv = x_adv.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(net(x_adv), y), x_adv)
        x_adv = x_adv.detach() + eps_step * gradient.sign()
        x_adv = torch.minimum(torch.maximum(x_adv, x - eps), x + eps).clamp(0.0, 1.0)
    return x_adv


Loss = Callable[[Tensor, Tensor], Tensor]
"""(x, g) → mean over the batch."""


def nce(target_net: nn.Module, label: int) -> Loss:
    """Mean squared error less the target network's cross entropy."""

    def loss(x: Tensor, g: Tensor) -> Tensor:
        y = torch.full((len(g),), label)
        return F.mse_loss(g, x) - F.cross_entropy(target_net(g), y)

    return loss


def lrp(relevant: Tensor, eps: float, shape: tuple[int, ...]) -> Loss:
    """Squared distance from x - eps on the ``relevant`` places, x + eps elsewhere, half of each."""
    mask = torch.zeros(shape).flatten()
    mask[relevant] = 1.0
    mask = mask.view(shape)

    def loss(x: Tensor, g: Tensor) -> Tensor:
        down = ((g - (x - eps)) ** 2 * mask).sum() / mask.sum()
        up = ((g - (x + eps)) ** 2 * (1 - mask)).sum() / (1 - mask).sum()
        return 0.5 * (down + up) / len(x)

    return loss


def train(
    net: nn.Module, loss: Loss, x: Tensor, *, batch_size: int, learning_rate: float = 1e-3
) -> float:
    """One epoch of Adam in a random order; the mean loss over the images."""
    optimizer = torch.optim.Adam(net.parameters(), lr=learning_rate)
    net.train()
    total = 0.0
    for rows in torch.split(torch.randperm(len(x)), batch_size):
        batch = x[rows]
        optimizer.zero_grad()
        value = loss(batch, net(batch))
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += value.item() * len(batch)
    return total / len(x)
