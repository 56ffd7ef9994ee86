"""What a scoring found, as the terminal shows it: tables, checks, and what was left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from deepcustom.evaluation.checks import Check
from deepcustom.evaluation.results import (
    CLEAN,
    HardenedWith,
    Result,
    datasets_of,
    label_leaks,
    weak_whitebox,
)
from deepcustom.evaluation.scoring import Scores
from deepcustom.report.blocks import blocks
from deepcustom.report.tables import leak_line, weak_line

if TYPE_CHECKING:
    from rich.console import Console


def print_scores(found: Scores, subject: str, by: HardenedWith, console: Console) -> None:
    """Print the tables, how the checks ended, and in one line which protocols were left out, and why."""
    lacking = left_out(found)
    if "transfer" in lacking:
        _print_clean(found.results, console)
    print_tables(_asked(found.results, lacking), {subject: by}, console)
    _print_checks(found.checks, console)
    if lacking:
        line = "; ".join(f"{name} ({why})" for name, why in lacking.items())
        say(console, f"left out: {line}")


def print_tables(
    results: Sequence[Result], hardened_with: Mapping[str, HardenedWith], console: Console
) -> None:
    """Print the tables of every subject, and below them what is suspicious about the numbers.

    Args:
        results: results of one subject or of several.
        hardened_with: subject → network → the attack it was hardened with.
        console: where to print.
    """
    for dataset in datasets_of(results):
        by = hardened_with.get(dataset, {})
        for block in blocks(results, dataset, by, console.width):
            console.print(block, "", crop=False)
        lines = [f"label leak: {leak_line(leak)}" for leak in label_leaks(results, dataset, by)]
        lines += [f"weak attack: {weak_line(*pair)}" for pair in weak_whitebox(results, dataset)]
        for line in lines:
            say(console, f"{dataset}, {line.replace('**', '').replace('`', '')}")


def say(console: Console, line: str) -> None:
    """Print a line as it stands; on a terminal it goes on below between two words."""
    console.print(
        line, markup=False, highlight=False, emoji=False, soft_wrap=not console.is_terminal
    )


def left_out(found: Scores) -> dict[str, str]:
    """Protocol that had nothing to attack with, wholly or in part → what it lacked."""
    return {name: why for one in found.found.values() for name, why in one.left_out().items()}


def _print_clean(results: Iterable[Result], console: Console) -> None:
    """What stands for a table of the transfer protocol where there are clean images alone."""
    for one in results:
        if (one.protocol, one.attack) == ("transfer", CLEAN) and not one.empty:
            share = f"{100 * one.accuracy:.2f} % of {one.n:,} clean images are right"
            say(console, f"{one.network}: {share}")


def _asked(results: Sequence[Result], lacking: Iterable[str]) -> list[Result]:
    """The rows of the protocols that had something to attack with."""
    return [one for one in results if one.protocol != "transfer" or "transfer" not in lacking]


def _print_checks(checks: Sequence[Check], console: Console) -> None:
    """Print how many checks have each verdict, and every check that is not ok."""
    counts = {v: sum(check.verdict == v for check in checks) for v in ("ok", "warn", "fail")}
    line = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    say(console, f"checks: {line}")
    for check in checks:
        if check.verdict != "ok":
            say(console, f"  {check.verdict}: {check.name}, {check.about}: {check.text}")
