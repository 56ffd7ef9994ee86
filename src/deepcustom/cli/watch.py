"""The command that shows a running pipeline from another terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepcustom.base.errors import InputError
from deepcustom.base.progress import hushed
from deepcustom.cli.place import Profile

if TYPE_CHECKING:
    from deepcustom.pipeline.watch.look import Look, Watcher

EVERY = 1.0  # seconds between two looks
SPEAK = 10.0  # seconds between two lines that differ in numbers alone, where there is no terminal

Folder = Annotated[
    Path | None,
    typer.Option(
        help="Any project; by default workspaces/PROFILE, for the profile default this one."
    ),
]
Once = Annotated[bool, typer.Option("--once", help="Look once, and end.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one line for each look.")]


def watch(
    profile: Profile = "default", folder: Folder = None, once: Once = False, as_json: Json = False
) -> None:
    """Show which stage runs, how far it is, and how long it will still take; end with the pipeline."""
    from deepcustom.pipeline.watch.look import Watcher

    watcher = Watcher(_root(profile, folder))
    try:
        with hushed():
            _show(watcher, once, as_json)
    except KeyboardInterrupt:  # the usual way to leave it
        return


def _root(profile: str, folder: Path | None) -> Path:
    """The project to look at, which may be any."""
    if folder is not None:
        for name in ("dvc.yaml", "params.yaml"):
            if not (folder / name).is_file():
                raise InputError(f"--folder {folder}: no {name} there: want a project's top folder")
        return folder.resolve()
    from deepcustom.pipeline.profile import folder_of
    from deepcustom.pipeline.workspace import Workspace

    return folder_of(Workspace.here(), profile).resolve()


def _show(watcher: Watcher, once: bool, as_json: bool) -> None:
    looks = iter([watcher.look()]) if once else _looks(watcher)
    if as_json:
        for one in looks:
            print(json.dumps(one.as_json()), flush=True)
    elif sys.stdout.isatty() and not once:
        _draw(looks)
    else:
        _tell(looks)


def _looks(watcher: Watcher) -> Iterator[Look]:
    """A look each second, until nothing is at work."""
    while True:
        found = watcher.look()
        yield found
        if not found.at_work:
            return
        time.sleep(EVERY)


def _draw(looks: Iterator[Look]) -> None:
    """One picture, drawn anew in its place; what is left at the end is how it ended."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    levels = _levels()
    with Live(console=Console(highlight=False), auto_refresh=False) as live:
        for one in looks:
            text = Text("\n".join(one.lines(levels)), no_wrap=True, overflow="ellipsis")
            live.update(text, refresh=True)


def _tell(looks: Iterator[Look]) -> None:
    """Lines: all of them when something else runs, and every ten seconds."""
    levels, before, said = _levels(), None, 0.0
    for one in looks:
        what = [running.state.stage for running in one.running], one.between
        if what != before or one.now - said >= SPEAK:
            print("\n".join(one.lines(levels)), flush=True)
            before, said = what, one.now


def _levels() -> str:
    from deepcustom.pipeline.watch.sparkline import levels_for

    return levels_for(sys.stdout.encoding)
