"""Adversarial training from a generator's proposal: generator and network learn together.

A class-conditional generator proposes a start inside the ball, and noise may move it. The generator's update
needs the gradient of the loss with respect to the image. The same gradient also moves the image itself by one
signed step, and a few more signed steps may follow. The network learns from the result.

A start that a generator learns is an idea of Jia et al. 2021, "Boosting Fast Adversarial Training with
Learnable Adversarial Initialization" (arXiv:2110.05007), who take one step after it. Their generator is shown
the signed gradient of the clean image; this one is shown the label. Using one gradient twice is an idea of
Shafahi et al. 2019 (arXiv:1904.12843), who use it for the image and the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from deepcustom.attacks.conditional import perturbed
from deepcustom.attacks.losses.base import CustomLoss, LossContext, build_loss
from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.params import Radius
from deepcustom.hardening.base import Way, WaySettings
from deepcustom.hardening.inner import (
    SCALE,
    GrowingBall,
    accuracy_under,
    along,
    nearby,
    scaled_gradient,
    signed_step,
)
from deepcustom.training.checkpoint import Checkpoint
from deepcustom.training.compute import FLOAT32, Compute
from deepcustom.training.epochs import History, epochs_kept, load_epoch, save_epoch
from deepcustom.training.fit import Terms, watch_accuracy
from deepcustom.training.job import Job
from deepcustom.training.nets.base import Classifier, Conditional
from deepcustom.training.rows import LabelledImages

_WATCHED = 1000  # validation images that are attacked after every epoch, by PGD from random starts


class OnlineSettings(WaySettings):
    """A generator that learns against the network, while the network learns from it.

    In every step, ``updates`` times, the generator proposes images inside the ball, uniform noise moves each
    pixel by at most ``noise`` radii inside the ball, and the generator learns from the gradient of its
    objective there (Adam, ``learning_rate``). With ``reuse``, the last gradient moves the images by one
    signed step of ``eps_step``. Then ``max_iter`` further steps follow.

    The generator learns from the share ``begin`` to the share ``end`` of the epochs. Before, the start is
    drawn uniformly from the ball; afterwards, the generator stays as it is. In both phases the step of
    ``reuse`` follows the network's cross entropy. The generator minimises ``loss``, a registered name or
    ``package.module:Class``, with its ``options``; None: minus the network's cross entropy. The ball and the
    step grow evenly from epoch to epoch, to the full radius at the share ``growth`` of the epochs; 0: full
    from the first. ``clean_weight`` is the weight of the clean images in the network's loss.
    """

    type: Literal["online"]
    generator: Literal["conditional", "per_class"]
    learning_rate: float = Field(gt=0, le=1)
    updates: int = Field(ge=1)
    begin: float = Field(ge=0, le=1)
    end: float = Field(ge=0, le=1)
    noise: float = Field(ge=0, le=1)
    reuse: bool
    eps_step: Radius
    max_iter: int = Field(ge=0)
    growth: float = Field(ge=0, le=1)
    clean_weight: float = Field(ge=0, lt=1)
    loss: str | None
    options: dict[str, Any]

    @model_validator(mode="after")
    def _options_are_of_a_loss(self) -> OnlineSettings:
        if self.loss is None and self.options:
            raise ValueError("options go with a loss, and none is named")
        return self

    @model_validator(mode="after")
    def _a_generator_learns(self) -> OnlineSettings:
        epochs = self.training.epochs
        if not any(self.begin <= epoch / epochs < self.end for epoch in range(epochs)):
            raise ValueError(
                f"none of {epochs} epochs starts between begin {self.begin:g} and end {self.end:g}: "
                "the generator should learn in one at least"
            )
        return self


class Online(Way[OnlineSettings]):
    """Trains a network and a generator against each other, both in place."""

    Settings = OnlineSettings
    stage = "train_online"
    title = "{name}, hardened from a generator's proposal"

    def __init__(
        self,
        settings: OnlineSettings,
        threat: ThreatModel,
        num_classes: int,
        generator: Conditional | None = None,
        losses: Mapping[int, CustomLoss] | None = None,
    ) -> None:
        """Prepare for training.

        Args:
            settings: how to train.
            threat: the full ball, and the range.
            num_classes: how many labels there are.
            generator: a fresh generator; None: the start is drawn uniformly from the ball.
            losses: label → the loss that the generator minimises on that class's images, built on the network
                to train (see :func:`objectives`); None: minus that network's cross entropy.
        """
        super().__init__(settings, threat, num_classes)
        self.generator = generator
        self.losses = losses

    def train(
        self,
        net: Classifier,
        train: LabelledImages,
        val: LabelledImages,
        job: Job,
        made: LabelledImages | None = None,
    ) -> History:
        """As :meth:`Way.train`; the job's checkpoint keeps the generator with the network.

        Returns:
            ``loss`` and its terms, ``eps`` of the ball, and, where ``val`` is not empty, ``val_accuracy`` on
            clean images and ``val_adversarial`` on the first of them under ten steps of PGD from random
            starts, without the generator.
        """
        partner = self._partner(job)
        settings, watch = self.settings, watch_accuracy(net, val)
        ball = GrowingBall(
            self.threat, settings.eps_step, settings.growth, settings.training.epochs
        )

        def terms(x: Tensor, y: Tensor) -> Terms:
            start = self._start(net, partner, x, y, ball)
            for _ in range(settings.max_iter):
                start = signed_step(net, start, x, y, ball.threat, ball.eps_step)
            adversarial = F.cross_entropy(net(start), y, reduction="none")
            weight = settings.clean_weight
            if not weight:
                return {"adversarial": adversarial}
            clean = F.cross_entropy(net(x), y, reduction="none")
            return {"clean": weight * clean, "adversarial": (1 - weight) * adversarial}

        def after_epoch(epoch: int) -> Mapping[str, float]:
            seen = {"eps": ball.eps, **watch(epoch)}
            if len(val[0]):
                some = val[0][:_WATCHED], val[1][:_WATCHED]
                seen["val_adversarial"] = accuracy_under(
                    net, some, self.threat, eps_step=self.threat.eps / 4, max_iter=10
                )
            if partner is not None:
                job.compute.together.average_buffers(partner.generator)
                partner.save(job.checkpoint, epoch)
            return seen

        return self.fit(net, terms, train, job, before_epoch=ball.begin, after_epoch=after_epoch)

    def _partner(self, job: Job) -> _Partner | None:
        """The generator, in the state that the checkpoint holds, if any."""
        if self.generator is None:
            return None
        partner = _Partner.of(self.generator, self.settings, self.losses, job.compute)
        kept = epochs_kept(job.checkpoint)
        if kept and not partner.load(job.checkpoint, kept):
            # The network can go on only with the generator that it learned with: start over.
            job.checkpoint.clear()
        return partner

    def _start(
        self, net: Classifier, partner: _Partner | None, x: Tensor, y: Tensor, ball: GrowingBall
    ) -> Tensor:
        """The images from which the further steps begin, (n, C, H, W), without a gradient."""
        threat, step = ball.threat, ball.eps_step
        if partner is not None and ball.done >= self.settings.begin:
            learning = ball.done < self.settings.end
            return partner.start(net, x, y, threat, step, learning=learning)
        start = nearby(x, x, threat, threat.eps)
        return signed_step(net, start, x, y, threat, step) if self.settings.reuse else start


def objectives(
    settings: OnlineSettings, contexts: Sequence[LossContext]
) -> dict[int, CustomLoss] | None:
    """Label → the loss that the generator minimises on that class's images, as :class:`Online` takes them.

    Args:
        settings: ``loss`` and its ``options``.
        contexts: one for each class, as :func:`deepcustom.attacks.losses.contexts` makes them; their
            network is the one that will be trained, their threat model the full ball.

    Returns:
        None where ``settings`` name no loss.

    Raises:
        UnknownNameError, LossError, ParamsError: as :func:`deepcustom.attacks.losses.build_loss`.
    """
    if settings.loss is None:
        return None
    return {
        context.label: build_loss(settings.loss, settings.options, context) for context in contexts
    }


@dataclass(frozen=True)
class _Partner:
    """The generator, how it learns, and from what."""

    generator: Conditional
    optimizer: torch.optim.Adam
    settings: OnlineSettings
    losses: Mapping[int, CustomLoss] | None
    compute: Compute

    @classmethod
    def of(
        cls,
        generator: Conditional,
        settings: OnlineSettings,
        losses: Mapping[int, CustomLoss] | None,
        compute: Compute = FLOAT32,
    ) -> _Partner:
        optimizer = torch.optim.Adam(
            generator.parameters(), lr=settings.learning_rate, betas=(0.5, 0.999), fused=True
        )
        return cls(generator, optimizer, settings, losses, compute)

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
        """The start of the steps: what the generator proposes, moved by the gradient that it learns from."""
        for number in range(self.settings.updates if learning else 0):
            if number:
                torch.clear_autocast_cache()  # it holds the weights before the last update
            offered = perturbed(self.generator, x, y, threat)
            start = self._nearby(offered.detach(), x, threat)
            up = self._uphill(net, x, y, start)
            self._learn(offered, -up / len(x))
        if not learning:
            with torch.no_grad():
                start = self._nearby(perturbed(self.generator, x, y, threat), x, threat)
            if not self.settings.reuse:
                return start
            up = scaled_gradient(net, start, y)
        return along(start, up, x, threat, step) if self.settings.reuse else start.detach()

    def _nearby(self, offered: Tensor, x: Tensor, threat: ThreatModel) -> Tensor:
        """``offered``, moved by noise inside the ball."""
        offered = threat.project(offered, x)
        if not self.settings.noise:
            return offered
        return nearby(offered, x, threat, self.settings.noise * threat.eps)

    def _learn(self, offered: Tensor, gradient: Tensor) -> None:
        """One step of Adam from a scaled gradient at ``offered``; none if it overflowed in float16."""
        self.optimizer.zero_grad(set_to_none=True)
        half = self.compute.precision is torch.float16
        offered.backward(gradient if half else gradient / SCALE)  # type: ignore[no-untyped-call]
        self.compute.together.average_gradients(self.generator)
        if not half:
            self.optimizer.step()
            return
        found = [p.grad for p in self.generator.parameters() if p.grad is not None]
        if torch.stack([one.isfinite().all() for one in found]).all():
            for one in found:
                one /= SCALE
            self.optimizer.step()

    def _uphill(self, net: Classifier, x: Tensor, y: Tensor, offered: Tensor) -> Tensor:
        """Minus the gradient of the generator's objective with respect to ``offered``, times ``SCALE``."""
        if self.losses is None:
            return scaled_gradient(net, offered, y)
        offered = offered.requires_grad_()
        with torch.enable_grad():
            total = torch.zeros((), device=x.device)
            for label in torch.unique(y).tolist():
                rows = torch.nonzero(y == label).flatten()
                terms = self.losses[label](x[rows], offered[rows])
                total = total + torch.stack(list(terms.values())).sum()
        (gradient,) = torch.autograd.grad(SCALE * total, offered)
        return -gradient

    def save(self, checkpoint: Checkpoint, epoch: int) -> None:
        """Save it beside the loop's checkpoint, in two places by turns: the loop saves afterwards."""
        place = checkpoint.part(f"generator-{epoch % 2}")
        save_epoch(place, self.generator, self.optimizer, epoch, {})

    def load(self, checkpoint: Checkpoint, epoch: int) -> bool:
        """Load it as it was after ``epoch``; False, and no change, if that is missing or damaged."""
        place = checkpoint.part(f"generator-{epoch % 2}")
        if epochs_kept(place) != epoch:
            return False
        load_epoch(place, self.generator, self.optimizer)
        return True
