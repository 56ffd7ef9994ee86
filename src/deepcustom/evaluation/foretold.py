"""Which images an undefended network should keep under attack, by its gradients alone.

The idea is that of DeepFool's first step (Moosavi-Dezfooli et al. 2016, arXiv:1511.04599), inside [0, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor

from deepcustom.evaluation.victim import Linked, Victim

_TARGETS = 9  # other classes, those with the largest logits, as many as targeted APGD tries
_BATCH = 100


def foretold(victim: Victim) -> Tensor:
    """(n,) bool: which images would stand if the logits were linear in the pixels.

    Then the step of length eps along the gradient takes the most that an attack can take of an image's lead
    over another class, and the image stands if it keeps a lead over every class. Undefended networks are
    nearly linear in a small ball. Where a gradient is zero or not finite, it foretells nothing, and the image
    counts as fallen.
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
        # A pixel at the end of its range moves in one direction only.
        free = torch.where(gradient > 0, x > 0, x < 1)
        step = victim.threat.ball.steepest(gradient * free)
        change = (x - victim.threat.eps * step).clamp(0, 1) - x
        left = lead.detach() + (gradient * change).flatten(1).sum(1)
        keeps &= (gradient != 0).flatten(1).any(1) & (left > 0)
    return keeps
