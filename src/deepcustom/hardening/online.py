"""Adversarial training from a generator's proposal: generator and network learn together.

A class-conditional generator offers a start inside the ball, and noise may move it. The gradient that the
generator's own update needs, of the loss with respect to the image, is used once more, for a signed step of
the image itself; a few signed steps may follow. The network learns from the result.

A start that a generator learns is that of Jia et al. 2021, "Boosting Fast Adversarial Training with Learnable
Adversarial Initialization" (arXiv:2110.05007), with one step after it; their generator is shown the signed
gradient of the clean image, this one the label. To use one gradient twice is an idea of Shafahi et al. 2019
(arXiv:1904.12843), who use it for the image and the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from deepcustom.attacks.conditional import perturbed
from deepcustom.attacks.losses import CustomLoss, LossContext, build_loss
from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.params import OnlineParams, TrainingParams
from deepcustom.base.progress import Advance, silent
from deepcustom.hardening.madry import inner_pgd
from deepcustom.training.checkpoint import NOWHERE, Checkpoint
from deepcustom.training.compute import Compute
from deepcustom.training.epochs import History, epochs_kept, load_epoch, save_epoch, tell_resumed
from deepcustom.training.fit import Terms, fit, watch_accuracy
from deepcustom.training.nets.base import Classifier, Conditional

_WATCHED = 1000  # validation images that are attacked after every epoch, by PGD from random starts
_SCALE = 2.0**10  # lifts gradients above float16's smallest number; divided out again


def train_online(
    net: Classifier,
    generator: Conditional | None,
    train: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
    params: TrainingParams,
    *,
    online: OnlineParams,
    losses: Mapping[int, CustomLoss] | None = None,
    threat: ThreatModel,
    seed: int,
    compute: Compute,
    advance: Advance = silent,
    checkpoint: Checkpoint = NOWHERE,
) -> History:
    """Train a network and, against it, a generator, both in place.

    Args:
        net: a fresh network.
        generator: a fresh one; None: the start is drawn uniformly from the ball.
        train: clean images (N, C, H, W) in [0, 1] and labels (N,).
        val: clean images and labels to watch; may be empty.
        params: the network's training budget.
        online: steps, the generator's updates, and how the ball grows.
        losses: label → what the generator minimises on that class's images, built on ``net``; None: the
            negative of the network's own cross entropy.
        threat: the full ball, and the range.
        seed: of the order of the images and of random starts.
        compute: device and precision.
        advance: called after every epoch with how it stands.
        checkpoint: as in :func:`deepcustom.training.fit.fit`; the generator is kept with the network.

    Returns:
        The history: ``loss`` and its terms, ``eps`` of the ball, and, where ``val`` is not empty,
        ``val_accuracy`` on clean images and ``val_adversarial`` on the first of them under ten steps of
        PGD from random starts, which ask the generator nothing.
    """
    partner = (
        None if generator is None else _Partner.of(generator, online, losses, compute.precision)
    )
    watch = watch_accuracy(net, val, silent)
    kept = epochs_kept(checkpoint)
    if partner is not None and kept and not partner.load(checkpoint, kept):
        checkpoint.clear()  # the network goes on with the generator that it learned with, or not at all
        kept = 0
    epoch = [kept + 1]  # the one under way: fit tells only when one is over

    def share_done() -> float:
        return (epoch[0] - 1) / params.epochs

    def ball() -> float:
        growing = online.growth * params.epochs
        return threat.eps * (min(1.0, epoch[0] / growing) if growing else 1.0)

    def terms(x: Tensor, y: Tensor) -> Terms:
        eps = ball()
        now = replace(threat, eps=eps)
        step = online.eps_step * eps / threat.eps
        if partner is None or share_done() < online.begin:
            start = now.project(x + eps * (2 * torch.rand_like(x) - 1), x)
            start = _signed_step(net, start, x, y, now, step) if online.reuse else start
        else:
            start = partner.start(net, x, y, now, step, learning=share_done() < online.end)
        for _ in range(online.max_iter):
            start = _signed_step(net, start, x, y, now, step)
        adversarial = F.cross_entropy(net(start), y, reduction="none")
        if not online.clean_weight:
            return {"adversarial": adversarial}
        clean = F.cross_entropy(net(x), y, reduction="none")
        weight = online.clean_weight
        return {"clean": weight * clean, "adversarial": (1 - weight) * adversarial}

    def after_epoch(number: int, means: Mapping[str, float]) -> Mapping[str, float]:
        seen = {"eps": ball(), **watch(number, means)}
        if len(val[0]):
            x, y = val[0][:_WATCHED], val[1][:_WATCHED]
            x_adv = inner_pgd(net, x, y, threat, eps_step=threat.eps / 4, max_iter=10)
            with torch.no_grad():
                seen["val_adversarial"] = float((net(x_adv).argmax(1) == y).double().mean())
        if partner is not None:
            partner.save(checkpoint, number)
        advance("  ".join(f"{name} {value:.4f}" for name, value in {**means, **seen}.items()))
        epoch[0] = number + 1
        return seen

    tell_resumed(checkpoint, advance)
    return fit(
        net,
        terms,
        train,
        params,
        seed=seed,
        compute=compute,
        after_epoch=after_epoch,
        checkpoint=checkpoint,
    )


def objectives(
    online: OnlineParams,
    net: Classifier,
    threat: ThreatModel,
    analysis: Mapping[str, Mapping[str, Tensor]],
    num_classes: int,
) -> dict[int, CustomLoss] | None:
    """Label → what the generator minimises on that class's images, as :func:`train_online` takes them.

    Args:
        online: ``loss`` and its ``options``.
        net: the network that will be trained, to which the losses look.
        threat: the full ball.
        analysis: of the losses that need one: name of the analysis → array name → one row per class.
        num_classes: how many labels there are.

    Returns:
        None where ``online`` names no loss.

    Raises:
        UnknownNameError, LossError, ParamsError: as :func:`deepcustom.attacks.losses.build_loss`.
    """
    if online.loss is None:
        return None
    return {
        label: build_loss(
            online.loss,
            online.options,
            LossContext(
                net,
                label,
                threat,
                {
                    what: {name: rows[label] for name, rows in arrays.items()}
                    for what, arrays in analysis.items()
                },
            ),
        )
        for label in range(num_classes)
    }


def _signed_step(
    net: Classifier, x_adv: Tensor, x: Tensor, y: Tensor, threat: ThreatModel, step: float
) -> Tensor:
    """One step of PGD, without a gradient."""
    return threat.project(x_adv + step * _gradient(net, x_adv, y).sign(), x)


def _gradient(net: Classifier, x_adv: Tensor, y: Tensor) -> Tensor:
    """Of each image's cross entropy with respect to it, scaled, (n, C, H, W)."""
    x_adv = x_adv.detach().requires_grad_()
    with torch.enable_grad():
        loss = _SCALE * F.cross_entropy(net(x_adv).float(), y, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, x_adv)
    return gradient


