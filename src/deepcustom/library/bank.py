"""Training DGNs in memory, and reading them from their file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepcustom.attacks.bank import DGNBank
from deepcustom.attacks.conditional import KIND, ConditionalDGN, conditional
from deepcustom.attacks.losses.base import contexts, find_loss
from deepcustom.attacks.relevance import class_relevance, top_pixels
from deepcustom.attacks.suspiciousness import suspicious_units
from deepcustom.attacks.train_bank import train_bank as train_each
from deepcustom.attacks.train_conditional import train_conditional
from deepcustom.base.errors import InputError
from deepcustom.base.params import validate
from deepcustom.base.progress import progress
from deepcustom.base.rows import overlay
from deepcustom.base.settings import TrainDgnParams
from deepcustom.data.arrays import Array
from deepcustom.library.given import (
    Images,
    Labels,
    Pair,
    as_module,
    borrowed,
    classifier,
    compute_on,
    dice_kept,
    empty,
    fitting,
    gathered,
    pair,
    plainly,
)
from deepcustom.library.kept import check_keep, checkpoint, sources
from deepcustom.library.starting import (
    CONDITIONAL,
    GENERATOR,
    LOSS,
    NETS,
    OPTIONS,
    RELEVANT,
    SEED,
    SUSPICIOUS,
    Start,
    threat_of,
)
from deepcustom.library.trying import at_least, classes_of, usable
from deepcustom.training.compute import derive_seed, seed_everything
from deepcustom.training.job import Job
from deepcustom.training.nets.base import Architecture, Classifier
from deepcustom.training.nets.healed import Healed
from deepcustom.training.prediction import BATCH
from deepcustom.training.rows import LabelledImages
from deepcustom.training.weights import load_tensors, read_metadata

ANALYSED = {"relevance": 500, "suspiciousness": 1000}
"""Images that an analysis shows the network at once."""
BEFORE = {
    GENERATOR: f"{NETS}.anyshape:AnyGenerator",
    CONDITIONAL: f"{NETS}.anyshape:AnyConditional",
}
"""Classes of generators → those that files of earlier versions hold."""
DATASET = "images"
"""What a bank's file says that it attacks."""


def train_bank(
    net: nn.Module,
    x: Images,
    y: Labels | None = None,
    eps: float | str | None = None,
    loss: str = LOSS,
    *,
    options: Mapping[str, Any] | None = None,
    epochs: int | None = None,
    val: Pair | None = None,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    settings: Mapping[str, Any] | None = None,
    keep: str | Path | None = None,
    norm: str = "linf",
    seed: int = SEED,
    device: str = "auto",
) -> DGNBank | ConditionalDGN:
    """Train a DGN that fools a network, and that is told the label; or one for each class.

    Args:
        net: images (N, C, H, W) to logits (N, classes). It is used in eval mode, and left as it was.
        x: images to train on, as :func:`deepcustom.evaluate` takes them.
        y: labels (N,); None with a DataLoader.
        eps: radius of the ball: a number, or text such as ``"8/255"``.
        loss: a name of ``deepcustom losses``, or ``package.module:Class``. The analyses of ``net`` that it
            requires are made from ``x``.
        options: of the loss; ``nce`` alone has some by itself.
        epochs: of each DGN; None: by the number of images.
        val: images and labels on which the progress is measured.
        mean: of each channel: images in [0, 1] are normalised by it in front of ``net``.
        std: likewise, what they are divided by.
        settings: what is to differ from the settings that a new project begins with, such as
            ``{"output": "image", "training": {"learning_rate": 1e-4}}``.
        keep: a folder for finished epochs, so that an interrupted call goes on when it is made again.
        norm: ``linf``: eps bounds the change of each pixel; ``l2``: the Euclidean length of the change.
        seed: of everything random.
        device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        The DGNs, as their file holds them: ``save(path)`` writes it, :func:`load_bank` reads it.

    Raises:
        InputError, LossError, UnknownNameError: in one line: something that was handed over cannot be used.
    """
    check_keep(keep)
    data, compute, threat = gathered(x, y), compute_on(device), threat_of(eps, norm)
    whole = classifier(as_module(net), data.shape, mean, std)
    with dice_kept(), borrowed(whole, compute), plainly():
        classes = classes_of(whole, data, compute) or at_least(data)
        watched = fitting(pair(val, "val") or empty(data), data, classes, "val")
        start = Start(data.shape, classes, threat.eps, len(data.y), norm=norm)
        params = _params(start, loss, options, epochs, settings or {})
        kind, batch = find_loss(loss), params.training.batch_size
        sizes = [BATCH, batch, *(ANALYSED[what] for what in kind.requires if what in ANALYSED)]
        whole = usable(whole, data, classes, compute, sizes=sizes, learner="train_bank")
        train = data.on(compute)
        analysis = {what: _analysis(what, whole, train, classes) for what in kind.requires}
        known = contexts(whole, threat, analysis, classes)
        told = params.generator == "conditional"
        what = {
            "train_dgn": params.model_dump(mode="json"),
            "eps": threat.eps,
            "norm": norm,
            "seed": seed,
        }
        what["code"] = sources(kind)
        place = checkpoint(keep, compute, what, whole, data, watched)
        job_seed = derive_seed(seed, "train_dgn", DATASET, loss)
        seed_everything(job_seed)
        with progress(
            f"train_bank, {loss}", params.training.epochs * (1 if told else classes)
        ) as say:
            job = Job(job_seed, compute, say, place)
            facts = {"shape": data.shape, "classes": classes}
            if told:
                fresh = compute.place(conditional(Architecture(CONDITIONAL, facts=facts), classes))
                arguments = (DATASET, known, train, watched.on(compute), params, job)
                dgn: DGNBank | ConditionalDGN = train_conditional(fresh, *arguments)[0]
            else:
                named = Architecture(GENERATOR, facts=facts)
                dgn = train_each(named, DATASET, known, train, watched.on(compute), params, job)[0]
        place.clear()
    return dgn


