"""The stages that a ``dvc repro`` goes through, in its order, as ``dvc.yaml`` and ``params.yaml`` say.

DVC itself takes seconds to say it, and holds its lock meanwhile. ``dvc.yaml`` comes from this package's
template, whose rows are easily filled in.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import yaml

from deepcustom.base.once import read_yaml

PLACE = re.compile(r"\$\{([\w.]+)\}")
FLAGS = {"-f", "--force", "-q", "--quiet", "-v", "--verbose", "--pull", "--allow-missing"}
FLAGS |= {"-k", "--keep-going", "--ignore-errors", "--no-commit", "--no-run-cache", "--temp"}
"""Options of ``dvc repro`` and ``dvc exp run`` that do not change which stages it goes through."""
ALONE, GLOB = {"-s", "--single-item"}, "--glob"
VALUED = {"--profile", "--folder", "-S", "--set-param", "-n", "--name", "-m", "--message"}
"""Options that a value follows, which do not either."""
STARTS = ("repro", "run")
"""The words after which the stages stand."""


@dataclass(frozen=True)
class Plan:
    """The stages of one ``dvc repro``.

    Attributes:
        stages: their names.
        ordered: whether they are in DVC's order; where few of many are asked for, DVC's order is by chance.
    """

    stages: tuple[str, ...]
    ordered: bool

    def place(self, stage: str) -> int | None:
        """The number of a stage, from 1; None if it is not known."""
        return self.stages.index(stage) + 1 if self.ordered and stage in self.stages else None


def plan(root: Path, command: Sequence[str]) -> Plan | None:
    """What ``command``, the words of a ``dvc repro``, goes through; None where that cannot be told.

    Args:
        root: the project.
        command: a command line, such as ``["dvc", "repro", "evaluate@mnist"]``.
    """
    asked = _asked(command)
    if asked is None:
        return None
    try:
        needs = _needs(root)
    except (OSError, yaml.YAMLError, UnicodeDecodeError, LookupError, TypeError, AttributeError):
        return None
    targets, options = asked
    chosen = _chosen(list(needs), targets, GLOB in options)
    if chosen is None:
        return None
    if options & ALONE:
        return Plan(tuple(chosen), ordered=True)
    stages = tuple(_after_their_needs(needs, chosen or list(needs)))
    return Plan(stages, ordered=not chosen or 2 * len(stages) >= len(needs))


def _asked(command: Sequence[str]) -> tuple[list[str], set[str]] | None:
    """Targets and options; None for options that are not understood."""
    words, targets = list(command), []
    options: set[str] = set()
    begin = next((words.index(word) + 1 for word in STARTS if word in words), None)
    if begin is None:
        return None
    rest = iter(words[begin:])
    for word in rest:
        if word in VALUED:
            next(rest, None)
        elif not word.startswith("-"):
            targets.append(word.removeprefix("dvc.yaml:"))
        elif word in FLAGS | ALONE | {GLOB}:
            options.add(word)
        elif word.partition("=")[0] not in VALUED:
            return None
    return targets, options


def _chosen(names: list[str], targets: list[str], patterns: bool) -> list[str] | None:
    """The stages that targets name; None if one names none."""
    found: list[str] = []
    for target in targets:
        if target == "dvc.yaml":
            return []
        some = [one for one in names if target in (one, one.partition("@")[0])]
        if not some and patterns:
            some = fnmatch.filter(names, target)
        if not some:
            return None
        found += some
    return found


def _after_their_needs(needs: Mapping[str, Sequence[str]], chosen: Sequence[str]) -> list[str]:
    """Each stage after all that it needs, in the order of a search in depth, as DVC walks."""
    found: dict[str, None] = {}

    def visit(stage: str) -> None:
        if stage not in found and stage not in open_:
            open_.add(stage)
            for one in needs[stage]:
                visit(one)
            found[stage] = None

    wanted: set[str] = set()
    left = list(chosen)
    while left:
        one = left.pop()
        if one not in wanted:
            wanted.add(one)
            left += needs[one]
    open_: set[str] = set()
    for stage in needs:
        if stage in wanted:
            visit(stage)
    return list(found)


def _needs(root: Path) -> dict[str, list[str]]:
    """Stage → the stages that make what it reads, in the order of ``dvc.yaml``."""
    stages = read_yaml((root / "dvc.yaml").read_bytes())["stages"]
    tree = read_yaml((root / "params.yaml").read_bytes())
    reads, makers = {}, {}
    for name, body in _resolved(stages, tree):
        reads[name] = [PurePath(path).parts for path in _paths(body.get("deps"))]
        for kind in ("outs", "metrics", "plots"):
            makers.update({PurePath(path).parts: name for path in _paths(body.get(kind))})
    below: dict[tuple[str, ...], list[str]] = {}
    for parts, name in makers.items():
        for length in range(1, len(parts)):
            below.setdefault(parts[:length], []).append(name)
    return {name: _makers(paths, makers, below) for name, paths in reads.items()}


def _makers(
    paths: Sequence[tuple[str, ...]],
    makers: Mapping[tuple[str, ...], str],
    below: Mapping[tuple[str, ...], Sequence[str]],
) -> list[str]:
    found: dict[str, None] = {}
    for parts in paths:
        for length in range(1, len(parts) + 1):
            if parts[:length] in makers:
                found[makers[parts[:length]]] = None
        found |= dict.fromkeys(below.get(parts, ()))
    return list(found)


def _resolved(stages: Mapping[str, Any], tree: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each row's stage under its name, with its values filled in."""
    for name, stage in stages.items():
        if "foreach" not in stage:
            yield name, stage
            continue
        rows = _value(tree, stage["foreach"])
        for key, row in rows.items():
            yield f"{name}@{key}", _filled(stage["do"], {"key": key, "item": row})


def _value(tree: Any, place: Any) -> Any:
    """What ``${section}`` stands for, or the mapping that is given instead."""
    found = PLACE.fullmatch(place) if isinstance(place, str) else None
    return tree[found[1]] if found else place


def _filled(value: Any, known: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        return PLACE.sub(lambda found: str(_look_up(known, found[1])), value)
    if isinstance(value, Mapping):
        return {_filled(key, known): _filled(one, known) for key, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, known) for one in value]
    return value


def _look_up(known: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        known = known[part]
    return known


def _paths(listed: Any) -> list[str]:
    """The paths of deps or outs, each text or a mapping with the path for its key."""
    return [next(iter(one)) if isinstance(one, Mapping) else str(one) for one in listed or ()]
