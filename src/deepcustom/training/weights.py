"""Networks and arrays as safetensors files: no pickle, names and shapes checked before use."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from deepcustom.base.errors import InputError
from deepcustom.base.files import replace_file

_METADATA_KEY = "deepcustom"  # one key only: the format does not keep the order of several


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write ``tensors`` with ``metadata`` (anything JSON can hold); same input, same bytes.

    An older file is replaced when the new one is whole.

    Raises:
        OutputError: the file cannot be written, for example because the disk is full.
    """
    plain = _apart({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    told = {_METADATA_KEY: json.dumps(metadata, sort_keys=True)}
    # Not save_file: it writes to a temporary file of its own, which stays if the process is killed.
    replace_file(path, save(plain, metadata=told))


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, none in the memory of another: tied weights go to the file twice."""
    seen: set[int] = set()
    found = {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        found[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return found


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


def has_weights(net: nn.Module, what: str) -> None:
    """Refuse a network whose parameters or buffers do not exist yet; ``what`` is what to call it.

    Raises:
        InputError: one has no shape yet, or lies on the device meta.
    """
    for name, tensor in (*net.named_parameters(), *net.named_buffers()):
        if is_lazy(tensor):
            raise InputError(
                f"{what}: {name} has no shape yet: give its layer a size, or show the network an image first"
            )
        if tensor.is_meta:
            raise InputError(
                f"{what}: {name} lies on the device meta, so it holds nothing: make it where it is to hold "
                "its weights"
            )


def load_state(net: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load ``tensors`` of any precision into ``net`` in place; ``path`` is where they are from, for messages.

    Raises:
        InputError: names or shapes are not those of ``net``, whole numbers stand for others or others for
            whole ones, or a value is not finite.
    """
    expected = net.state_dict()
    if set(tensors) != set(expected):
        odd = sorted(set(tensors) ^ set(expected))
        missing, unknown = len(set(expected) - set(tensors)), len(set(tensors) - set(expected))
        raise InputError(
            f"{path} does not fit {_called(net)}: differing tensors {odd[:4]} ({missing} missing, {unknown} "
            "unknown to the network)"
        )
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            found, wanted = tuple(tensor.shape), tuple(expected[name].shape)
            raise InputError(f"{path}: {name} has shape {found}, expected {wanted}")
        if tensor.is_floating_point() != expected[name].is_floating_point():
            raise InputError(
                f"{path}: {name} holds {tensor.dtype}, expected {expected[name].dtype}"
            )
        if not torch.isfinite(_wide(tensor)).all():
            raise InputError(f"{path}: {name} holds values that are not finite")
    net.load_state_dict({name: t.to(expected[name].dtype) for name, t in tensors.items()})


def _wide(tensor: Tensor) -> Tensor:
    """Numbers of 8 bits in float32: torch does not ask them whether they are finite."""
    return tensor.float() if tensor.is_floating_point() and tensor.itemsize == 1 else tensor


def _called(net: nn.Module) -> str:
    """The class of a network, or of the one that a wrapper holds."""
    return type(getattr(net, "net", net)).__name__


def load_weights(net: nn.Module, path: Path) -> None:
    """Load a user's own weights into ``net`` in place.

    Names may begin with ``module.`` or ``_orig_mod.``, which training in parallel and compiling put in front,
    or all with another word and a dot, such as ``model.``, if they fit without it.
    Of tensors that share memory, one may stand for all, as :func:`safetensors.torch.save_model` writes them.

    Raises:
        InputError: no such file, or it does not fit ``net``.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path} is no safetensors file, or is corrupted: {reason}; safetensors.torch.save_file writes "
            "one, and a pickle (.pt, .pth) is not read"
        ) from None
    expected = net.state_dict(keep_vars=True)
    front = _front(tensors, expected)
    named = {_known(name.removeprefix(front), expected): t for name, t in tensors.items()}
    twins = {_place(expected[name]): name for name in named if name in expected}
    for name, tensor in expected.items():
        if name not in named and _place(tensor) in twins:
            named[name] = named[twins[_place(tensor)]]
    load_state(net, named, path)


WRAPPERS = ("module.", "_orig_mod.")


def _known(name: str, expected: Mapping[str, Any]) -> str:
    """``name`` as ``expected`` has it: without what wrappers put in front, or behind our own wrapper's."""
    bare = name
    while bare.startswith(WRAPPERS) and bare not in expected:
        bare = bare.partition(".")[2]
    return next((one for one in (bare, f"net.{bare}") if one in expected), name)


def _front(names: Iterable[str], expected: Mapping[str, Any]) -> str:
    """What all names have in front, up to the first dot, if each is known without it and none with it."""
    fronts = {f"{name.partition('.')[0]}." for name in names}
    front = fronts.pop() if len(fronts) == 1 else ""
    with_it = any(_known(name, expected) in expected for name in names)
    without = all(_known(name.removeprefix(front), expected) in expected for name in names)
    return front if without and not with_it else ""


def _place(tensor: Tensor) -> tuple[int, int, tuple[int, ...]]:
    return tensor.untyped_storage().data_ptr(), int(tensor.storage_offset()), tuple(tensor.shape)


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
