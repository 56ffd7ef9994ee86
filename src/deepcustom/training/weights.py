"""Networks and arrays as safetensors files: no pickle, names and shapes checked before use."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from deepcustom.base.errors import InputError, OutputError
from deepcustom.base.files import final_of

_METADATA_KEY = "deepcustom"  # one key only: the format does not keep the order of several


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write ``tensors`` with ``metadata`` (anything JSON can hold); same input, same bytes.

    Raises:
        OutputError: the file cannot be written, for example because the disk is full.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    told = {_METADATA_KEY: json.dumps(metadata, sort_keys=True)}
    # Not save_file: it writes to a temporary file of its own, which stays if the process is killed.
    content = save(plain, metadata=told)
    try:
        path.write_bytes(content)
    except OSError as error:
        raise OutputError(f"{final_of(path)} cannot be written: {error.strerror}") from error


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file that ``save_tensors`` wrote.

    Returns:
        Tensors by name, and the metadata.

    Raises:
        InputError: no such file, or not a safetensors file of this project.
    """
    return _read(path, lambda file: {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata of a file that ``save_tensors`` wrote.

    Raises:
        InputError: as :func:`load_tensors`.
    """
    return _read(path, lambda _: {})[1]


def _read(
    path: Path, tensors: Callable[[Any], dict[str, Tensor]]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not path.is_file():
        raise InputError(f"{path} is missing")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {})[_METADATA_KEY])
            if not isinstance(metadata, dict):
                raise KeyError("its metadata is not a mapping")
            return tensors(file), metadata
    except (SafetensorError, json.JSONDecodeError, KeyError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path} is not a DeepCustom safetensors file, or is corrupted: {reason}"
        ) from None


def load_state(net: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load ``tensors`` of any precision into ``net`` in place; ``path`` is where they are from, for messages.

    Raises:
        InputError: names or shapes are not those of ``net``, or a value is not finite.
    """
    expected = net.state_dict()
    if set(tensors) != set(expected):
        odd = sorted(set(tensors) ^ set(expected))
        raise InputError(f"{path} does not fit {type(net).__name__}: differing tensors {odd[:4]}")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            found, wanted = tuple(tensor.shape), tuple(expected[name].shape)
            raise InputError(f"{path}: {name} has shape {found}, expected {wanted}")
        if not torch.isfinite(tensor).all():
            raise InputError(f"{path}: {name} holds values that are not finite")
    net.load_state_dict({name: t.to(expected[name].dtype) for name, t in tensors.items()})


def save_network(path: Path, net: nn.Module, metadata: Mapping[str, Any]) -> None:
    """Write the state of ``net``; ``metadata`` says what it is."""
    save_tensors(path, net.state_dict(), metadata)


def load_network(path: Path, net: nn.Module) -> dict[str, Any]:
    """Read a state into ``net``, freeze it and put it in eval mode.

    Returns:
        The file's metadata.

    Raises:
        InputError: no such file, or it does not fit ``net``.
    """
    tensors, metadata = load_tensors(path)
    load_state(net, tensors, path)
    net.eval().requires_grad_(False)
    return metadata
