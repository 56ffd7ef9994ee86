"""The command that says what is set up and what is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from deepcustom.cli.terminal import Json, print_json


def doctor(as_json: Json = False) -> None:
    """Say what is set up, what is missing, what the machine can do, and what mends each."""
    from deepcustom.pipeline.doctor.examine import examine

    found = []
    for one in examine(Path.cwd()):
        found.append(one)
        if not as_json:
            print(one.line(), flush=True)
    hindrances = [one.name for one in found if one.hinders]
    if as_json:
        told = {"findings": [one.as_json() for one in found], "hindrances": hindrances}
        print_json(told, sys.stdout)
    else:
        print(f"hinders: {', '.join(hindrances)}" if hindrances else "nothing hinders")
    raise typer.Exit(1 if hindrances else 0)
