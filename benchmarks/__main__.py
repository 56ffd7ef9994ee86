"""``python -m benchmarks``: measure, save the figures, print and write the tables."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import machine, making, memory, peaks, report, training
from benchmarks import sizes as sizes_of
from benchmarks.inputs import OF_STUDY, SUBJECTS, demand, lacking
from benchmarks.race import HERE, race
from deepcustom.base.errors import DeepCustomError
from deepcustom.base.progress import progress

GROUPS = ("making", "training", "peaks", "memory")
ROUNDS, QUICK_ROUNDS = 5, 2
LEAST, QUICK_LEAST = 1.0, 0.0  # seconds of a contender's turn


def main(words: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    options = _parser().parse_args(words)
    try:
        return _run(options)
    except DeepCustomError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped; what was measured before is saved", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    several: dict[str, Any] = {"action": "append", "default": None}
    parser.add_argument("--only", choices=GROUPS, help="this group; may be repeated", **several)
    parser.add_argument(
        "--subject",
        "--dataset",
        dest="dataset",
        choices=tuple(SUBJECTS),
        help="this subject; may be repeated",
        **several,
    )
    parser.add_argument("--rounds", type=_positive, help=f"rounds of each race ({ROUNDS})")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether it runs at all")
    parser.add_argument("--sizes", type=_sizes, help="images of memory: 10000,100000,1000000")
    parser.add_argument("--scratch", type=Path, help="where memory puts its files for a while")
    parser.add_argument("--root", type=Path, default=HERE, help="folder with models/ and data/")
    parser.add_argument(
        "--out",
        type=Path,
        help="folder for RESULTS.md and results/ (benchmarks; build/benchmarks if --quick)",
    )
    parser.add_argument("--render", action="store_true", help="measure nothing: write RESULTS.md")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not positive")
    return number


def _sizes(text: str) -> list[int]:
    return [_positive(part) for part in text.split(",")]


def _run(options: argparse.Namespace) -> int:
    quick, root = options.quick, options.root.resolve()
    out = options.out or HERE / ("build/benchmarks" if quick else "benchmarks")
    asked = options.dataset or [
        name for name in SUBJECTS if name in OF_STUDY or not lacking(root, name, train=False)
    ]
    names = [name for name in SUBJECTS if name in asked]
    usual = [group for group in GROUPS if group != "memory" or memory.DATASET in names]
    groups = [group for group in GROUPS if group in (options.only or usual)]
    sizes = options.sizes or list(memory.QUICK_SIZES if quick else memory.SIZES)
    if not options.render:
        _demand(root, groups, names)
        if "memory" in groups:
            memory.demand_room(sizes, options.scratch)
    (out / "results").mkdir(parents=True, exist_ok=True)
    if not options.render:
        console = Console()
        for measured in _measure(options, root, groups, names, sizes):
            name = "-".join(filter(None, (measured["group"], measured["dataset"])))
            text = json.dumps(measured, indent=1, ensure_ascii=False) + "\n"
            (out / "results" / f"{name}.json").write_text(text)
            report.section(measured).show(console)
    page = out / "RESULTS.md"
    found = report.load(out / "results")
    page.write_text(report.markdown(found))
    for written in filter(None, (page, sizes_of.write(found, out))):
        print(f"written: {written}")
    return 0


def _demand(root: Path, groups: Sequence[str], names: Sequence[str]) -> None:
    if "making" in groups:
        demand(root, names, train=False)
    if {"training", "peaks"} & set(groups):
        demand(root, of_study(names), train=True)
    if "memory" in groups:
        demand(root, [memory.DATASET], train=False)


def of_study(names: Sequence[str]) -> list[str]:
    """The subjects that every group measures; the others are for ``making`` alone."""
    return [name for name in names if name in OF_STUDY]


def _measure(
    options: argparse.Namespace,
    root: Path,
    groups: Sequence[str],
    names: Sequence[str],
    sizes: Sequence[int],
) -> Iterator[dict[str, Any]]:
    """One file of results after the other."""
    quick = options.quick
    rounds = options.rounds or (QUICK_ROUNDS if quick else ROUNDS)
    least = QUICK_LEAST if quick else LEAST
    common = {"quick": quick, "rounds": rounds, "least_seconds": least}

    def raced(title: str, contenders: list[Any]) -> list[dict[str, Any]]:
        with progress(title, (rounds + 1) * len(contenders)) as advance:
            return race(contenders, rounds=rounds, least=least, advance=advance)

    facts = machine.facts()
    for group in groups:
        before = {
            "group": group,
            "date": datetime.now(UTC).date().isoformat(),
            "machine": {**facts, "load": machine.load()},
        }
        if group in ("making", "training"):
            module = {"making": making, "training": training}[group]
            for name in names if group == "making" else of_study(names):
                settings = {**module.settings(name, quick), **common}
                results = raced(f"{group} {name}", module.contenders(root, name, quick))
                yield {**before, "dataset": name, "settings": settings, "results": results}
        elif group == "peaks":
            results = raced(group, peaks.contenders(root, of_study(names), quick))
            settings = {**peaks.settings(quick), **common}
            yield {**before, "dataset": None, "settings": settings, "results": results}
        else:
            with progress(group, len(sizes)) as advance:
                results = memory.measure(root, sizes, scratch=options.scratch, advance=advance)
            settings = {**memory.settings(sizes), "quick": quick}
            yield {**before, "dataset": None, "settings": settings, "results": results}


if __name__ == "__main__":
    # Both end it as Ctrl-C does, children first; a shell's background jobs would ignore the former.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())
