"""The files that a scoring writes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from deepcustom.evaluation.files import checks_json, rows_csv
from deepcustom.evaluation.results import ALL, CLEAN, Result, csv_text, pivot
from deepcustom.evaluation.scoring import Scores


def files_of(found: Scores) -> dict[str, str]:
    """File name → content, for the files that a scoring writes."""
    return {
        "results.csv": csv_text(found.results),
        "checks.json": checks_json(found.checks),
        "curves.csv": rows_csv(["network"], [((name,), point) for name, point in found.points]),
        "pairs.csv": rows_csv([], [((), pair) for pair in found.pairs]),
    }


def headline_json(results: Iterable[Result], subject: str, seconds: Mapping[str, float]) -> str:
    """The few numbers that answer whether it got better, as JSON.

    Args:
        results: the whole table.
        subject: whose networks.
        seconds: what each attack took when it was run.

    Returns:
        ``worst``: network → its worst case over everything. ``best``: the highest of them, and ``best_clean``
        that network's clean accuracy. ``clean``: the first network's, which is the target. ``seconds``: what
        all attacks took together. What was not measured is left out.
    """
    networks, _, cells = pivot(results, subject, "worst")
    scored = {key: round(cell.accuracy, 6) for key, cell in cells.items() if not cell.empty}
    worst = {name: scored[name, ALL] for name in networks if (name, ALL) in scored}
    kept: dict[str, Any] = {"worst": worst, "seconds": round(sum(seconds.values()), 1)}
    if networks and (networks[0], CLEAN) in scored:
        kept["clean"] = scored[networks[0], CLEAN]
    if worst:
        best = max(worst, key=lambda name: worst[name])
        kept |= {"best": worst[best], "best_clean": scored[best, CLEAN]}
    return json.dumps(kept, indent=1, sort_keys=True) + "\n"
