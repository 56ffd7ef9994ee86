"""Checks, curves and paired tests as JSON and CSV files; equal content makes equal bytes."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from deepcustom.base.errors import InputError
from deepcustom.base.once import read_json
from deepcustom.evaluation.checks import Check
from deepcustom.evaluation.points import Point
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
        rows = read_json(path.read_bytes())["checks"]
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
        rows = _rows(path, ["network", *(field.name for field in fields(Point))])
        return [(row["network"], _point(row)) for row in rows]
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: cannot read curves: {error}") from error


def _rows(path: Path, names: Sequence[str]) -> list[dict[str, str]]:
    """The lines of a CSV file with these columns, in this order."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
        head = list(reader.fieldnames or [])
    if head and head != list(names):
        raise ValueError(f"the columns are {','.join(head)}: want {','.join(names)}")
    for row in rows:
        if None in row or None in row.values():
            found = list(row.values())
            raise ValueError(f"a line has more or fewer cells than the head: {found}")
    return rows


def _point(row: Mapping[str, str]) -> Point:
    return Point(
        row["curve"],
        _radius(row["eps"]),
        _count("steps", row["steps"]),
        _share("accuracy", row["accuracy"] or "nan"),
        float(row["loss"] or "nan"),
        _share("risen", row["risen"] or "nan"),
    )


def _radius(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise ValueError(f"eps is {text}: want a number from 0")
    return value


def _share(name: str, text: str) -> float:
    value = float(text)
    if value < 0 or value > 1:  # nan stands for what was not measured
        raise ValueError(f"{name} is {text}: want a number from 0 to 1")
    return value


def _count(name: str, text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError(f"{name} is {text}: want a whole number, 0 or more")
    return value


def read_pairs(path: Path) -> list[PairedTest]:
    """Read a file of paired tests, one per line.

    Raises:
        InputError: the file is missing or malformed.
    """
    try:
        found = [_pair(row) for row in _rows(path, [field.name for field in fields(PairedTest)])]
        known = [(one.first, one.second) for one in found]
        again = next((one for one in known if known.count(one) > 1), None)
        if again:
            raise ValueError(f"{again[0]} and {again[1]} are compared twice")
        return found
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: cannot read paired tests: {error}") from error


def _pair(row: Mapping[str, str]) -> PairedTest:
    return PairedTest(
        row["first"],
        row["second"],
        _count("only_first", row["only_first"]),
        _count("only_second", row["only_second"]),
        _share("p", row["p"]),
    )
