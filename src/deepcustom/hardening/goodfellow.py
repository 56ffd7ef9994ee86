"""Training on clean and pre-made adversarial images at once (Goodfellow et al. 2015, section 6)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from deepcustom.base.errors import InputError
from deepcustom.hardening.base import Way, WaySettings
from deepcustom.training.epochs import History
from deepcustom.training.fit import Terms, watch_accuracy
from deepcustom.training.job import Job
from deepcustom.training.nets.base import Classifier
from deepcustom.training.rows import LabelledImages


class GoodfellowSettings(WaySettings):
    """Training on the adversarial set that has the network's own name.

    The loss is ``clean_weight`` * CE(clean) + (1 - ``clean_weight``) * CE(adversarial).
    """

    type: Literal["goodfellow"]
    clean_weight: float = Field(ge=0, le=1)


class Goodfellow(Way[GoodfellowSettings]):
    """The network trains on an adversarial set that never changes."""

    Settings = GoodfellowSettings
    reads_set = True

    def train(
        self,
        net: Classifier,
        train: LabelledImages,
        val: LabelledImages,
        job: Job,
        made: LabelledImages | None = None,
    ) -> History:
        """As :meth:`Way.train`.

        If the adversarial set has fewer images than ``train``, its images are reused in turn.

        Returns:
            ``loss``, ``clean`` and ``adversarial`` (weighted), and, where ``val`` is not empty,
            ``val_accuracy``.

        Raises:
            InputError: no adversarial set is given.
        """
        if made is None:
            raise InputError("type goodfellow trains on an adversarial set, and none is given")
        (x, y), (x_adv, row), weight = train, made, self.settings.clean_weight

        def terms(clean: Tensor, labels: Tensor, at: Tensor) -> Terms:
            cross_entropy = torch.nn.functional.cross_entropy
            on_clean = cross_entropy(net(clean), labels, reduction="none")
            on_adv = cross_entropy(net(x_adv[at]), y[row[at]], reduction="none")
            return {"clean": weight * on_clean, "adversarial": (1 - weight) * on_adv}

        data = [x, y, _partners(row, len(x))]
        watch = watch_accuracy(net, val)
        return self.fit(net, terms, data, job, after_epoch=watch)


def _partners(row: Tensor, count: int) -> Tensor:
    """The adversarial image that goes with each clean one: its own if there is one, else the next in turn."""
    partner = torch.arange(count, device=row.device) % max(len(row), 1)
    partner[row] = torch.arange(len(row), device=row.device)
    return partner
