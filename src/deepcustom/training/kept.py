"""What a network remembers from pass to pass: parameters and buffers, which a trial puts back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deepcustom.training.nets.exported import Exported


@dataclass(frozen=True)
class State:
    """A network's parameters, buffers and modes at one moment, with copies of their values.

    Attributes:
        tensors: name → the module that holds it, its name there, the tensor, and a copy.
        modes: each module and whether it was in training mode.
    """

    tensors: dict[str, tuple[nn.Module, str, Tensor, Tensor]]
    modes: list[tuple[nn.Module, bool]]

    @classmethod
    def of(cls, net: nn.Module) -> State:
        """The present state."""
        tensors, modes = {}, []
        for prefix, module in _modules(net):
            modes.append((module, module.training))
            for held in (module._parameters, module._buffers):
                for name, tensor in held.items():
                    if tensor is not None:
                        copy = tensor.detach().clone()
                        tensors[f"{prefix}{name}"] = (module, name, tensor, copy)
        return cls(tensors, modes)

    def changed(self) -> list[str]:
        """The names of what no longer has the value that it had."""
        return [
            name
            for name, (module, own, _, copy) in self.tensors.items()
            if not _alike(module, own, copy)
        ]

    def restore(self) -> None:
        """Put everything back."""
        with torch.no_grad():
            for module, name, tensor, copy in self.tensors.values():
                if not _alike(module, name, copy):
                    _put(module, name, tensor, copy)
        for module, training in self.modes:
            module.training = training


def _put(module: nn.Module, name: str, tensor: Tensor, value: Tensor) -> None:
    """Give ``tensor`` its value again, and the module the tensor, if another took its place."""
    if tensor.shape == value.shape:
        tensor.copy_(value)
    else:
        tensor.data = value.clone()
    for held in (module._buffers, module._parameters):
        if isinstance(held, dict) and name in held:  # a scripted module keeps its own
            held[name] = tensor  # type: ignore[assignment]


def _modules(net: nn.Module) -> list[tuple[str, nn.Module]]:
    """Every module with the front of its tensors' names; an exported program's too."""
    found = []
    for name, module in net.named_modules():
        prefix = f"{name}." if name else ""
        found.append((prefix, module))
        if isinstance(module, Exported):
            found += [(f"{prefix}{front}", part) for front, part in _modules(module._program[0])]
    return found


def _alike(module: nn.Module, name: str, copy: Tensor) -> bool:
    now = getattr(module, name, None)
    if now is None or now.shape != copy.shape or now.dtype != copy.dtype:
        return False
    same = now == copy
    return (
        bool((same | (now.isnan() & copy.isnan())).all())
        if now.is_floating_point()
        else bool(same.all())
    )
