"""The files that a scoring writes."""

from __future__ import annotations

from deepcustom.evaluation.files import checks_json, rows_csv
from deepcustom.evaluation.results import csv_text
from deepcustom.evaluation.scoring import Scores


def files_of(found: Scores) -> dict[str, str]:
    """File name → content, for the files that a scoring writes."""
    return {
        "results.csv": csv_text(found.results),
        "checks.json": checks_json(found.checks),
        "curves.csv": rows_csv(["network"], [((name,), point) for name, point in found.points]),
        "pairs.csv": rows_csv([], [((), pair) for pair in found.pairs]),
    }
