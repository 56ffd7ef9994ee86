"""The whole of ``params.yaml`` at once, before any stage starts: sections, data sets, and names."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from deepcustom.base.errors import ParamsError
from deepcustom.base.params import (
    AdversarialTrainParams,
    AttackParams,
    ComputeParams,
    EvaluateParams,
    GenerateParams,
    Params,
    PrepareParams,
    RelevanceParams,
    ReportParams,
    SuspiciousnessParams,
    ThreatParams,
    TrainDgnParams,
    TrainingParams,
    found_value,
    hardening,
    online_names,
    section,
    seed,
    validate,
)

_PER_DATASET: dict[str, type[Params]] = {
    "threat": ThreatParams,
    "prepare": PrepareParams,
    "train_target": TrainingParams,
    "relevance": RelevanceParams,
    "suspiciousness": SuspiciousnessParams,
    "generate": GenerateParams,
    "evaluate": EvaluateParams,
    "report": ReportParams,
}
_PER_ITEM: dict[str, type[Params]] = {
    "train_dgn": TrainDgnParams,
    "attack": AttackParams,
    "adversarial_train": AdversarialTrainParams,
}
_SECTIONS = (*_PER_DATASET, *_PER_ITEM)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def check(
    tree: Mapping[str, Any],
    datasets: Collection[str] | None = None,
    known: Collection[str] | None = None,
) -> list[str]:
    """Check a whole params file, so that a mistake shows before any stage starts.

    Args:
        tree: all of it.
        datasets: the data sets in use, which every section must have; what is there for another is not
            read. None: all that any section names.
        known: the data sets there are; None: any name will do.

    Returns:
        The data sets in use.

    Raises:
        ParamsError: in one line: the key, what it holds, and what is allowed.
    """
    allowed = ["seed", "compute", *_SECTIONS]
    for name in tree:
        if name not in allowed:
            raise ParamsError(
                f"params.yaml: {name} is no known section; allowed: {', '.join(allowed)}"
            )
    seed(tree)
    validate(ComputeParams, section(tree, "compute"), "compute")
    used = _check_datasets(tree, datasets, known)
    for dataset in used:
        _check_settings(tree, dataset)
        _check_names(tree, dataset)
    return used


def _mapping(tree: Mapping[str, Any], what: str, *keys: str) -> Mapping[str, Any]:
    value = section(tree, *keys)
    if not isinstance(value, Mapping):
        key = ".".join(map(str, keys))
        raise ParamsError(f"params.yaml: {key} must be a mapping of {what}{found_value(value)}")
    return value


def _check_datasets(
    tree: Mapping[str, Any], used: Collection[str] | None, known: Collection[str] | None
) -> list[str]:
    """The data sets in use; each section must have them, and none that is not known."""
    there = {name: _mapping(tree, "data sets", name) for name in _SECTIONS}
    for name, below in there.items():
        for dataset in below:
            if known is not None and dataset not in known:
                raise ParamsError(
                    f"params.yaml: {name}.{dataset} is no known data set; "
                    f"allowed: {', '.join(known)}"
                )
    if used is None:
        used = dict.fromkeys(dataset for below in there.values() for dataset in below)
    for name, below in there.items():
        for dataset in used:
            if dataset not in below:
                raise ParamsError(
                    f"params.yaml: {name}.{dataset} is missing; {name} must have: {', '.join(used)}"
                )
    return list(used)


def _check_settings(tree: Mapping[str, Any], dataset: str) -> None:
    for name, model in _PER_DATASET.items():
        validate(model, section(tree, name, dataset), f"{name}.{dataset}")
    for name, model in _PER_ITEM.items():
        for item, values in _mapping(tree, "named settings", name, dataset).items():
            if not isinstance(item, str):
                raise ParamsError(f"params.yaml: {name}.{dataset}.{item} must be text: quote it")
            if not _NAME.fullmatch(item):
                raise ParamsError(
                    f"params.yaml: {name}.{dataset}.{item!r} names files: it must begin with a "
                    "letter or digit and hold only these, '-', '_' and '.'"
                )
            chosen = hardening(values) if name == "adversarial_train" else model
            validate(chosen, values, f"{name}.{dataset}.{item}")


def _check_names(tree: Mapping[str, Any], dataset: str) -> None:
    """What names a bank, an attack or a network must name one that is there."""
    robust = section(tree, "adversarial_train", dataset)
    sets = [*section(tree, "train_dgn", dataset), *section(tree, "attack", dataset)]
    chosen = validate(EvaluateParams, section(tree, "evaluate", dataset), f"evaluate.{dataset}")
    for key, names, allowed in (
        ("networks", chosen.networks, ["target", *robust]),
        ("attacks", chosen.attacks, sets),
        ("adaptive.bank", (chosen.adaptive.bank,), [*section(tree, "train_dgn", dataset)]),
    ):
        for name in names:
            if name not in allowed:
                raise ParamsError(
                    f"params.yaml: evaluate.{dataset}.{key}: {name!r} is not there; "
                    f"allowed: {', '.join(allowed)}"
                )
    for name in online_names(tree, dataset):
        if name in sets:
            raise ParamsError(
                f"params.yaml: adversarial_train.{dataset}.{name}: type online trains a generator of its "
                "own name, which a bank or an attack has already"
            )
    for name, values in robust.items():
        if values["type"] == "gf" and name not in sets:
            raise ParamsError(
                f"params.yaml: adversarial_train.{dataset}.{name}: type gf trains on the set of the "
                f"same name, which is not there; allowed: {', '.join(sets)}"
            )
