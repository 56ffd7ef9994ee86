"""``deepcustom page``: the stage, or the page alone from what is there."""

from __future__ import annotations

from typing import Annotated

import typer

from deepcustom.cli.following import followed

Name = Annotated[
    str | None,
    typer.Option(
        help="Run the stage for this row of page in params.yaml, with a record. Without it, only the "
        "page is written, from the files that are here."
    ),
]


def page(name: Name = None) -> None:
    """Write one page with all subjects, which a browser opens from disk."""
    if name is not None:
        from deepcustom.stages import page as stage

        with followed(stage.__name__, name) as ws:
            stage.run(ws, name)
        return
    from deepcustom.base.files import replace_file
    from deepcustom.base.params import read_params
    from deepcustom.base.rows import rows
    from deepcustom.pipeline import workspace
    from deepcustom.pipeline.page import page_text
    from deepcustom.pipeline.workspace import Workspace

    ws = Workspace.here()
    for one in rows(read_params(ws.params), "page"):
        path = ws.path(workspace.web_page(one.name))
        replace_file(path, page_text(ws, one.name).encode())
        print(f"{path.resolve().as_uri()}  ({path.stat().st_size / 1e6:.1f} MB)")
