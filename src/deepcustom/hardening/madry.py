"""Adversarial training on the worst images of the moment (Madry et al. 2018, arXiv:1706.06083)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from deepcustom.base.params import Params, Radius
from deepcustom.hardening.base import Way, WaySettings
from deepcustom.hardening.inner import GrowingBall, accuracy_under, inner_pgd
from deepcustom.training.epochs import History
from deepcustom.training.fit import Terms, watch_accuracy
from deepcustom.training.job import Job
from deepcustom.training.nets.base import Classifier
from deepcustom.training.rows import LabelledImages


class InnerParams(Params):
    """The attack inside a training step: ``max_iter`` steps of ``eps_step`` from a random start.

    The ball and the step grow evenly from epoch to epoch. The ball reaches its full radius at the share
    ``growth`` of the epochs; 0: it is full from the first epoch.
    """

    eps_step: Radius
    max_iter: int = Field(ge=1)
    growth: float = Field(ge=0, le=1)


class MadrySettings(WaySettings):
    """The network trains only on the images that the attack ``inner`` makes of each batch."""

    type: Literal["madry"]
    inner: InnerParams


class Madry(Way[MadrySettings]):
    """Every step attacks the current network, and trains it on the adversarial images alone."""

    Settings = MadrySettings
    title = "{name}, adversarial training as Madry et al. 2018"

    def train(
        self,
        net: Classifier,
        train: LabelledImages,
        val: LabelledImages,
        job: Job,
        made: LabelledImages | None = None,
    ) -> History:
        """As :meth:`Way.train`.

        Returns:
            ``loss`` on adversarial images, ``eps`` of the ball, and, where ``val`` is not empty,
            ``val_accuracy`` on clean images and ``val_adversarial`` under the inner attack at full radius.
        """
        inner, epochs = self.settings.inner, self.settings.training.epochs
        ball = GrowingBall(self.threat, inner.eps_step, inner.growth, epochs)
        watch = watch_accuracy(net, val)

        def terms(x: Tensor, y: Tensor) -> Terms:
            x_adv = inner_pgd(
                net, x, y, ball.threat, eps_step=ball.eps_step, max_iter=inner.max_iter
            )
            return {"adversarial": F.cross_entropy(net(x_adv), y, reduction="none")}

        def after_epoch(epoch: int) -> Mapping[str, float]:
            seen = {"eps": ball.eps, **watch(epoch)}
            if len(val[0]):
                seen["val_adversarial"] = accuracy_under(
                    net, val, self.threat, eps_step=inner.eps_step, max_iter=inner.max_iter
                )
            return seen

        return self.fit(net, terms, train, job, before_epoch=ball.begin, after_epoch=after_epoch)
