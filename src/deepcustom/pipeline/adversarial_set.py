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
    before = predict(target_net, x.to(compute.device)).argmax(1).cpu()
    after = predict(target_net, torch.from_numpy(x_adv).to(compute.device)).argmax(1).cpu()
    keep = (before != after if only_changed else torch.ones_like(y, dtype=torch.bool)).numpy()
    made = AdversarialSet(
        x=split.x[keep], x_adv=x_adv[keep], y=split.y[keep], index=split.index[keep]
    )
    made.save(stage.write(workspace.adversarial(spec.name, split_name, attack)))

    change = np.abs(x_adv - x.numpy()).reshape(len(x), -1)
    stage.log(
        {
            "images": int(keep.sum()),
            "clean_accuracy": _mean(before == y),
            "target_accuracy": _mean(after == y),
            "attack_success_rate": _mean((after != y)[before == y]),
            "predictions_changed": _mean(before != after),
            "mean_linf": float(change.max(1).mean()) if len(x) else float("nan"),
            "mean_l2": float(np.sqrt((change**2).sum(1)).mean()) if len(x) else float("nan"),
        }
    )
    first = first_rows(split.y[keep], spec.num_classes)
    stage.figure(
        "images",
        image_grid(
            x.numpy()[keep][first],
            x_adv[keep][first],
            split.y[keep][first],
            class_names=spec.classes,
            predicted=before.numpy()[keep][first],
            predicted_adv=after.numpy()[keep][first],
            eps=threat.eps,
            title=f"{spec.title}: {attack} against the target network, {split_name}",
        ),
    )


def _mean(flags: object) -> float:
    """Share of true values; nan of none."""
    values = np.asarray(flags, dtype=np.float64)
    return float(values.mean()) if values.size else float("nan")


def first_rows(y: np.ndarray, count: int) -> np.ndarray:
    """``count`` rows, the first of every class before the second of any."""
    seen = [int((y[:row] == label).sum()) for row, label in enumerate(y[: 100 * count])]
    return np.argsort(seen, kind="stable")[:count]
