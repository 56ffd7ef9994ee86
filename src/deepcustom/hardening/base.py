"""The base class of every way of hardening, and of its settings."""

from __future__ import annotations

import functools
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import field_validator
from torch import nn

from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.params import Params
from deepcustom.base.settings import TrainingParams
from deepcustom.training.epochs import History
from deepcustom.training.fit import Terms, fit
from deepcustom.training.job import Job
from deepcustom.training.nets.base import Classifier
from deepcustom.training.rows import Images, LabelledImages

OLD = {"gf": "goodfellow", "default": "art"}
"""The old name of a ``type`` → its present name."""


def current(name: Any) -> Any:
    """The present name for ``name``; an old name is accepted, with a hint."""
    if isinstance(name, str) and name in OLD:
        _hint(name)
        return OLD[name]
    return name


@functools.cache  # once per process
def _hint(old: str) -> None:
    print(f"hint: params.yaml: type {old} is called {OLD[old]} now", file=sys.stderr)


class WaySettings(Params):
    """What ``params.yaml`` says of every hardened network; ``training`` is its budget."""

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
        Settings: the model of a network's settings in ``params.yaml``; no key has a default.
        reads_set: whether it trains on an existing adversarial set, which has the network's name.
        stage: the stage that trains in this way.
        together: whether several processes can train a network together in this way.
        title: describes such a network to readers; ``{name}`` stands for the network's own name.
    """

    Settings: ClassVar[type[WaySettings]]
    reads_set: ClassVar[bool] = False
    stage: ClassVar[str] = "adversarial_train"
    together: ClassVar[bool] = True
    title: ClassVar[str] = "network hardened with {name}"

    def __init__(self, settings: S, threat: ThreatModel, num_classes: int) -> None:
        """Prepare for training.

        Args:
            settings: an instance of the way's ``Settings``.
            threat: the ball to harden in, and the range.
            num_classes: how many labels there are.
        """
        self.settings = settings
        self.threat = threat
        self.num_classes = num_classes

    @abstractmethod
    def train(
        self,
        net: Classifier,
        train: LabelledImages,
        val: LabelledImages,
        job: Job,
        made: LabelledImages | None = None,
    ) -> History:
        """Harden ``net`` in place.

        Args:
            net: a network, fresh or with given weights.
            train: clean images (N, C, H, W) in [0, 1] and labels (N,).
            val: clean images and labels to watch; may be empty.
            job: its seed decides the order of the images and everything that is drawn.
            made: for a way that ``reads_set``: images (M, C, H, W) and, for each, its row in
                ``train``.

        Returns:
            What was measured after each epoch.
        """

    def fit(
        self,
        net: nn.Module,
        terms: Callable[..., Terms],
        tensors: Sequence[Images],
        job: Job,
        *,
        before_epoch: Callable[[int], None] | None = None,
        after_epoch: Callable[[int], Mapping[str, float]] | None = None,
    ) -> History:
        """Run :func:`deepcustom.training.fit.fit` with the way's budget; report where it resumes."""
        job.tell_resumed()
        budget = self.settings.training
        return fit(
            net, terms, tensors, budget, job, before_epoch=before_epoch, after_epoch=after_epoch
        )
