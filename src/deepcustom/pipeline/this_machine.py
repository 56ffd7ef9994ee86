"""Checks whether this machine, and the cluster, are what ``params.yaml`` asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deepcustom.base.params import section, validate
from deepcustom.base.settings import ComputeParams


def check_machine(tree: Mapping[str, Any]) -> None:
    """Find out before any stage starts, since DVC removes what a stage is about to make.

    Args:
        tree: a whole ``params.yaml``, whose settings are right by themselves.

    Raises:
        ParamsError: the machine lacks a device.
        InputError: Ray is not installed, or no cluster answers.
    """
    from deepcustom.pipeline.cluster.connection import check_reachable, engine_of
    from deepcustom.training.compute import Compute  # which loads torch

    Compute.check(validate(ComputeParams, section(tree, "compute"), "compute"))
    if (engine := engine_of(tree)).kind == "ray":
        check_reachable(engine)