def load_bank(
    path: str | Path, x: Tensor | Array, device: str = "auto"
) -> DGNBank | ConditionalDGN:
    """Read DGNs that :func:`train_bank` trained and ``save`` wrote.

    Args:
        path: their file.
        x: images of the shape that they were trained on; only the shape counts.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        InputError: no such file, or it holds something else.
    """
    place, compute = Path(path), compute_on(device)
    shape = tuple(getattr(x, "shape", ()))[1:]
    if len(shape) != 3:
        raise InputError(f"x has shape {tuple(getattr(x, 'shape', ()))}, want images (N, C, H, W)")
    about = read_metadata(place)
    if about.get("kind") == KIND:
        tensors = load_tensors(place)[0]
        labels = tensors.get("label.weight", torch.empty(0))
        told = Architecture(_class_of(tensors, CONDITIONAL), facts={"shape": shape})
        dgn = ConditionalDGN.load(place, told, DATASET, len(labels), compute.device)
        return dgn.placed(compute)  # as training left it, so that it makes the same bytes
    named = _class_of(load_tensors(place)[0], GENERATOR)
    each, classes = Architecture(named, facts={"shape": shape}), about.get("classes")
    if not isinstance(classes, int):
        raise InputError(f"{place} does not say how many DGNs it holds")
    return DGNBank.load(place, each, DATASET, classes, compute.device)


def _class_of(tensors: Mapping[str, Tensor], today: str) -> str:
    """The class of generators with these tensors: ``today``, or what took its place before."""
    before = any(".encoder." in f".{name}" for name in tensors)
    return BEFORE[today] if before else today


def _params(
    start: Start,
    loss: str,
    options: Mapping[str, Any] | None,
    epochs: int | None,
    settings: Mapping[str, Any],
) -> TrainDgnParams:
    given = options if options is not None else OPTIONS.get(loss, {})
    tree = overlay(start.recipes()["bank"], {"loss": loss, "options": given})
    if epochs is not None:
        tree = overlay(tree, {"training": {"epochs": epochs}})
    return validate(TrainDgnParams, overlay(tree, settings), "settings")


def _analysis(what: str, net: Classifier, train: LabelledImages, classes: int) -> dict[str, Tensor]:
    """An analysis of the network that a loss requires, array name → tensor with one row per class."""
    x, y = train
    if what == "relevance":
        relevance = class_relevance(_bare(net), x, y, classes)
        most = max(1, round(RELEVANT * relevance[0].numel()))
        return {"relevance": relevance, "pixels": top_pixels(relevance, most)}
    found = suspicious_units(net, x, y, classes, k=SUSPICIOUS)
    arrays = {f"suspicious.{layer}": mask for layer, mask in found.suspicious.items()}
    arrays |= {f"scores.{layer}": scores for layer, scores in found.scores.items()}
    return {**arrays, "failures": found.failures}


def _bare(net: Classifier) -> Classifier:
    """The network itself, as LRP looks at its layers, if all it needs is to be spared empty batches."""
    if isinstance(net, Healed) and isinstance(net.net, Classifier):
        return net if replace(net.remedy, empty=False).needed else net.net
    return net
