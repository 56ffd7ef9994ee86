"""Which attack each network was hardened with, as ``params.yaml`` says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deepcustom.base.params import section
from deepcustom.base.rows import HARDENING, SUBJECTS, Row, rows
from deepcustom.evaluation.results import HardenedWith
from deepcustom.pipeline.workspace import adversarial


def hardened_with(tree: Mapping[str, Any], subject: str) -> HardenedWith:
    """Network → the attack it was hardened with, by its name among the adversarial sets.

    If a network's row reads an adversarial set, the attack is the one of that set, which has the network's
    name. If ART trained the network, the attack is the ``method`` that ART used. Other networks are left
    out: they trained on images that no adversarial set holds.

    Args:
        tree: the whole of ``params.yaml``.
        subject: whose networks to look up.

    Raises:
        ParamsError: a network's row has a mistake.
    """
    found = {
        one.about["network"]: _attack(one)
        for stage in HARDENING
        for one in rows(tree, stage, subject)
    }
    return {network: attack for network, attack in found.items() if attack is not None}


def hardened_networks(tree: Mapping[str, Any]) -> dict[str, HardenedWith]:
    """Subject → what :func:`hardened_with` says of it, for every subject."""
    return {subject: hardened_with(tree, subject) for subject in section(tree, SUBJECTS)}


def _attack(one: Row) -> str | None:
    network = one.about["network"]
    if one.about.get("reads") == adversarial(one.subject, "train", network):
        return network
    attack = one.settings.get("attack")
    return str(attack["method"]) if isinstance(attack, Mapping) and "method" in attack else None
