"""Curves over the epochs of a training as a CSV file, for `dvc plots` and for the report."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from deepcustom.base.errors import InputError

COLUMNS = ("measure", "class", "epoch", "value")
ALL = "all"
"""In the column ``class``: all classes together."""
_OF_A_CLASS = re.compile(r"class_(\d+)/(.+)")


def history_csv(history: Mapping[str, Sequence[float]]) -> str:
    """Curves as CSV, a line for each value; equal curves make equal bytes.

    Args:
        history: values by epoch under ``loss`` and so on, and those of one class under ``class_3/loss``.

    Raises:
        ValueError: a value is not finite.
    """
    if not all(math.isfinite(value) for curve in history.values() for value in curve):
        raise ValueError("a curve has a value that is not a finite float")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for key in sorted(history):
        match = _OF_A_CLASS.fullmatch(key)
        about = (match[2], match[1]) if match else (key, ALL)
        writer.writerows(
            (*about, epoch, repr(float(value))) for epoch, value in enumerate(history[key], 1)
        )
    return text.getvalue()


def read_history(path: Path) -> dict[str, list[float]]:
    """Read what :func:`history_csv` wrote.

    Raises:
        InputError: the file is missing or malformed.
    """
    history: dict[str, list[float]] = {}
    try:
        with path.open(newline="") as file:
            for row in csv.DictReader(file, strict=True):
                measure, of = row["measure"], row["class"]
                key = measure if of == ALL else f"class_{int(of)}/{measure}"
                history.setdefault(key, []).append(float(row["value"]))
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        raise InputError(f"{path}: cannot read curves: {error}") from error
    return history
