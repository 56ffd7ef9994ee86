"""The findings on a network: the outcome of each attack, the curves, and the checks."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from deepcustom.evaluation.checks import Check, ball
from deepcustom.evaluation.points import Point
from deepcustom.evaluation.victim import Cost, Outcome, Victim
from deepcustom.training.prediction import gets_right, predict


@dataclass(frozen=True)
class Finding:
    """An :class:`Outcome` without its images, but with what had to be read off them.

    Attributes:
        protocol: as in the outcome.
        attack: likewise.
        tried: likewise.
        stands: likewise.
        cost: likewise.
        ball: whether every image lies in the ball.
        unlike: for how many attacked images a second prediction disagrees on whether they stand.
    """

    protocol: str
    attack: str
    tried: Tensor
    stands: Tensor
    cost: Cost
    ball: Check
    unlike: int

    @classmethod
    def of(cls, victim: Victim, outcome: Outcome) -> Finding:
        """Check the images, and predict them again in batches of another size than the attack's."""
        x_adv, clean = (images.cpu().numpy() for images in (outcome.x_adv, victim.x))
        again = gets_right(predict(victim.net, outcome.x_adv, batch_size=64), victim.y).cpu()
        return cls(
            outcome.protocol,
            outcome.attack,
            outcome.tried,
            outcome.stands,
            outcome.cost,
            ball(outcome.attack, x_adv, clean, victim.threat),
            int((again != outcome.stands)[outcome.tried].sum()),
        )

    @property
    def accuracy(self) -> float:
        """Share of all images that the network still gets right, 0 to 1."""
        return float(self.stands.double().mean()) if len(self.stands) else float("nan")


@dataclass
class Evaluation:
    """All that was found on one network.

    Attributes:
        stands: protocol → attack → (n,) bool, on the CPU: which images it still gets right.
        costs: (protocol, attack) → the attack's cost.
        findings: one for each attack, in the order they were made.
        checks: likewise.
        points: the points of the curves.
    """

    stands: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    costs: dict[tuple[str, str], Cost] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        """Add the finding of one attack."""
        self.stands.setdefault(finding.protocol, {})[finding.attack] = finding.stands
        self.costs[finding.protocol, finding.attack] = finding.cost
        self.findings.append(finding)

    def left(self, protocol: str) -> Tensor:
        """(n,) bool: which images stand against every attack of one protocol."""
        return torch.stack(list(self.stands[protocol].values())).all(0)

    def worst(self) -> Tensor:
        """(n,) bool: which images are right without an attack and stand against everything that was tried."""
        return torch.stack([self.left(protocol) for protocol in self.stands]).all(0)

    def left_out(self) -> dict[str, str]:
        """Protocol that was left out, wholly or in part → what it lacked."""
        lacking = {}
        if "transfer" not in self.stands:
            lacking["transfer"] = "no images made against another network"
        if not any(name.startswith("from-") for name in self.stands.get("blackbox", {})):
            lacking["blackbox"] = (
                "no other networks to make images against, so Square alone attacks"
            )
        if "adaptive" not in self.stands:
            lacking["adaptive"] = "no DGNs to adapt"
        return lacking

    def spent(self, protocol: str) -> Cost:
        """The total cost of all attacks of one protocol."""
        own = (cost for (name, _), cost in self.costs.items() if name == protocol)
        return sum(own, Cost())
