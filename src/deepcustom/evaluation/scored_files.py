"""The files that a scoring writes, and a folder for them that holds no other scoring."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.errors import InputError
from deepcustom.evaluation.files import checks_json, read_points, rows_csv
from deepcustom.evaluation.results import ALL, CLEAN, Result, csv_text, pivot, read_csv
from deepcustom.evaluation.scoring import Scores


def files_of(found: Scores) -> dict[str, str]:
    """File name → content, for the files that a scoring writes."""
    return {
        "results.csv": csv_text(found.results),
        "checks.json": checks_json(found.checks),
        "curves.csv": rows_csv(["network"], [((name,), point) for name, point in found.points]),
        "pairs.csv": rows_csv([], [((), pair) for pair in found.pairs]),
    }


THREAT = "threat.json"
"""Beside the scores of a network of the user's own: the norm and the radius that they hold for."""


def threat_json(threat: ThreatModel) -> str:
    """The content of :data:`THREAT`."""
    return json.dumps({"norm": threat.norm, "eps": threat.eps}) + "\n"


def norm_of(folder: Path) -> str:
    """The norm that the scores in a folder hold for; where none is named, they are older than the choice.

    Raises:
        InputError: the file cannot be read.
    """
    file = folder / THREAT
    try:
        return str(json.loads(file.read_text())["norm"]) if file.is_file() else "linf"
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is not a norm and a radius as JSON") from error


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


def free_folder(folder: Path, dataset: str, network_md5: str, threat: ThreatModel) -> Path:
    """A folder for the scores of a network, in which no other scores are replaced.

    Args:
        folder: the wanted one.
        dataset: what tables call the images.
        network_md5: hash of the network's file; other networks may have a file of the same name.
        threat: the ball.

    Returns:
        ``folder`` if it has no scores or those of the same network, images and ball; else the first such
        of ``folder-2``, ``folder-3`` and so on.
    """
    places = (folder.with_name(f"{folder.name}-{n}") if n > 1 else folder for n in count(1))
    return next(one for one in places if _free(one, dataset, network_md5, threat))


def _free(folder: Path, dataset: str, network_md5: str, threat: ThreatModel) -> bool:
    if not (folder / "results.csv").exists():
        return True
    try:
        rows, points = read_csv(folder / "results.csv"), read_points(folder / "curves.csv")
        norm = norm_of(folder)
    except InputError:  # they may be anyone's
        return False
    same = all((row.dataset, row.network_md5) == (dataset, network_md5) for row in rows)
    radii = {point.eps for _, point in points if point.curve == "steps"}
    alike = norm == threat.norm and radii <= {float(f"{threat.eps:.6g}")}
    return same and alike  # with the digits that files have
