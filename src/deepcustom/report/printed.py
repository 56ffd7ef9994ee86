"""What a scoring found, as the terminal shows it: tables, checks, and what was left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from deepcustom.evaluation.checks import Check
from deepcustom.evaluation.results import CLEAN, HardenedWith, Result
from deepcustom.evaluation.scoring import Scores
from deepcustom.report.tables import print_tables


def print_scores(found: Scores, subject: str, by: HardenedWith) -> None:
    """Print the tables, how the checks ended, and in one line which protocols were left out, and why."""
    lacking = {name: why for one in found.found.values() for name, why in one.left_out().items()}
    if "transfer" in lacking:
        _print_clean(found.results)
    print_tables(_asked(found.results, lacking), {subject: by})
    _print_checks(found.checks)
    if lacking:
        print("left out: " + "; ".join(f"{name} ({why})" for name, why in lacking.items()))


def _print_clean(results: Iterable[Result]) -> None:
    """What stands for a table of the transfer protocol where there are clean images alone."""
    for one in results:
        if (one.protocol, one.attack) == ("transfer", CLEAN) and not one.empty:
            print(f"{one.network}: {100 * one.accuracy:.2f} % of {one.n:,} clean images are right")


def _asked(results: Sequence[Result], lacking: Iterable[str]) -> list[Result]:
    """The rows of the protocols that had something to attack with."""
    return [one for one in results if one.protocol != "transfer" or "transfer" not in lacking]


def _print_checks(checks: Sequence[Check]) -> None:
    """Print how many checks have each verdict, and every check that is not ok."""
    counts = {v: sum(check.verdict == v for check in checks) for v in ("ok", "warn", "fail")}
    print("checks: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    for check in checks:
        if check.verdict != "ok":
            print(f"  {check.verdict}: {check.name}, {check.about}: {check.text}")
