"""``deepcustom trace`` and ``deepcustom runs``: what records say, and MLflow's copy of them."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from deepcustom.base.errors import DeepCustomError, TrackingError
from deepcustom.cli import complete
from deepcustom.cli.place import Folder, Profile, folder_of, here
from deepcustom.cli.terminal import Json, answering, print_json

runs = typer.Typer(help="Records of stage runs.", no_args_is_help=True)
UNCUT = 10_000  # characters a line, for what is piped or kept: no hash is cut short


def trace(
    what: Annotated[
        str,
        typer.Argument(
            help="A stage's output, such as models/target/mnist.safetensors, or a number, such as "
            "mnist/nce/transfer/pgd.",
            autocompletion=complete.traceable,
        ),
    ],
    as_json: Json = False,
    profile: Profile = "default",
    folder: Folder = None,
) -> None:
    """Show where a number or file comes from, back to the raw data; verify every hash."""
    from rich.console import Console

    from deepcustom.pipeline import provenance
    from deepcustom.pipeline.trace import view as lineage_view
    from deepcustom.pipeline.trace.walk import trace as walk
    from deepcustom.pipeline.workspace import Workspace
    from deepcustom.report.blocks import is_drawn
    from deepcustom.tracking.store import run_ids

    root, project = folder_of(profile, folder), provenance.checkout(here().root)
    with answering() as answer:
        if why := provenance.trouble(project):
            print(f"warning: no commit is compared: {why}", file=sys.stderr)
        found = walk(Workspace(root), what, project)
        try:
            known = run_ids(root, found.run_keys())
        except TrackingError as error:
            print(f"warning: {error}", file=sys.stderr)
            known = {}
        if as_json:
            print(lineage_view.as_json(found, known), file=answer, flush=True)
        else:
            wide = None if answer.isatty() else UNCUT
            console = Console(file=answer, width=wide, soft_wrap=True)
            console.print(lineage_view.tree(found, known, drawn=is_drawn(console)))
    broken = found.broken()
    if broken:
        links = "; ".join(f"{where}: {check.name}: {check.detail}" for where, check in broken)
        raise DeepCustomError(f"{len(broken)} broken: {links}")


@runs.command("sync")
def sync(profile: Profile = "default", folder: Folder = None, as_json: Json = False) -> None:
    """Send the runs that the tracking store lacks, once each."""
    from deepcustom.tracking.store import sync as send_missing

    root = folder_of(profile, folder)
    with answering() as answer:
        sent = send_missing(root / "reports/runs", root)
        absent = [path for run in sent for path in run.absent]
        if as_json:
            rows = [{"name": run.name, "run_id": run.run_id, "sent": run.new} for run in sent]
            print_json({"runs": rows, "absent": absent}, answer)
            return
        for run in sent:
            state = "sent" if run.new else "there already"
            print(f"{run.name}  {run.run_id}  {state}", file=answer)
        if absent:
            print(
                f"MLflow cannot load {len(absent)} networks, such as {absent[0]}, whose files are not "
                "here: `deepcustom pull` and this command again mend it"
            )
        new = sum(run.new for run in sent)
        print(f"{new} sent, {len(sent) - new} there already", file=answer)
