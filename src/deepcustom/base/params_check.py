"""The whole of ``params.yaml`` at once, before any stage starts: sections, data sets, and names."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Protocol

from deepcustom.base.errors import ParamsError
from deepcustom.base.params import (
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
}
_SECTIONS = (*_PER_DATASET, *_PER_ITEM, "adversarial_train")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class Hardening(Protocol):
    """What is asked of a way of hardening, see :class:`deepcustom.hardening.base.Way`."""

    @property
    def Settings(self) -> type[Params]:  # noqa: N802  # the attribute's name there
        """The model of a network's section."""

    @property
    def reads_set(self) -> bool:
        """Whether it trains on the adversarial set of the network's name."""


WayOf = Callable[[Any, str], Hardening]
"""(values, where) → the way of hardening that a network's section, with its dotted place, names."""


def check(
    tree: Mapping[str, Any],
    way_of: WayOf,
    datasets: Collection[str] | None = None,
    known: Collection[str] | None = None,
) -> list[str]:
    """Check a whole params file, so that a mistake shows before any stage starts.

    Args:
        tree: all of it.
        way_of: finds the way of hardening that a section names.
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
        _check_names(tree, dataset, _check_hardened(tree, dataset, way_of))
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
        for item, values in _items(tree, name, dataset):
            validate(model, values, f"{name}.{dataset}.{item}")


def _check_hardened(tree: Mapping[str, Any], dataset: str, way_of: WayOf) -> list[str]:
    """The hardened networks that train on an adversarial set."""
    reading = []
    for name, values in _items(tree, "adversarial_train", dataset):
        where = f"adversarial_train.{dataset}.{name}"
        way = way_of(values, where)
        validate(way.Settings, values, where)
        if way.reads_set:
            reading.append(name)
    return reading


def _items(tree: Mapping[str, Any], name: str, dataset: str) -> Iterator[tuple[str, Any]]:
    """What a section holds by name; the names are checked."""
    for item, values in _mapping(tree, "named settings", name, dataset).items():
        if not isinstance(item, str):
            raise ParamsError(f"params.yaml: {name}.{dataset}.{item} must be text: quote it")
        if not _NAME.fullmatch(item):
            raise ParamsError(
                f"params.yaml: {name}.{dataset}.{item!r} names files: it must begin with a "
                "letter or digit and hold only these, '-', '_' and '.'"
            )
        yield item, values


def _check_names(tree: Mapping[str, Any], dataset: str, reading: Collection[str]) -> None:
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
    for name in reading:
        if name not in sets:
            kind = robust[name]["type"]
            raise ParamsError(
                f"params.yaml: adversarial_train.{dataset}.{name}: type {kind} trains on the set of the "
                f"same name, which is not there; allowed: {', '.join(sets)}"
            )
