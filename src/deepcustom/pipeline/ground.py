"""What networks are scored on: the test split, the images of it that are attacked, the adversarial sets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from deepcustom.base.errors import InputError
from deepcustom.base.hashes import dvc_md5
from deepcustom.base.progress import Advance
from deepcustom.base.settings import EvaluateParams
from deepcustom.data import arrays, draws
from deepcustom.evaluation import checks
from deepcustom.evaluation.checks import Check
from deepcustom.evaluation.results import CLEAN, UNCLIPPED
from deepcustom.evaluation.subject import Subject
from deepcustom.evaluation.transfer import Network, TestSet
from deepcustom.pipeline import workspace
from deepcustom.pipeline.load import load_classifier, load_split, to_device
from deepcustom.pipeline.run import StageRun
from deepcustom.training.compute import derive_seed

if TYPE_CHECKING:
    from deepcustom.attacks.threat import ThreatModel
    from deepcustom.data.datasets import DatasetSpec
    from deepcustom.training.compute import Compute

_LEAK_IMAGES = 4000  # of a set, from which a label may be read


@dataclass(frozen=True)
class Ground:
    """What all networks of a data set are scored on.

    Attributes:
        spec: the data set.
        params: all settings.
        threat: ball and range.
        compute: device and precision.
        seed: of everything random.
        clean: the whole test split.
        index: (N,) official index of each of its images.
        rows: (n,) which of its images are attacked.
    """

    spec: DatasetSpec
    params: EvaluateParams
    threat: ThreatModel
    compute: Compute
    seed: int
    clean: TestSet
    index: np.ndarray
    rows: Tensor

    def subject(self, network: Network, advance: Advance) -> Subject:
        """A network and the images that it is attacked on."""
        return Subject(
            network.name,
            network.net,
            self.clean.x[self.rows],
            self.clean.y[self.rows],
            self.threat,
            self.spec.num_classes,
            derive_seed(self.seed, network.name),
            self.compute,
            advance,
        )


def ground(stage: StageRun, spec: DatasetSpec, params: EvaluateParams) -> Ground:
    """Read the test split, and draw the images that are attacked."""
    threat, compute = stage.threat(), stage.compute()
    split = load_split(stage, spec, "test")
    md5 = dvc_md5(stage.ws.root / workspace.split(spec.name, "test"))
    x, y = to_device(split, compute)
    size = params.n if params.n < len(split) else None
    chosen = draws.subset(split, size, stage.seed).index
    rows = torch.from_numpy(np.searchsorted(split.index, np.sort(chosen)))
    clean = TestSet(CLEAN, md5, x, y)
    return Ground(spec, params, threat, compute, stage.seed, clean, split.index, rows)


def adversarial_sets(
    stage: StageRun, base: Ground
) -> Iterator[tuple[TestSet, Tensor, list[Check]]]:
    """Each adversarial test set in its turn, the row of the test split that each of its images comes
    from, and checks on it; one that leaves the ball is named so.
    """
    for attack in base.params.attacks:
        folder = stage.read(workspace.adversarial(base.spec.name, "test", attack))
        made = arrays.AdversarialSet.load(folder, base.spec)
        inside = checks.ball(f"{attack} (set)", made.x_adv, made.x, base.threat)
        name = attack if inside.verdict == "ok" else attack + UNCLIPPED
        if name != attack:
            print(f"warning: scored as {name}, since {inside.text}")
        found = [inside, *_label_leak(name, made, base.seed)]
        x_adv, y = arrays.images(made.x_adv), arrays.labels(made.y)
        device = base.compute.device
        images = TestSet(name, dvc_md5(folder), x_adv.to(device), y.to(device))
        yield images, _rows_of(base, made, attack), found


def _rows_of(base: Ground, made: arrays.AdversarialSet, attack: str) -> Tensor:
    """Where each image of an adversarial set stands in the test split, (n,).

    Raises:
        InputError: it was made from another split.
    """
    rows = np.searchsorted(base.index, made.index)
    known = rows < len(base.index)
    if not (known.all() and np.array_equal(base.index[rows], made.index)):
        raise InputError(f"the adversarial set {attack!r} was made from another test split")
    return torch.from_numpy(rows)


def _label_leak(name: str, made: arrays.AdversarialSet, seed: int) -> list[Check]:
    """Whether the label can be read off a set's perturbations, where it holds enough images."""
    few = made.take(slice(0, _LEAK_IMAGES))
    counts = np.bincount(few.y) if len(few) else np.zeros(1, np.int64)
    if len(few) < 100 or counts[counts > 0].min() < 2:
        return []
    clean = few.x.astype(np.float32) / np.float32(255)
    return [checks.label_in_perturbation(f"{name} (set)", few.x_adv - clean, few.y, seed)]


def load_networks(
    stage: StageRun, spec: DatasetSpec, names: Iterable[str], compute: Compute
) -> list[Network]:
    """Networks by their names in the tables."""
    found = []
    for name in names:
        net = load_classifier(stage, spec, name, compute)
        found.append(
            Network(name, dvc_md5(stage.ws.root / workspace.network(spec.name, name)), net)
        )
    return found
