"""A stage that MLflow, ``deepcustom watch`` and the terminal show while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from deepcustom.base.errors import DeepCustomError

if TYPE_CHECKING:
    from deepcustom.pipeline.workspace import Workspace
    from deepcustom.tracking.live import Facts


@contextmanager
def followed(module: str, *names: str) -> Iterator[Workspace]:
    """The project in the current folder, while a stage runs for the row with these names.

    Args:
        module: of the stage.
        names: of its row, such as a subject's and a bank's.
    """
    from deepcustom.base.helper import is_helper
    from deepcustom.pipeline.watch.beacon import telling
    from deepcustom.pipeline.workspace import Workspace
    from deepcustom.tracking import live

    ws = Workspace.here()
    if is_helper():
        yield ws
        return
    facts = None
    with suppress(DeepCustomError):  # the stage will say what is wrong
        facts = _facts(ws, module.rpartition(".")[2], names)
    if facts is None:
        yield ws
        return
    with live.followed(ws.root, facts), telling(ws.root, facts.name, facts.checkpoint):
        yield ws


def _facts(ws: Workspace, stage: str, names: tuple[str, ...]) -> Facts:
    from deepcustom.base.params import read_params
    from deepcustom.base.rows import SUBJECTS, row
    from deepcustom.pipeline.repro import repro_key
    from deepcustom.tracking.live import Facts

    tree = read_params(ws.params)
    one = row(tree, stage, *names)
    params = {
        "seed": tree.get("seed"),
        "compute": tree.get("compute"),
        f"{SUBJECTS}.{one.subject}": tree.get(SUBJECTS, {}).get(one.subject),
        one.place: one.whole,
    }
    return Facts(
        stage,
        one.name,
        one.subject,
        {place: settings for place, settings in params.items() if settings is not None},
        repro_key(),
        ws.checkpoint(stage, one.name),
    )
