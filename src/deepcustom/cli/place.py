"""Where a command works: the project in the current folder, or a profile's workspace of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepcustom.cli.complete import profiles

if TYPE_CHECKING:
    from deepcustom.pipeline.workspace import Workspace

Profile = Annotated[
    str,
    typer.Option(help="Set of settings: default, paper or smoke.", autocompletion=profiles),
]
Folder = Annotated[
    Path | None,
    typer.Option(help="Folder to work in; by default workspaces/PROFILE, for default this one."),
]


def here() -> Workspace:
    """The project in the current folder.

    Raises:
        InputError: there is none.
    """
    from deepcustom.pipeline.workspace import Workspace

    return Workspace.here()


def folder_of(profile: str, folder: Path | None) -> Path:
    """Where a profile's files lie, without making anything.

    Raises:
        InputError, UnknownNameError: there is no project here, or no such profile.
    """
    from deepcustom.pipeline import profile as profiles_of

    return profiles_of.folder_of(here(), profile, folder)
