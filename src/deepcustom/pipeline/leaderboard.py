"""All scored networks of a project in one order: that of what everything that was tried leaves of them.

Rows of unlike norm, radius or images are never held against each other: each such group has its own order.
Nothing is left out of it: a network whose checks failed stands where its numbers put it, and is marked.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from deepcustom.base.errors import InputError
from deepcustom.base.params import validate
from deepcustom.base.rows import HARDENING, SUBJECTS
from deepcustom.base.settings import SubjectParams
from deepcustom.evaluation.checks import Check
from deepcustom.evaluation.files import read_checks, read_points
from deepcustom.evaluation.results import (
    ALL,
    AUTOATTACK,
    CLEAN,
    PROTOCOLS,
    Result,
    pivot,
    read_csv,
)
from deepcustom.evaluation.scored_files import norm_of
from deepcustom.pipeline import workspace
from deepcustom.tracking.record import RUN_FILE, RunRecord

TARGET = "target"
Group = tuple[str, str, float, int, str]
"""Subject, norm, radius, number of images, and the test split that they are from."""


@dataclass(frozen=True)
class Standing:
    """A network in the order.

    Attributes:
        place: from 1, within its group; networks whose worst cases are the same share a place.
        subject: whose images, norm and radius these are.
        network: its name in the tables.
        own: whether it is a network of the user's, which `deepcustom evaluate --network` scored.
        norm: of the perturbations.
        eps: radius of the ball, in units of the pixel range.
        n: number of images that were attacked.
        clean: share of them that is right, 0 to 1.
        worst: share that withstands everything that was tried.
        ci_low: lower end of the 95 % interval of ``worst``.
        ci_high: upper end.
        autoattack: share that withstands AutoAttack as its authors publish it; None where it was not run.
        gradients: images whose gradient the attacks computed, summed over their steps.
        queries: images that they showed to the network without computing a gradient.
        tried: the protocols that ``worst`` is over; a network of the user's may lack some.
        failed: the checks of the network that failed; numbers that rest on those are not to be believed.
        parameters: of the network; None where no record says so.
        training_seconds: of its training by its record; None where there is none.
        network_md5: which weights these are.
        set_md5: which test split the images are from.
        trace: what to ask ``deepcustom trace`` for, or the folder of the scores.
    """

    place: int
    subject: str
    network: str
    own: bool
    norm: str
    eps: float
    n: int
    clean: float
    worst: float
    ci_low: float
    ci_high: float
    autoattack: float | None
    gradients: int
    queries: int
    tried: str
    failed: str
    parameters: int | None
    training_seconds: float | None
    network_md5: str
    set_md5: str
    trace: str

    @property
    def group(self) -> Group:
        """What networks must share to be held against each other; files hold a radius to six digits."""
        return self.subject, self.norm, float(f"{self.eps:.6g}"), self.n, self.set_md5


def leaderboard(root: Path) -> list[Standing]:
    """The scored networks of the project at ``root``, group by group, the best of each first.

    Raises:
        InputError: a file of results or a record cannot be read, or nothing has been scored.
    """
    found = [*_of_pipeline(root), *_own(root)]
    if not found:
        raise InputError(
            "no network is scored here: `deepcustom repro evaluate` scores the project's"
        )
    groups: dict[Group, list[Standing]] = {}
    for one in found:
        groups.setdefault(one.group, []).append(one)
    return [one for group in groups.values() for one in _placed(group)]


def csv_of(standings: list[Standing]) -> str:
    """The same as CSV, a column for each attribute; empty where something is not known."""
    text = io.StringIO()
    table = csv.DictWriter(text, [field.name for field in fields(Standing)], lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(one) for one in standings)
    return text.getvalue()


def _placed(group: list[Standing]) -> list[Standing]:
    ordered = sorted(group, key=lambda one: (-one.worst, -one.clean, one.network))
    worst = [one.worst for one in ordered]
    return [replace(one, place=worst.index(one.worst) + 1) for one in ordered]


def _of_pipeline(root: Path) -> Iterator[Standing]:
    """The networks of every subject that has results."""
    for file in sorted((root / workspace.results("*")).parent.glob("*.csv")):
        subject = file.stem
        record = _record(root, workspace.record(subject, "evaluate"))
        if record is None:
            raise InputError(
                f"{file.relative_to(root)} has no record that tells its radius: "
                f"`deepcustom repro evaluate@{subject}` makes both"
            )
        place = f"{SUBJECTS}.{subject}"
        threat = validate(SubjectParams, record.params.get(place), place).threat
        target = _record(root, workspace.record(subject, "train_target"))
        counted = target.metrics.get("parameters") if target else None
        networks, _, cells = pivot(read_csv(file), subject, "worst")
        made = read_checks(root / workspace.checks(subject))
        for network in networks:
            trained = _training(root, subject, network)
            yield Standing(
                **_scores(file.relative_to(root), cells, made, network),
                subject=subject,
                network=network,
                own=False,
                norm=threat.norm,
                eps=threat.eps,
                parameters=int(counted) if counted else None,
                training_seconds=round(trained.seconds, 1) if trained else None,
                trace=f"{subject}/{network}/worst/{ALL}",
            )


def _own(root: Path) -> Iterator[Standing]:
    """The networks of the user's that were scored on a subject's images.

    A folder with several networks holds those of the project on another number of images.
    """
    for file in sorted((root / workspace.own_scores("*", "*")).parents[1].glob("*/*/results.csv")):
        subject, folder = file.parent.parent.name, file.parent
        networks, _, cells = pivot(read_csv(file), subject, "worst")
        points = read_points(folder / "curves.csv")
        radii = {one.eps for _, one in points if one.curve == "steps"}
        if len(networks) == len(radii) == 1:
            made = read_checks(folder / "checks.json")
            yield Standing(
                **_scores(file.relative_to(root), cells, made, networks[0]),
                subject=subject,
                network=folder.name,
                own=True,
                norm=norm_of(folder),
                eps=radii.pop(),
                parameters=None,
                training_seconds=None,
                trace=folder.relative_to(root).as_posix(),
            )


def _scores(
    file: Path, cells: Mapping[tuple[str, str], Result], made: Iterable[Check], network: str
) -> dict[str, Any]:
    """What the results in a file and the checks say of a network.

    Raises:
        InputError: the results lack its clean accuracy or its worst case.
    """
    whole, clean, auto = (cells.get((network, name)) for name in (ALL, CLEAN, AUTOATTACK))
    if whole is None or clean is None:
        lacking = CLEAN if whole else ALL
        raise InputError(f"{file}: {network} has no row of protocol worst and attack {lacking}")
    tried = [
        protocol
        for protocol in PROTOCOLS
        if (network, protocol) in cells and not cells[network, protocol].empty
    ]
    return {
        "place": 0,
        "n": whole.n,
        "clean": clean.accuracy,
        "worst": whole.accuracy,
        "ci_low": whole.ci_low,
        "ci_high": whole.ci_high,
        "autoattack": auto.accuracy if auto else None,
        "gradients": whole.gradients,
        "queries": whole.queries,
        "tried": " ".join(tried),
        "failed": " ".join(
            one.name for one in made if one.about == network and one.verdict == "fail"
        ),
        "network_md5": whole.network_md5,
        "set_md5": whole.set_md5,
    }


def _training(root: Path, subject: str, network: str) -> RunRecord | None:
    """The record of a network's training, whichever stage trained it."""
    places = [workspace.record(subject, stage, network) for stage in HARDENING]
    if network == TARGET:
        places = [workspace.record(subject, "train_target")]
    found = (_record(root, place) for place in places)
    return next((one for one in found if one is not None), None)


def _record(root: Path, folder: str) -> RunRecord | None:
    there = (root / folder / RUN_FILE).is_file()
    return RunRecord.read(root / folder) if there else None
