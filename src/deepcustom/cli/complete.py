"""Completes names in the shell, by ``params.yaml`` of the current folder; in a broken project, none.

The shell waits at every press of the key, so nothing heavy is imported, and nothing is checked.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any

import typer

VARIABLE = "_DEEPCUSTOM_COMPLETE"
"""The shell's script sets it when it asks."""
FEW = 40
"""So many whole paths or numbers are offered at once; of more, the beginnings."""

Names = Callable[[typer.Context, str], list[str]]


def is_asked() -> bool:
    """Whether the shell asks for completions, rather than the user for a command."""
    return VARIABLE in os.environ


def answer(app: typer.Typer) -> None:
    """Answer the shell; whatever is wrong with the project, nothing is said of it."""
    with suppress(Exception):
        app(prog_name="deepcustom")


def _silent(find: Callable[[typer.Context, str], Iterable[str]]) -> Names:
    """A function for typer, that knows nothing where ``find`` fails."""

    @wraps(find)
    def names(ctx: typer.Context, incomplete: str) -> list[str]:
        with suppress(Exception):
            return [
                name for name in dict.fromkeys(find(ctx, incomplete)) if name.startswith(incomplete)
            ]
        return []

    # The annotations as they are, for typer, which reads them.
    names.__annotations__ = {"ctx": typer.Context, "incomplete": str}
    del names.__wrapped__
    return names


def _tree() -> dict[str, Any]:
    from deepcustom.base.once import read_yaml

    tree = read_yaml(Path("params.yaml").read_bytes())
    return tree if isinstance(tree, dict) else {}


def _of_rows(ctx: typer.Context, key: str, *stages: str) -> Iterator[str]:
    """The values of a key in the rows of stages, of one subject if the command line names it."""
    subject, tree = ctx.params.get("subject"), _tree()
    for stage in stages:
        for one in tree.get(stage, {}).values():
            if subject in (None, one.get("subject")):
                yield one[key]


@_silent
def subjects(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """The subjects."""
    return list(_tree()["subjects"])


@_silent
def datasets(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """The data sets."""
    return list(_tree()["prepare"])


@_silent
def banks(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """The banks of the subject."""
    return _of_rows(ctx, "bank", "train_dgn", "generate")


@_silent
def attacks(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """The attacks of the subject."""
    return _of_rows(ctx, "attack", "attack")


@_silent
def networks(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """The hardened networks of the subject: for a stage, those that it trains."""
    stage = ctx.info_name or ""
    both = ("adversarial_train", "train_online")
    return _of_rows(ctx, "network", *((stage,) if stage in both else both))


@_silent
def splits(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """The splits."""
    return ("train", "val", "test")


@_silent
def profiles(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """The profiles, the default one first."""
    return ("default", *sorted(file.stem for file in Path("profiles").glob("*.yaml")))


@_silent
def losses(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """The losses of the package, and those that rows of the project name."""
    own = [one["loss"] for one in _tree().get("train_dgn", {}).values()]
    return ("lrp", "nce", "soft_margin", "suspiciousness", *own)


@_silent
def methods(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """The attacks of ART that a row may name."""
    return ("fgsm", "pgd")


@_silent
def ways(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """The ways of hardening."""
    return ("goodfellow", "art", "madry", "online")


@_silent
def targets(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """The stages of the pipeline, and their rows."""
    from deepcustom import stages

    tree = _tree()
    rows = [f"{stage}@{name}" for stage in stages.NAMES for name in tree.get(stage, {})]
    return rows if "@" in incomplete else (*stages.NAMES, *rows)


@_silent
def traceable(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """What stages make, and the numbers of the tables, step by step where they are many."""
    found = [name for name in (*_paths(), *_numbers()) if name.startswith(incomplete)]
    return found if len(found) <= FEW else _beginnings(found, incomplete)


def _paths() -> Iterator[str]:
    """Every path that dvc.lock names as an output; its text is searched, since reading it takes long."""
    within = False
    with suppress(OSError):
        for line in Path("dvc.lock").read_text().splitlines():
            if line.endswith(":"):
                within = line == "    outs:"
            elif within and line.startswith("    - path: "):
                yield line.removeprefix("    - path: ")


def _numbers() -> Iterator[str]:
    """SUBJECT/NETWORK/PROTOCOL/ATTACK of every row of the tables."""
    for file in sorted(Path("reports/results").glob("*.csv")):
        with file.open(newline="") as stream:
            for row in csv.DictReader(stream):
                yield "/".join(row[key] for key in ("dataset", "network", "protocol", "attack"))


def _beginnings(names: Iterable[str], incomplete: str) -> list[str]:
    """The names as far as the next part, and further while all have that in common."""
    names = list(names)
    depth = incomplete.count("/") + 1
    while True:
        found = [
            "/".join(name.split("/")[:depth]) + "/" * (name.count("/") >= depth) for name in names
        ]
        if len(set(found)) > 1 or set(found) == set(names):
            return found
        depth += 1
