"""Makes an adversarial set and draws some of its images, whether DGNs or ART made them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from deepcustom.base.progress import Advance, silent
from deepcustom.pipeline import workspace
from deepcustom.pipeline.run import StageRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from deepcustom.attacks.perturb import SplitAttack
    from deepcustom.attacks.threat import ThreatModel
    from deepcustom.data.arrays import AdversarialSet, Split
    from deepcustom.data.datasets import DatasetSpec
    from deepcustom.training.compute import Compute
    from deepcustom.training.engine import Engine
    from deepcustom.training.nets.base import Classifier


def make_set(
    stage: StageRun,
    spec: DatasetSpec,
    split: Split,
    attack: SplitAttack,
    advance: Advance = silent,
    engine: Engine | None = None,
) -> None:
    """Perturb a split, save the adversarial set, and record what the attack achieved.

    Args:
        stage: the running stage; its ``parts`` are the names of the attack and of the split.
        spec: the data set.
        split: the clean images.
        attack: makes the images.
        advance: called after every chunk with the number of its images.
        engine: makes the chunks elsewhere, as tasks; None: they are made here.

    Raises:
        ThreatModelError: an image lies outside the threat model.
    """
    from deepcustom.attacks.perturb import perturb_split
    from deepcustom.data.arrays import AdversarialSet

    name, split_name = stage.parts
    folder = stage.write(workspace.adversarial(stage.row.subject, split_name, name))
    effect = perturb_split(split, spec, folder, attack, advance, engine)

    stage.log(asdict(effect))
    made = AdversarialSet.load(folder, spec)
    title = f"{name} against the target network, {split_name}"
    grid = set_grid(made, spec, attack.target_net, attack.compute, attack.threat, title)
    stage.figure("images", grid)


def set_grid(
    made: AdversarialSet,
    spec: DatasetSpec,
    target_net: Classifier,
    compute: Compute,
    threat: ThreatModel,
    title: str,
    *,
    columns: int | None = None,
) -> Figure:
    """Draw the first images of an adversarial set, with what the target network predicts for them.

    Every class appears once before any class appears twice.

    Args:
        made: the set; it may be empty.
        spec: the data set.
        target_net: on ``compute.device``.
        compute: where to predict.
        threat: the threat model, whose radius scales the drawn differences.
        title: describes the set; the figure puts it after the data set's title.
        columns: how many images at most; by default as many as there are classes.
    """
    from deepcustom.report.figures import image_grid
    from deepcustom.training.prediction import predict

    columns = columns or spec.num_classes
    x, x_adv, y = made.take(first_rows(made.y, columns)).tensors()
    before, after = (
        predict(target_net, images.to(compute.device)).argmax(1).cpu().numpy()
        for images in (x, x_adv)
    )
    return image_grid(
        x.numpy(),
        x_adv.numpy(),
        y.numpy(),
        class_names=spec.classes,
        predicted=before,
        predicted_adv=after,
        threat=threat,
        title=f"{spec.title}: {title}",
    )


def first_rows(y: np.ndarray, count: int) -> np.ndarray:
    """Choose at most ``count`` images: the first of every class, then the second, and so on.

    Returns:
        Their positions in ``y``, in class order.
    """
    by_class = np.argsort(y, kind="stable")
    begins = np.searchsorted(y[by_class], y[by_class])
    turn = np.empty(len(y), np.int64)
    turn[by_class] = np.arange(len(y)) - begins  # how many of its class come before an image
    chosen = np.sort(np.lexsort((y, turn))[:count])
    return chosen[np.argsort(y[chosen], kind="stable")]
