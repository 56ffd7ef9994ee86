"""``deepcustom leaderboard``: all scored networks of a project in one order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepcustom.base.files import check_writable, replace_file
from deepcustom.cli.place import Folder, Profile, folder_of
from deepcustom.cli.terminal import Json, answering, console_on, print_json

if TYPE_CHECKING:
    from deepcustom.pipeline.leaderboard import Standing
    from deepcustom.report.blocks import Block

Table = Annotated[
    Path | None, typer.Option("--csv", help="Also write the table to this file, with every column.")
]
AUTO = "AutoAttack"  # shown only where it was run on a network
FAILED = "failed checks"  # likewise, where any failed
HEADERS = ("", "network", "clean", "worst", "95 %", AUTO, FAILED, "parameters", "training", "trace")


def leaderboard(
    profile: Profile = "default", folder: Folder = None, table: Table = None, as_json: Json = False
) -> None:
    """Order all scored networks by what everything that was tried leaves of them."""
    from deepcustom.pipeline.leaderboard import csv_of
    from deepcustom.pipeline.leaderboard import leaderboard as ordered

    if table:
        check_writable(table.resolve().parent, "--csv: the folder")
    found = ordered(folder_of(profile, folder))
    with answering() as answer:
        if as_json:
            print_json({"leaderboard": [asdict(one) for one in found]}, answer)
        else:
            console = console_on(answer)
            for block in _blocks(found):
                console.print(block, "", crop=False)
    if table:
        replace_file(table.resolve(), csv_of(found).encode())


def _blocks(found: Sequence[Standing]) -> Iterator[Block]:
    """A table for each group of networks that may be held against each other."""
    from rich.text import Text

    from deepcustom.report.blocks import Block

    for key in dict.fromkeys(one.group for one in found):
        some = [one for one in found if one.group == key]
        rows = [HEADERS, *map(_row, some)]
        told = {
            AUTO: any(one.autoattack is not None for one in some),
            FAILED: any(one.failed for one in some),
        }
        columns = [
            [Text(row[place], "bold" if not number else "") for number, row in enumerate(rows)]
            for place, header in enumerate(HEADERS)
            if told.get(header, True)
        ]
        subject, norm, eps, n, _ = key
        yield Block(f"{subject}, {norm}, eps = {eps:g}, {n:,} images", columns, _notes(some))


def _row(one: Standing) -> tuple[str, ...]:
    return (
        str(one.place),
        one.network + " *" * one.own,
        f"{100 * one.clean:.1f}",
        f"{100 * one.worst:.1f}",
        f"{100 * one.ci_low:.1f}-{100 * one.ci_high:.1f}",
        "-" if one.autoattack is None else f"{100 * one.autoattack:.1f}",
        ", ".join(one.failed.split()) or "-",
        f"{one.parameters:,}" if one.parameters else "-",
        f"{one.training_seconds / 60:.1f} min" if one.training_seconds else "-",
        one.trace,
    )


def _notes(some: Sequence[Standing]) -> list[str]:
    from deepcustom.evaluation.check_table import FAILED as MEANING

    notes = [
        "Accuracy in %; worst: what withstands everything that was tried. "
        "`deepcustom trace` leads from a row to its sources."
    ]
    failed = dict.fromkeys(name for one in some for name in one.failed.split())
    notes += [f"{name} failed: {MEANING[name]}" for name in failed if name in MEANING]
    own = [one for one in some if one.own]
    if own:
        notes.append(
            "*: scored by `deepcustom evaluate --network`; its scores are in the folder named."
        )
    most = max((one.tried.split() for one in some), key=len)
    for one in own:
        lacking = [protocol for protocol in most if protocol not in one.tried.split()]
        if lacking:
            notes.append(
                f"{one.network}: without {' and '.join(lacking)}, so its worst case is an easier one."
            )
    return notes
