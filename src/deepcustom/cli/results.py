"""``deepcustom results``: the tables as evaluate saved them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from deepcustom.base.errors import InputError
from deepcustom.base.files import check_writable, replace_file
from deepcustom.cli.place import Folder, Profile, folder_of
from deepcustom.cli.terminal import Json, answering, console_on, print_json

Into = Annotated[
    Path | None,
    typer.Option(help="Markdown file whose marked tables are brought up to date."),
]


def results(
    profile: Profile = "default", folder: Folder = None, into: Into = None, as_json: Json = False
) -> None:
    """Print the tables of robust accuracies that evaluate saved."""
    from deepcustom.base.params import read_params
    from deepcustom.evaluation.results import read_csv
    from deepcustom.pipeline.hardened import hardened_networks
    from deepcustom.report.printed import print_tables
    from deepcustom.report.tables import fill_tables

    root = folder_of(profile, folder)
    files = sorted((root / "reports/results").glob("*.csv"))
    if not files:
        raise InputError("no results in reports/results: `deepcustom repro evaluate` makes them")
    found = [result for file in files for result in read_csv(file)]
    filled = fill_tables(_text_of(into), found) if into else ""
    with answering() as answer:
        if as_json:
            print_json({"results": [asdict(one) for one in found]}, answer)
        else:
            by = hardened_networks(read_params(root / "params.yaml"))
            print_tables(found, by, console_on(answer))
    if into:
        replace_file(into.resolve(), filled.encode())


def _text_of(into: Path) -> str:
    """The file whose tables are brought up to date, before anything is printed.

    Raises:
        InputError: it cannot be read, or its folder not be written.
    """
    check_writable(into.resolve().parent, "--into: the folder")
    try:
        return into.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InputError(f"--into {into}: cannot be read: {why}") from None
