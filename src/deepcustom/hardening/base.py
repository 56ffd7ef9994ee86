"""What a way of hardening a network is."""

from __future__ import annotations

import functools
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import field_validator
from torch import Tensor, nn

from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.params import Params
from deepcustom.base.settings import TrainingParams
from deepcustom.training.epochs import History
from deepcustom.training.fit import Terms, fit
from deepcustom.training.job import Job
from deepcustom.training.nets.base import Classifier

Images = tuple[Tensor, Tensor]
"""Images (N, C, H, W) in [0, 1], and for each its label, or the row it was made from, (N,)."""

OLD = {"gf": "goodfellow", "default": "art"}
"""What a ``type`` was called → what it is called now."""


def current(name: Any) -> Any:
    """``name`` as it is called now; an old one is taken, with a hint."""
    if isinstance(name, str) and name in OLD:
        _hint(name)
        return OLD[name]
    return name


@functools.cache  # once a process
def _hint(old: str) -> None:
    print(f"hint: params.yaml: type {old} is called {OLD[old]} now", file=sys.stderr)


class WaySettings(Params):
    """What ``params.yaml`` says of a hardened network, whatever the way: ``training`` is its budget."""

    type: str
    training: TrainingParams

    @field_validator("type", mode="before")
    @classmethod
    def _by_its_name_of_today(cls, value: Any) -> Any:
        return current(value)


S = TypeVar("S", bound=WaySettings)


class Way(ABC, Generic[S]):
    """Base of every way of hardening.

    Class attributes:
        Settings: the model of a network's section of ``params.yaml``; no key has a default.
        reads_set: whether it trains on an adversarial set that was made before, of the network's name.
        stage: which stage trains so.
        title: what such a network is, for people; ``{name}`` stands for the network's own name.
    """

    Settings: ClassVar[type[WaySettings]]
    reads_set: ClassVar[bool] = False
    stage: ClassVar[str] = "adversarial_train"
    title: ClassVar[str] = "network hardened with {name}"

    def __init__(self, settings: S, threat: ThreatModel, num_classes: int) -> None:
        """Ready to train.

        Args:
            settings: of the way's ``Settings``.
            threat: the ball to harden in, and the range.
            num_classes: how many labels there are.
        """
        self.settings = settings
        self.threat = threat
        self.num_classes = num_classes

    @abstractmethod
    def train(
        self, net: Classifier, train: Images, val: Images, job: Job, made: Images | None = None
    ) -> History:
        """Harden ``net`` in place.

        Args:
            net: a fresh network.
            train: clean images (N, C, H, W) in [0, 1] and labels (N,).
            val: clean images and labels to watch; may be empty.
            job: its seed is that of the order of the images and of all that is drawn.
            made: for a way that ``reads_set``: images (M, C, H, W) and, for each, its row in
                ``train``.

        Returns:
            What was measured after each epoch.
        """

    def fit(
        self,
        net: nn.Module,
        terms: Callable[..., Terms],
        tensors: Sequence[Tensor],
        job: Job,
        *,
        before_epoch: Callable[[int], None] | None = None,
        after_epoch: Callable[[int], Mapping[str, float]] | None = None,
    ) -> History:
        """Run :func:`deepcustom.training.fit.fit` with the way's budget, and say where it goes on."""
        job.tell_resumed()
        budget = self.settings.training
        return fit(
            net, terms, tensors, budget, job, before_epoch=before_epoch, after_epoch=after_epoch
        )
