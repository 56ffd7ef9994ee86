"""Compares a run's record with its entry in ``dvc.lock``: what it read, and with which settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from deepcustom.base.params import fraction
from deepcustom.base.rows import RECIPE, RECIPES, overlay
from deepcustom.pipeline.trace.lineage import ABSENT, BROKEN, OK, Link
from deepcustom.tracking.record import RunRecord

Entry = Mapping[str, Any]
"""What ``dvc.lock`` says of one stage."""


def agree(name: str, other: str, expected: str, found: str | None) -> Link:
    """Compare two hashes; ``other`` says where the second comes from."""
    if found is None:
        return Link(name, ABSENT, f"{other}: none")
    if found == expected:
        return Link(name, OK)
    return Link(name, BROKEN, f"{other}: {found}, expected {expected}")


def lock_links(
    record: RunRecord, entry: Entry | None, told: Callable[[str, Entry], str | None]
) -> list[Link]:
    """Compare the record's inputs and params with the lock's.

    Args:
        record: of the run.
        entry: the run's in ``dvc.lock``.
        told: gives the hash of a file that the lock does not name, but one of the small files that it names.
    """
    if entry is None:
        return [Link("stage in dvc.lock", ABSENT, f"{record.name}: none")]
    deps = {one["path"]: one["md5"] for one in entry.get("deps", [])}
    links = [
        agree(f"read {path}", "dvc.lock", md5, deps.get(path) or told(path, entry))
        for path, md5 in record.inputs.items()
        if not any(parent.as_posix() in deps for parent in Path(path).parents)
    ]
    wrong = list(_other_params(record, entry))
    if not wrong:
        return [*links, Link("params", OK)]
    return [*links, Link("params", BROKEN, f"dvc.lock has others: {', '.join(wrong)}")]


def _other_params(record: RunRecord, entry: Entry) -> Iterator[str]:
    """The keys whose values in the lock are not those that the run used.

    The run used each row laid over its recipe, so this lays the lock's row over the recipe before comparing.
    """
    params: Mapping[str, Any] = entry.get("params", {}).get("params.yaml", {})
    for key, value in params.items():
        if key.partition(".")[0] == RECIPES:
            continue
        for place, found in _rows(key, value, record):
            if isinstance(found, dict) and RECIPE in found:
                found = overlay(_recipe(params, found[RECIPE]), found)
            if not _within(found, _used(record.params, place)):
                yield place


def _rows(key: str, value: Any, record: RunRecord) -> Iterator[tuple[str, Any]]:
    """(place, value): for a whole section, each row that the run used; else what the lock has at ``key``."""
    used = [place for place in record.params if place.startswith(f"{key}.")]
    if "." in key or not used or not isinstance(value, dict):
        if "." in key or key in record.params:
            yield key, value
        return
    for place in used:
        yield place, value.get(place.removeprefix(f"{key}."))


def _recipe(params: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = params.get(f"{RECIPES}.{name}", params.get(RECIPES, {}).get(name, {}))
    return found if isinstance(found, Mapping) else {}


def _used(params: Mapping[str, Any], place: str) -> Any:
    """The record's value at ``place``, or inside the value of the longest key that ``place`` begins with."""
    words = place.split(".")
    for count in range(len(words), 0, -1):
        value: Any = params.get(".".join(words[:count]))
        if value is not None:
            for word in words[count:]:
                value = value.get(word) if isinstance(value, Mapping) else None
            return value
    return None


def _within(part: Any, whole: Any) -> bool:
    """Whether ``whole`` has everything that ``part`` has; it may have more besides.

    A fraction that stands as text in ``part`` (``8/255``) is the number in ``whole``.
    """
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(
            _within(value, whole.get(key)) for key, value in part.items()
        )
    if isinstance(part, str) and isinstance(whole, float):
        return fraction(part) == whole
    return bool(part == whole)
