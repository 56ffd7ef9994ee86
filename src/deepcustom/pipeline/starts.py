"""What a hardened network starts from: fresh weights, those of its target, or any of the project's.

Rows of a section name their ``start`` all, or none: DVC has no dependency that only some rows have.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from deepcustom.base.errors import ParamsError
from deepcustom.base.rows import LAYOUTS, START, Row, rows
from deepcustom.pipeline import workspace
from deepcustom.pipeline.outputs import outputs

ANEW, TARGET = "anew", "target"
"""Short for two of the files, on the command line."""
SUFFIX = ".safetensors"


def anew(one: Row) -> str:
    """What a row names if its network starts from fresh weights: the train split, which it reads anyway."""
    return workspace.split(one.dataset, "train")


def named_in(tree: Mapping[str, Any], stage: str) -> bool:
    """Whether the rows of a section name their start."""
    return any(START in one.about for one in rows(tree, stage))


def start_of(word: str, subject: str, dataset: str) -> str:
    """The file that a word of the command line stands for; any other word is the file's own path."""
    short = {ANEW: workspace.split(dataset, "train"), TARGET: workspace.target(subject)}
    return short.get(word, word)


def check_start(root: Path, tree: Mapping[str, Any], one: Row) -> None:
    """Check what a hardened network's row starts from.

    Raises:
        ParamsError: in one line: the row names no start and others of its section do; or it names no weights
            of the project, or those that it makes itself, or some that no row makes.
    """
    place, fresh = f"params.yaml: {one.place}.{START}", anew(one)
    start = one.about.get(START)
    if start is None:
        if named_in(tree, one.stage):
            raise ParamsError(
                f"{place} is missing, and other rows of {one.stage} have it: it must be {fresh}, for fresh "
                "weights, or a file of weights"
            )
        return
    if start == fresh:
        return
    path = PurePosixPath(start)
    inside = not path.is_absolute() and ".." not in path.parts and path.as_posix() == start
    if not inside or path.suffix != SUFFIX or start in outputs(one):
        raise ParamsError(
            f"{place} must be {fresh}, for fresh weights, or another network's {SUFFIX} file in the project, "
            f"such as {workspace.target(one.subject)}; found {start}"
        )
    if workspace.producer(start):
        if not any(start in outputs(other) for stage in LAYOUTS for other in rows(tree, stage)):
            raise ParamsError(f"{place}: no row makes {start}")
    elif not (root / start).is_file():
        raise ParamsError(f"{place}: {start} is missing")
