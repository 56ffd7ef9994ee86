"""What a change of rows will run, and how long that takes by earlier records."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from deepcustom.base.errors import InputError
from deepcustom.base.rows import HARDENING, LAYOUTS, Row, rows
from deepcustom.pipeline.workspace import Workspace
from deepcustom.tracking.record import RUN_FILE, RunRecord

MINUTE = 60.0
SHOWING = ("report", "gallery", "page")
"""The stages that show what others made."""


@dataclass(frozen=True)
class Expected:
    """A stage that will run.

    Attributes:
        stage: as DVC names it.
        seconds: about how long; None where no earlier record tells.
        why: what the estimate follows from.
    """

    stage: str
    seconds: float | None
    why: str

    def line(self, width: int) -> str:
        """For people; ``width`` is that of the names of stages."""
        time = "?" if self.seconds is None else f"{self.seconds / MINUTE:.1f}"
        return f"  {self.stage:{width}} {time:>6} min  {self.why}"


def expected(
    ws: Workspace,
    tree: Mapping[str, Any],
    changed: Iterable[tuple[Row, str | None]],
    *,
    added: bool,
) -> list[Expected]:
    """The stages that run again after rows came or went.

    A report prints settings of every subject, so each is written anew; so is the page of all. A gallery shows
    sets, so it is made anew where one came or went.

    Args:
        ws: the project, for its records.
        tree: the whole of the params, after the change.
        changed: the rows, each with the name of the row that it is like.
        added: whether they came.
    """
    changed = list(changed)
    records = _records(ws)
    found = []
    if added:
        found = [
            _trained(records, row, sibling)
            for row, sibling in changed
            if row.stage not in ("evaluate", *SHOWING)
        ]
    subjects = list(dict.fromkeys(row.subject for row, _ in changed))
    for one in rows(tree, "evaluate"):
        if one.subject in subjects:
            found.append(_scored(records, one, changed, added))
    shown = {row.subject for row, _ in changed if row.stage in ("generate", "attack", "gallery")}
    found += [_known(records, one) for one in rows(tree, "gallery") if one.subject in shown]
    found += [_known(records, one) for stage in ("report", "page") for one in rows(tree, stage)]
    order = list(LAYOUTS)
    return sorted(found, key=lambda one: order.index(one.stage.partition("@")[0]))


def in_words(found: Iterable[Expected]) -> list[str]:
    """Lines for people: each stage, and the whole."""
    found = list(found)
    known = [one.seconds for one in found if one.seconds is not None]
    whole = f"about {max(1, round(sum(known) / MINUTE))} min in all, by earlier records"
    unknown = len(found) - len(known)
    if not known:
        whole = "how long that takes, no earlier record tells"
    elif unknown:
        whole += f"; {unknown} stage(s) not counted, which no record tells of"
    width = max((len(one.stage) for one in found), default=0)
    return ["will run:", *(one.line(width) for one in found), whole]


def _records(ws: Workspace) -> list[RunRecord]:
    """Those that can be read."""
    found = []
    for file in sorted(ws.runs.rglob(RUN_FILE)):
        try:
            found.append(RunRecord.read(file.parent))
        except InputError:
            continue
    return found


def _trained(records: list[RunRecord], row: Row, sibling: str | None) -> Expected:
    """By the sibling's record; else the middle of its subject's, or of all of that stage."""
    of_stage = [one for one in records if one.stage == row.stage]
    ways = (
        ([r for r in of_stage if r.item == row.name], "as it took before"),
        ([r for r in of_stage if r.item == sibling], f"as {row.stage}@{sibling} took"),
        ([r for r in of_stage if r.dataset == row.subject], f"as others of {row.subject} took"),
        (of_stage, "as others took"),
    )
    for some, why in ways:
        if some:
            seconds = statistics.median(one.seconds for one in some)
            return Expected(f"{row.stage}@{row.name}", seconds, why)
    return Expected(f"{row.stage}@{row.name}", None, "no earlier record")


def _known(records: list[RunRecord], row: Row) -> Expected:
    return _trained(records, row, row.name)


def _scored(
    records: list[RunRecord], row: Row, changed: Iterable[tuple[Row, str | None]], added: bool
) -> Expected:
    """Scores are kept, so an evaluation costs what is new: the attacks on each network that came."""
    stage = f"evaluate@{row.name}"
    like = next((s for one, s in changed if (one.stage, one.name) == ("evaluate", row.name)), None)
    if like is not None:
        return _scored_whole(records, row, like, [one for one, _ in changed])
    before = next((r for r in records if r.name == stage), None)
    if before is None:
        return Expected(stage, None, "no earlier record")
    shares: dict[str, float] = {}
    for part, seconds in before.timings.items():
        network = part.partition("/")[0]
        shares[network] = shares.get(network, 0.0) + seconds
    # Curves and checks are no part of the timings, and kept too: about one network's share is made anew.
    seconds = max(0.0, before.seconds - sum(shares.values())) / max(1, len(shares))
    if not added:
        return Expected(stage, seconds, "scores are kept: no attack runs anew")
    new = [(one, like) for one, like in changed if one.stage in HARDENING]
    for one, like in new:
        sibling = (like or "").removeprefix(f"{one.subject}-")
        seconds += shares.get(sibling, max(shares.values(), default=0.0))
    why = f"attacks {len(new)} network(s) more" if new else "scores are kept: a set more is shown"
    return Expected(stage, seconds, why)


def _scored_whole(records: list[RunRecord], row: Row, like: str, new: Iterable[Row]) -> Expected:
    """A new subject: its networks' shares of the evaluation of the subject that it is like."""
    stage = f"evaluate@{row.name}"
    before = next((r for r in records if r.name == f"evaluate@{like}"), None)
    if before is None:
        return Expected(stage, None, "no earlier record")
    taken = {"target", *(one.about["network"] for one in new if one.stage in HARDENING)}
    networks = {part.partition("/")[0] for part in before.timings}
    share = len(taken) / max(1, len(networks)) if networks else 1.0
    return Expected(
        stage, before.seconds * min(1.0, share), f"as evaluate@{like} took, by networks"
    )