@dataclass(frozen=True)
class _Partner:
    """The generator, how it learns, and from what."""

    generator: Conditional
    optimizer: torch.optim.Adam
    online: OnlineParams
    losses: Mapping[int, CustomLoss] | None
    half: bool

    @classmethod
    def of(
        cls,
        generator: Conditional,
        online: OnlineParams,
        losses: Mapping[int, CustomLoss] | None,
        precision: torch.dtype = torch.float32,
    ) -> _Partner:
        optimizer = torch.optim.Adam(
            generator.parameters(), lr=online.learning_rate, betas=(0.5, 0.999), fused=True
        )
        return cls(generator, optimizer, online, losses, precision is torch.float16)

    def start(
        self,
        net: Classifier,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        step: float,
        *,
        learning: bool,
    ) -> Tensor:
        """Where the steps begin: what the generator offers, moved by the gradient that it learns from."""
        for number in range(self.online.updates if learning else 0):
            if number:
                torch.clear_autocast_cache()  # of the weights before the last update
            offered = perturbed(self.generator, x, y, threat)
            start = self._nearby(offered.detach(), x, threat)
            up = self._uphill(net, x, y, start)
            self._learn(offered, -up / len(x))
        if not learning:
            with torch.no_grad():
                start = self._nearby(perturbed(self.generator, x, y, threat), x, threat)
            if not self.online.reuse:
                return start
            up = _gradient(net, start, y)
        start = start.detach()
        return threat.project(start + step * up.sign(), x) if self.online.reuse else start

    def _nearby(self, offered: Tensor, x: Tensor, threat: ThreatModel) -> Tensor:
        """With the noise around it, inside the ball."""
        offered = threat.project(offered, x)
        if not self.online.noise:
            return offered
        radius = self.online.noise * threat.eps
        return threat.project(offered + radius * (2 * torch.rand_like(x) - 1), x)

    def _learn(self, offered: Tensor, gradient: Tensor) -> None:
        """One step of Adam along a scaled gradient of the offer; none where one in float16 overflowed."""
        self.optimizer.zero_grad(set_to_none=True)
        if not self.half:
            offered.backward(gradient / _SCALE)  # type: ignore[no-untyped-call]
            self.optimizer.step()
            return
        offered.backward(gradient)  # type: ignore[no-untyped-call]
        found = [p.grad for p in self.generator.parameters() if p.grad is not None]
        if torch.stack([one.isfinite().all() for one in found]).all():
            for one in found:
                one /= _SCALE
            self.optimizer.step()

    def _uphill(self, net: Classifier, x: Tensor, y: Tensor, offered: Tensor) -> Tensor:
        """Minus the gradient of the generator's objective with respect to what it offers, scaled."""
        if self.losses is None:
            return _gradient(net, offered, y)
        offered = offered.requires_grad_()
        with torch.enable_grad():
            total = torch.zeros((), device=x.device)
            for label in torch.unique(y).tolist():
                rows = torch.nonzero(y == label).flatten()
                terms = self.losses[label](x[rows], offered[rows])
                total = total + torch.stack(list(terms.values())).sum()
        (gradient,) = torch.autograd.grad(_SCALE * total, offered)
        return -gradient

    def save(self, checkpoint: Checkpoint, epoch: int) -> None:
        """Keep it beside what the loop keeps, in two places by turns: the loop's own comes after."""
        place = checkpoint.part(f"generator-{epoch % 2}")
        save_epoch(place, self.generator, self.optimizer, epoch, {})

    def load(self, checkpoint: Checkpoint, epoch: int) -> bool:
        """As it was after ``epoch``; False, and nothing changed, where that was not kept or is damaged."""
        place = checkpoint.part(f"generator-{epoch % 2}")
        if epochs_kept(place) != epoch:
            return False
        load_epoch(place, self.generator, self.optimizer)
        return True
