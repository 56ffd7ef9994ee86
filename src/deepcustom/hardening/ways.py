"""The ways of hardening a network: one row each."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from deepcustom.base.errors import ParamsError, UnknownNameError
from deepcustom.hardening.base import Way, current

WAYS = {
    "goodfellow": "deepcustom.hardening.goodfellow:Goodfellow",
    "art": "deepcustom.hardening.art:Art",
    "madry": "deepcustom.hardening.madry:Madry",
    "online": "deepcustom.hardening.online:Online",
}
"""``type`` in ``params.yaml`` → the class, imported when it is asked for."""


def way(name: Any) -> type[Way[Any]]:
    """The way of hardening called ``name``; an old name is accepted, with a hint.

    Raises:
        UnknownNameError: there is no such way; the message lists those that there are.
    """
    name = current(name)
    if not isinstance(name, str) or name not in WAYS:
        raise UnknownNameError("way of hardening", name, WAYS)
    module, _, cls = WAYS[name].partition(":")
    found: type[Way[Any]] = getattr(importlib.import_module(module), cls)
    return found


def way_of(settings: Mapping[str, Any], where: str, stage: str) -> type[Way[Any]]:
    """The way of hardening that a network's settings name as their ``type``.

    Args:
        settings: the network's settings, unchecked.
        where: the row's dotted place in ``params.yaml``, for messages.
        stage: the stage that is to train the network.

    Raises:
        ParamsError: in one line: the settings name no way, or one that another stage trains.
    """
    if "type" not in settings:
        raise ParamsError(f"params.yaml: {where}.type is missing: choose from {', '.join(WAYS)}")
    try:
        found = way(settings["type"])
    except UnknownNameError as error:
        raise ParamsError(f"params.yaml: {where}.type: {error}") from None
    if found.stage != stage:
        kind = settings["type"]
        raise ParamsError(f"params.yaml: {where}: type {kind} is trained by {found.stage}")
    return found
