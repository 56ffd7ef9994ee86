"""Checks, curves and paired tests as JSON and CSV files; equal content makes equal bytes."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from deepcustom.base.errors import InputError
from deepcustom.evaluation.checks import Check
from deepcustom.evaluation.curves import Point
from deepcustom.evaluation.statistics import PairedTest


def checks_json(checks: Iterable[Check]) -> str:
    """All checks as JSON, in their order; a figure that is not finite becomes null."""
    rows = [asdict(check) for check in checks]
    for row in rows:
        row["figures"] = {k: v if math.isfinite(v) else None for k, v in row["figures"].items()}
    return json.dumps({"checks": rows}, indent=1, sort_keys=True, allow_nan=False) + "\n"


def read_checks(path: Path) -> list[Check]:
    """Read what :func:`checks_json` wrote; null becomes nan.

    Raises:
        InputError: the file is missing, or does not hold checks.
    """
    try:
        rows = json.loads(path.read_text())["checks"]
        found = [Check(**{**row, "figures": _figures(row["figures"])}) for row in rows]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: cannot read checks: {error}") from error
    for check in found:
        if check.verdict not in ("ok", "warn", "fail"):
            raise InputError(f"{path}: verdict {check.verdict!r}: want ok, warn or fail")
    return found


def _figures(row: dict[str, float | None]) -> dict[str, float]:
    return {name: math.nan if value is None else float(value) for name, value in row.items()}


def rows_csv(names: Sequence[str], rows: Iterable[tuple[tuple[str, ...], Any]]) -> str:
    """Write records as CSV, with further columns in front of their fields.

    Args:
        names: names of the columns in front.
        rows: for each line, the cells in front, and a dataclass whose fields are the other cells.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for number, (lead, record) in enumerate(rows):
        if not number:
            writer.writerow([*names, *(field.name for field in fields(record))])
        writer.writerow([*lead, *(_cell(value) for value in asdict(record).values())])
    return text.getvalue()


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return str(value)


def read_points(path: Path) -> list[tuple[str, Point]]:
    """Read a file of curves: the network and the point of each line.

    Raises:
        InputError: the file is missing or malformed.
    """
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        return [(row["network"], _point(row)) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise InputError(f"{path}: cannot read curves: {error}") from error


def _point(row: dict[Any, Any]) -> Point:
    if None in row or None in row.values():
        raise ValueError(f"a line has more or fewer cells than the head: {list(row.values())}")
    return Point(
        row["curve"],
        float(row["eps"]),
        int(row["steps"]),
        float(row["accuracy"] or "nan"),
        float(row["loss"] or "nan"),
        float(row["risen"] or "nan"),
    )


def read_pairs(path: Path) -> list[PairedTest]:
    """Read a file of paired tests, one per line.

    Raises:
        InputError: the file is missing or malformed.
    """
    try:
        with path.open(newline="") as file:
            return [
                PairedTest(
                    row["first"],
                    row["second"],
                    int(row["only_first"]),
                    int(row["only_second"]),
                    float(row["p"]),
                )
                for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: cannot read paired tests: {error}") from error
