"""A hardened network."""

from __future__ import annotations

import numpy as np
import torch

from deepcustom import arrays, datasets, nets
from deepcustom.errors import InputError
from deepcustom.figures import loss_curves
from deepcustom.hardening import train_gf, train_with_art
from deepcustom.params import AdversarialTrainParams
from deepcustom.pipeline import workspace
from deepcustom.pipeline.load import load_split, to_device
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.workspace import Workspace
from deepcustom.progress import progress
from deepcustom.weights import save_network


def run(ws: Workspace, dataset: str, name: str) -> None:
    """Train the robust network ``name`` of ``dataset``."""
    spec = datasets.spec(dataset)
    with StageRun(ws, "adversarial_train", dataset, name) as stage:
        params = stage.params(AdversarialTrainParams, name)
        compute = stage.compute()
        threat = stage.threat()

        split = load_split(stage, spec, "train")
        train = to_device(split, compute)
        val = to_device(load_split(stage, spec, "val"), compute)

        net = compute.place(nets.classifier(dataset))
        with progress(f"adversarial_train@{dataset}-{name}", params.training.epochs) as advance:
            if params.attack is None:
                folder = stage.read(workspace.adversarial(dataset, "train", name))
                made = arrays.AdversarialSet.load(folder, spec)
                row = torch.from_numpy(_rows_of(made.index, split.index, name))
                x_adv = arrays.images(made.x_adv)
                history = train_gf(
                    net,
                    train,
                    (x_adv.to(compute.device), row.to(compute.device)),
                    val,
                    params.training,
                    clean_weight=params.clean_weight,
                    seed=stage.seed,
                    compute=compute,
                    advance=advance,
                    checkpoint=stage.checkpoint(),
                )
            else:
                history = train_with_art(
                    net,
                    train,
                    val,
                    params.training,
                    attack=params.attack,
                    ratio=params.ratio,
                    threat=threat,
                    num_classes=spec.num_classes,
                    seed=stage.seed,
                    compute=compute,
                    advance=advance,
                    checkpoint=stage.checkpoint(),
                )

        about = {"kind": "classifier", "dataset": dataset, "network": name}
        save_network(stage.write(workspace.robust(dataset, name)), net, about)

        stage.log({key: curve[-1] for key, curve in history.items()}, history)
        stage.figure("curves", loss_curves(history, f"{spec.title}: network hardened with {name}"))


def _rows_of(wanted: np.ndarray, index: np.ndarray, name: str) -> np.ndarray:
    """Where each image of the adversarial set stands in the train split (sorted by index)."""
    if not len(wanted):
        raise InputError(f"the adversarial set {name!r} is empty: there is nothing to train on")
    rows = np.searchsorted(index, wanted)
    if rows.max() >= len(index) or not np.array_equal(index[rows], wanted):
        raise InputError(f"the adversarial set {name!r} was made from another train split")
    return rows.astype(np.int64)
