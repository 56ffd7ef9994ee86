"""One page for the whole project, which opens from disk."""

from __future__ import annotations

from deepcustom.base.settings import PageParams
from deepcustom.pipeline import workspace
from deepcustom.pipeline.page import page_text
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.workspace import Workspace


def run(ws: Workspace, name: str) -> None:
    """Write the page ``name``, with all subjects of the project."""
    with StageRun(ws, "page", name) as stage:
        stage.settings(PageParams)
        for folder in workspace.PAGE_READS:
            if (ws.root / folder).exists():
                stage.read(folder)
        for folder in workspace.PAGE_SHOWS:
            for file in sorted((ws.root / folder).rglob("*.safetensors")):
                stage.read(file.relative_to(ws.root).as_posix())

        text = page_text(ws, name).encode()
        stage.write(workspace.web_page(name)).write_bytes(text)

        stage.log({"bytes": len(text)})
