"""Example of a network of your own: this file trains it, and DeepCustom's evaluation scores it.

Run these commands from the project's top folder. MNIST must be prepared, as it is after ``make evaluate``::

    python -m examples.own_network own.safetensors
    deepcustom evaluate --subject mnist --network own.safetensors --architecture examples.own_network:Linear
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from deepcustom.data.arrays import Split
from deepcustom.data.datasets import load_spec


class Linear(nn.Module):
    """Softmax regression. The network normalises its input itself, so attacks work on images in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Linear(28 * 28, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 10) of images (N, 1, 28, 28) in [0, 1]."""
        logits: Tensor = self.scores(((x - 0.1307) / 0.3081).flatten(1))
        return logits


def train(root: Path, epochs: int = 3) -> Linear:
    """Train on the prepared train split below ``root``, with Adam in batches of 128."""
    prepared = root / "data/prepared/mnist"
    x, y = Split.load(prepared / "train", load_spec(prepared / "dataset.json")).tensors()
    torch.manual_seed(0)
    net = Linear()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(128):
            loss = nn.functional.cross_entropy(net(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net


if __name__ == "__main__":
    save_file(train(Path.cwd()).state_dict(), sys.argv[1])
