"""A hardened network."""

from __future__ import annotations

import torch
from torch import Tensor

from deepcustom.base.errors import InputError
from deepcustom.base.params import AdversarialTrainParams
from deepcustom.base.progress import progress
from deepcustom.data import arrays, datasets
from deepcustom.hardening.art import train_with_art
from deepcustom.hardening.goodfellow import train_gf
from deepcustom.hardening.madry import train_madry
from deepcustom.pipeline import workspace
from deepcustom.pipeline.load import load_split, to_device
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.workspace import Workspace
from deepcustom.report.figures import loss_curves
from deepcustom.training import nets
from deepcustom.training.compute import Compute
from deepcustom.training.weights import save_network


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
            seed, budget = stage.seed, params.training
            if params.inner is not None:
                history = train_madry(
                    net,
                    train,
                    val,
                    budget,
                    inner=params.inner,
                    threat=threat,
                    seed=seed,
                    compute=compute,
                    advance=advance,
                    checkpoint=stage.checkpoint(),
                )
            elif params.attack is not None:
                history = train_with_art(
                    net,
                    train,
                    val,
                    budget,
                    attack=params.attack,
                    ratio=params.ratio,
                    threat=threat,
                    num_classes=spec.num_classes,
                    seed=seed,
                    compute=compute,
                    advance=advance,
                    checkpoint=stage.checkpoint(),
                )
            else:
                adversarial = _adversarial_set(stage, spec, split, name, compute)
                history = train_gf(
                    net,
                    train,
                    adversarial,
                    val,
                    budget,
                    clean_weight=params.clean_weight,
                    seed=seed,
                    compute=compute,
                    advance=advance,
                    checkpoint=stage.checkpoint(),
                )

        about = {"kind": "classifier", "dataset": dataset, "network": name}
        save_network(stage.write(workspace.robust(dataset, name)), net, about)

        stage.log({key: curve[-1] for key, curve in history.items()}, history)
        stage.figure("curves", loss_curves(history, f"{spec.title}: network hardened with {name}"))


def _adversarial_set(
    stage: StageRun, spec: datasets.DatasetSpec, split: arrays.Split, name: str, compute: Compute
) -> tuple[Tensor, Tensor]:
    """The images of the train split's adversarial set ``name``, and the row of each in that split."""
    made = arrays.AdversarialSet.load(
        stage.read(workspace.adversarial(spec.name, "train", name)), spec
    )
    if not len(made):
        raise InputError(f"the adversarial set {name!r} is empty: there is nothing to train on")
    row = torch.from_numpy(split.rows_of(made.index, f"the adversarial set {name!r}", "train"))
    return arrays.images(made.x_adv).to(compute.device), row.to(compute.device)
