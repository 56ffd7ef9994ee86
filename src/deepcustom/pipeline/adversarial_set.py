"""The second half of making an adversarial set, the same whatever made the images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deepcustom.pipeline import workspace
from deepcustom.pipeline.run import StageRun

if TYPE_CHECKING:
    from deepcustom.compute import Compute
    from deepcustom.datasets import DatasetSpec, Split
    from deepcustom.nets import Classifier
    from deepcustom.threat import ThreatModel


def finish_set(
    stage: StageRun,
    spec: DatasetSpec,
    split: Split,
    x_adv: np.ndarray,
    *,
    target_net: Classifier,
    threat: ThreatModel,
    compute: Compute,
    only_changed: bool,
) -> None:
    """Verify, choose, save and record.

    Args:
        stage: the running stage; its parts are the attack and the split's name.
        spec: the data set.
        split: the clean images.
        x_adv: adversarial images (N, C, H, W) of every one of them.
        target_net: whose predictions count.
        threat: verified for every image.
        compute: where to predict.
        only_changed: keep only images whose predicted class the perturbation changed.

    Raises:
        ThreatModelError: an image lies outside the threat model.
    """
    import torch

    from deepcustom.datasets import AdversarialSet
    from deepcustom.figures import image_grid
    from deepcustom.training import predict

    attack, split_name = stage.parts
    threat.verify(x_adv, split.x)
    x, y = split.tensors()
    before = predict(target_net, x.to(compute.device)).argmax(1).cpu().numpy()
    after = predict(target_net, torch.from_numpy(x_adv).to(compute.device)).argmax(1).cpu().numpy()
    keep = before != after if only_changed else np.ones(len(y), dtype=bool)
    made = AdversarialSet(
        x=split.x[keep], x_adv=x_adv[keep], y=split.y[keep], index=split.index[keep]
    )
    made.save(stage.write(workspace.adversarial(spec.name, split_name, attack)))

    stage.log({"images": int(keep.sum()), **_effect(x.numpy(), x_adv, y.numpy(), before, after)})
    rows = np.flatnonzero(keep)[first_rows(split.y[keep], spec.num_classes)]
    stage.figure(
        "images",
        image_grid(
            x.numpy()[rows],
            x_adv[rows],
            split.y[rows],
            class_names=spec.classes,
            predicted=before[rows],
            predicted_adv=after[rows],
            eps=threat.eps,
            title=f"{spec.title}: {attack} against the target network, {split_name}",
        ),
    )


def _effect(
    x: np.ndarray, x_adv: np.ndarray, y: np.ndarray, before: np.ndarray, after: np.ndarray
) -> dict[str, float]:
    """What the attack did to the predictions, and how far it moved the images (means over images)."""
    change = np.abs(x_adv - x).reshape(len(x), -1)
    return {
        "clean_accuracy": _mean(before == y),
        "target_accuracy": _mean(after == y),
        "attack_success_rate": _mean((after != y)[before == y]),
        "predictions_changed": _mean(before != after),
        "mean_linf": _mean(change.max(axis=1, initial=0.0)),
        "mean_l2": _mean(np.sqrt((change**2).sum(axis=1))),
    }


def _mean(values: np.ndarray) -> float:
    """Mean, or share of true values; nan of none."""
    values = values.astype(np.float64)
    return float(values.mean()) if values.size else float("nan")


def first_rows(y: np.ndarray, count: int) -> np.ndarray:
    """At most ``count`` rows: the first of every class, by class, then the second, and so on."""
    some = y[: 100 * count]
    turn = np.array([(some[:row] == label).sum() for row, label in enumerate(some)])
    return np.lexsort((some, turn))[:count]
