"""Which images an undefended network should keep under attack, by its gradients alone.

The idea is that of DeepFool's first step (Moosavi-Dezfooli et al. 2016, arXiv:1511.04599), inside [0, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor

from deepcustom.attacks.threat import ThreatModel
from deepcustom.evaluation.victim import Linked, Victim

_TARGETS = 9  # other classes, those with the largest logits, as many as targeted APGD tries
_BATCH = 100
_ROUNDS = 20  # in which a step takes up the length that pixels at the end of their range left over


def foretold(victim: Victim) -> Tensor:
    """(n,) bool: which images would stand if the logits were linear in the pixels.

    Then one step along the gradient takes the most that an attack can take of an image's lead over another
    class, and the image stands if it keeps a lead over every class. Undefended networks are nearly linear in
    a small ball. A gradient that is zero or not finite foretells nothing, and the image counts as fallen.
    """
    parts = zip(torch.split(victim.x, _BATCH), torch.split(victim.y, _BATCH), strict=True)
    return torch.cat([_keeps_its_lead(victim, x, y) for x, y in parts])


def _keeps_its_lead(victim: Victim, x: Tensor, y: Tensor) -> Tensor:
    """As :func:`foretold`, for some of the images."""
    given = x.detach().clone().requires_grad_()
    logits = Linked(victim.net)(given)
    own = logits.gather(1, y[:, None])
    others = logits.detach().scatter(1, y[:, None], -torch.inf)
    targets = others.topk(min(_TARGETS, victim.num_classes - 1)).indices
    leads = own - logits.gather(1, targets)
    keeps = torch.ones(len(x), dtype=torch.bool, device=x.device)
    for lead in leads.unbind(1):
        (gradient,) = torch.autograd.grad(lead.sum(), given, retain_graph=True)
        change = _steepest_change(victim.threat, gradient, x)
        left = lead.detach() + (gradient * change).flatten(1).sum(1)
        keeps &= (gradient != 0).flatten(1).any(1) & (left > 0)
    return keeps


def _steepest_change(threat: ThreatModel, gradient: Tensor, x: Tensor) -> Tensor:
    """The change in the ball and in [0, 1] in which what has this gradient falls the most, were it linear.

    It moves pixels against the gradient until they are at the end of their range. What length that leaves is
    spent on the others: never more than there is, since the length of the change grows ever more slowly.
    """
    free = torch.where(gradient > 0, x > 0, x < 1)
    step = threat.ball.steepest(gradient * free)
    reach = torch.full((len(x), 1, 1, 1), threat.eps, dtype=torch.float64, device=x.device)
    for _ in range(_ROUNDS):
        change = (x - reach * step).clamp(0, 1) - x
        length = torch.from_numpy(threat.ball.lengths(change.flatten(1).cpu().numpy()))
        grown = (threat.eps / length.to(x.device).clamp(min=1e-12)).clamp(min=1)
        reach = reach * grown.view(-1, 1, 1, 1)
    return change
