"""What an evaluation found, as plain data that prints well."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.errors import UnknownNameError
from deepcustom.base.files import replace_file
from deepcustom.evaluation.checks import Check
from deepcustom.evaluation.points import Point
from deepcustom.evaluation.results import ALL, CLEAN, Result, csv_text
from deepcustom.evaluation.scored_files import THREAT, files_of, threat_json
from deepcustom.evaluation.scoring import Scores

HEAD = ("protocol", "attack", "leaves %", "images", "95 % interval")


@dataclass(frozen=True, repr=False, eq=False)
class RobustAccuracy:
    """How much of its accuracy a network keeps under attack, and whether that can be believed.

    Attributes:
        name: what the network is called.
        eps: radius of the ball, in units of the pixel range.
        norm: of the perturbations.
        results: one for each attack and each worst case: accuracy, number of images, 95 % interval, cost.
        checks: whether the numbers can be believed.
        points: the curves: accuracy against eps, and against the number of steps.
        attacked: (n,) int64, which images of ``x`` were attacked, in order.
        stands: protocol → attack → (n,) bool: which of these the network still gets right.
        left_out: protocol that was left out, wholly or in part → what it lacked.
    """

    name: str
    eps: float
    norm: str
    results: Sequence[Result]
    checks: Sequence[Check]
    points: Sequence[Point]
    attacked: Tensor
    stands: Mapping[str, Mapping[str, Tensor]]
    left_out: Mapping[str, str]
    _scores: Scores = field(default_factory=Scores)

    @classmethod
    def of(cls, scores: Scores, name: str, threat: ThreatModel, attacked: Tensor) -> RobustAccuracy:
        """The part of ``scores`` that is about the network ``name``."""
        found = scores.found[name]
        return cls(
            name,
            threat.eps,
            threat.norm,
            tuple(scores.results),
            tuple(scores.checks),
            tuple(point for _, point in scores.points),
            attacked.cpu(),
            found.stands,
            found.left_out(),
            scores,
        )

    @property
    def clean(self) -> float:
        """Share of the attacked images, 0 to 1, that the network gets right without an attack."""
        return self.accuracy("worst", CLEAN)

    @property
    def worst(self) -> float:
        """Share that it gets right without an attack and under every attack: the headline."""
        return self.accuracy("worst", ALL)

    @property
    def robust(self) -> Tensor:
        """(n,) bool: which of the attacked images stand against everything."""
        return torch.stack([s for of in self.stands.values() for s in of.values()]).all(0)

    def accuracy(self, protocol: str, attack: str) -> float:
        """Share of the images, 0 to 1, that one attack leaves.

        Raises:
            UnknownNameError: there is no such attack; the message lists those that there are.
        """
        for one in self.results:
            if (one.protocol, one.attack) == (protocol, attack):
                return one.accuracy
        there = [f"{one.protocol}/{one.attack}" for one in self.results]
        raise UnknownNameError("attack", f"{protocol}/{attack}", there)

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON can hold it; what was not measured is None."""
        return {
            "network": self.name,
            "eps": self.eps,
            "norm": self.norm,
            "results": [_plain(asdict(one)) for one in self.results],
            "checks": [_plain(asdict(one)) for one in self.checks],
            "curves": [_plain(asdict(one)) for one in self.points],
            "attacked": self.attacked.tolist(),
            "stands": {p: {a: s.tolist() for a, s in of.items()} for p, of in self.stands.items()},
            "left_out": dict(self.left_out),
        }

    def to_csv(self) -> str:
        """The results, a line each, with the columns of ``reports/results``."""
        return csv_text(self.results)

    def save(self, folder: str | Path) -> None:
        """Write tables, checks, curves and the threat model into ``folder``, which may be new."""
        write(self._scores, ThreatModel(self.eps, norm=self.norm), Path(folder))

    def __repr__(self) -> str:
        rows = [HEAD, *self._rows()]
        widths = [max(len(row[at]) for row in rows) for at in range(len(HEAD))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
        return "\n".join(line.rstrip() for line in [self._title(), *lines, *self._remarks()])

    def _repr_markdown_(self) -> str:
        rule = "| " + " | ".join("---" for _ in HEAD) + " |"
        rows = [f"| {' | '.join(row)} |" for row in (HEAD, *self._rows())]
        remarks = "\n".join(f"* {line.strip()}" for line in self._remarks())
        return "\n".join([f"**{self._title()}**", "", rows[0], rule, *rows[1:], "", remarks, ""])

    def _repr_html_(self) -> str:
        def line(cells: Sequence[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        rows = "".join(line(row, "td") for row in self._rows())
        remarks = "".join(f"<li>{escape(one.strip())}</li>" for one in self._remarks())
        return (
            f"<table><caption>{escape(self._title())}</caption>{line(HEAD, 'th')}{rows}</table>"
            f"<ul>{remarks}</ul>"
        )

    def _title(self) -> str:
        norm = "" if self.norm == "linf" else f"{self.norm}, "
        return f"{self.name}: accuracy under attack, {norm}eps {self.eps:.4g}"

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for one in self.results:
            interval = f"{100 * one.ci_low:.1f} to {100 * one.ci_high:.1f}"
            whole = "every image" if one.protocol == "transfer" else one.protocol
            name = whole if one.attack == CLEAN else one.protocol
            yield name, one.attack, f"{100 * one.accuracy:.1f}", str(one.n), interval

    def _remarks(self) -> Iterator[str]:
        bad = [check for check in self.checks if check.verdict != "ok"]
        yield f"checks: {len(self.checks) - len(bad)} of {len(self.checks)} are ok"
        for check in bad:
            yield f"  {check.verdict}: {check.name}: {check.text}"
        for protocol, why in self.left_out.items():
            yield f"left out: {protocol}: {why}"


def write(scores: Scores, threat: ThreatModel, folder: Path) -> None:
    """Write the files of a scoring of one network; pairs need two."""
    for name, content in {**files_of(scores), THREAT: threat_json(threat)}.items():
        if content:
            replace_file(folder / name, content.encode())


def _plain(record: Any) -> Any:
    if isinstance(record, Mapping):
        return {name: _plain(value) for name, value in record.items()}
    return None if isinstance(record, float) and not math.isfinite(record) else record
