"""The ways of hardening a network: one row each."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from deepcustom.base.errors import ParamsError, UnknownNameError
from deepcustom.base.params import found_value
from deepcustom.hardening.base import Way, current

WAYS = {
    "goodfellow": "deepcustom.hardening.goodfellow:Goodfellow",
    "art": "deepcustom.hardening.art:Art",
    "madry": "deepcustom.hardening.madry:Madry",
    "online": "deepcustom.hardening.online:Online",
}
"""``type`` in ``params.yaml`` → the class, imported when it is asked for."""


def way(name: Any) -> type[Way[Any]]:
    """The way of hardening called ``name``; an old name is taken, with a hint.

    Raises:
        UnknownNameError: there is none; the message lists those there are.
    """
    name = current(name)
    if not isinstance(name, str) or name not in WAYS:
        raise UnknownNameError("way of hardening", name, WAYS)
    module, _, cls = WAYS[name].partition(":")
    found: type[Way[Any]] = getattr(importlib.import_module(module), cls)
    return found


def way_of(values: Any, where: str) -> type[Way[Any]]:
    """The way that a hardened network's section of ``params.yaml`` names as its ``type``.

    Args:
        values: the section as it stands in the file.
        where: its dotted place there, for messages.

    Raises:
        ParamsError: in one line: it names none.
    """
    if not isinstance(values, Mapping):
        keys = "type, training and the keys of that type"
        raise ParamsError(f"params.yaml: {where} must be a mapping of {keys}{found_value(values)}")
    if "type" not in values:
        raise ParamsError(f"params.yaml: {where}.type is missing: choose from {', '.join(WAYS)}")
    try:
        return way(values["type"])
    except UnknownNameError as error:
        raise ParamsError(f"params.yaml: {where}.type: {error}") from None
