"""``deepcustom push`` and ``deepcustom pull``: trained models to and from a DVC remote."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from deepcustom.cli.place import here
from deepcustom.cli.terminal import Json, Quiet, answering, print_json

Remote = Annotated[
    str | None, typer.Option(help="DVC remote; by default the project's default remote.")
]


def push(remote: Remote = None, quiet: Quiet = False, as_json: Json = False) -> None:
    """Push the trained models, and own images that DVC keeps, to a DVC remote."""
    from deepcustom.pipeline import push as pushing

    root = here().root
    if not as_json:
        raise typer.Exit(pushing.push(root, remote, quiet=quiet))
    with answering(quiet) as answer:
        name, url, files = pushing.unsent(root, remote)
        code = pushing.push(root, remote, quiet=quiet)
        sent = [asdict(one) for one in files] if code == 0 else []
        print_json({"remote": name, "url": url, "sent": sent}, answer)
    raise typer.Exit(code)


def pull(remote: Remote = None, quiet: Quiet = False) -> None:
    """Fetch the trained models, and own images that DVC keeps, from a DVC remote."""
    from deepcustom.pipeline.push import pull as fetch

    raise typer.Exit(fetch(here().root, remote, quiet=quiet))
