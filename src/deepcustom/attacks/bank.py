"""Banks of data generator networks (DGNs), one per class: their files, and the images they make."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from deepcustom.attacks.dgn import DGN, read_dgn, stored
from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.errors import InputError
from deepcustom.training.compute import Compute
from deepcustom.training.nets.base import Named, build
from deepcustom.training.weights import load_state, save_tensors

Output = Literal["image", "perturbation"]


def propose(net: nn.Module, x: Tensor, output: Output, threat: ThreatModel) -> Tensor:
    """The images that a DGN proposes for ``x``, before the projection.

    Args:
        net: the generator, images to images in [0, 1].
        x: clean images (N, C, H, W) in [0, 1].
        output: ``image``: the generator's output itself; ``perturbation``: what
            :meth:`~deepcustom.attacks.threat.ThreatModel.spread` makes of it.
        threat: gives eps.

    Returns:
        Images like ``x`` in [0, 1].

    Raises:
        InputError: the generator gives another shape.
    """
    s = threat.fits(net(x).float(), x)
    return s if output == "image" else threat.spread(s, x)


@dataclass(frozen=True)
class DGNBank(DGN):
    """One DGN per class, and how to read their output.

    Attributes:
        dataset: name of the subject that they attack.
        loss: the loss they were trained on.
        output: ``image`` or ``perturbation``.
        generators: one per class, in eval mode.
    """

    dataset: str
    loss: str
    output: Output
    generators: list[nn.Module]

    @property
    def classes(self) -> int:
        """How many labels there are."""
        return len(self.generators)

    def networks(self) -> list[nn.Module]:
        """The generators, by label."""
        return list(self.generators)

    def _generate(
        self, x: Tensor, labels: Tensor, threat: ThreatModel, compute: Compute, batch_size: int
    ) -> Tensor:
        x_adv = torch.empty_like(x)
        for label, net in enumerate(self.generators):
            rows = torch.nonzero(labels == label).flatten()
            for part in torch.tensor_split(rows, max(math.ceil(len(rows) / batch_size), 1)):
                if not len(part):
                    continue
                batch = x[_padded(part, batch_size)]
                batch = batch.to(compute.device, memory_format=torch.channels_last)
                with compute.autocast():
                    g = propose(net, batch, self.output, threat)
                x_adv[part] = threat.project(g, batch)[: len(part)].to(x.device)
        return x_adv

    def save(self, path: str | Path) -> None:
        """Write all DGNs to one safetensors file, weights in half precision."""
        tensors = {
            f"{label}.{name}": stored(tensor)
            for label, net in enumerate(self.generators)
            for name, tensor in net.state_dict().items()
        }
        about = {"dataset": self.dataset, "loss": self.loss, "output": self.output}
        save_tensors(
            Path(path), tensors, {"kind": "dgn-bank", "classes": len(self.generators), **about}
        )

    @classmethod
    def load(
        cls, path: Path, generator: Named, dataset: str, num_classes: int, device: torch.device
    ) -> DGNBank:
        """Read a bank of ``num_classes`` DGNs of the class ``generator`` for ``dataset``.

        Raises:
            InputError: no such file or class, or the file holds something else.
        """
        tensors, about = read_dgn(path, "dgn-bank", dataset)
        if about.get("classes") != num_classes:
            raise InputError(f"{path} holds {about.get('classes')} DGNs, expected {num_classes}")
        if about.get("output") not in ("image", "perturbation") or not about.get("loss"):
            raise InputError(f"{path} does not say how its output is to be read")
        generators = []
        for label in range(num_classes):
            net = build(generator)
            prefix = f"{label}."
            own = {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
            load_state(net, own, path)
            generators.append(ready(net, device))
        return cls(dataset, str(about["loss"]), about["output"], generators)


def _padded(rows: Tensor, most: int) -> Tensor:
    """``rows`` (n,), with the last one repeated up to a multiple of 16, but to ``most`` rows at most.

    The CPU library (oneDNN) makes new kernels for every new batch size, and keeps them. The number of images
    per class varies from call to call: without padding, memory grew by half in the course of 100,000 images.
    """
    size = min(math.ceil(len(rows) / 16) * 16, most)
    return torch.cat([rows, rows[-1:].expand(size - len(rows))])


def ready(net: nn.Module, device: torch.device) -> nn.Module:
    """``net`` for inference only: frozen, in eval mode, and in the memory layout for convolutions."""
    net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net.eval().requires_grad_(False)
