"""A target network as a project brings it: with weights, trained before or not, and tried before it is used.

Only ``train_target`` does this. Other stages get the network as its file has it, so they do not depend on how
networks are tried.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from deepcustom.base.errors import InputError, ParamsError
from deepcustom.base.hashes import dvc_md5
from deepcustom.base.rows import LAYOUTS, rows
from deepcustom.pipeline.load import REMEDY, must_learn
from deepcustom.pipeline.run import StageRun

OURS = "deepcustom."  # how the names of this package's networks begin
PROPAGATED, LOOKED_AT = 500, 1000
"""Images that relevance, which asks for gradients, and suspiciousness, which asks for none, show at once."""

if TYPE_CHECKING:
    from torch.nn import Module

    from deepcustom.base.settings import TargetParams
    from deepcustom.data.datasets import DatasetSpec
    from deepcustom.training.compute import Compute
    from deepcustom.training.nets.base import Classifier
    from deepcustom.training.rows import LabelledImages


def brought(
    stage: StageRun, net: Classifier, params: TargetParams, spec: DatasetSpec, compute: Compute
) -> dict[str, str]:
    """Give a network the weights that it is brought with, if any; if it is to be trained, try it.

    Returns:
        What its own file should say of where it comes from.

    Raises:
        ParamsError: it is neither trained nor brought with weights, or it cannot be trained.
        InputError: the weights or the network do not fit.
    """
    from deepcustom.training.nets.exported import SUFFIX
    from deepcustom.training.short_trial import check_outputs
    from deepcustom.training.weights import load_weights

    place, name = f"params.yaml: train_target.{stage.row.name}", stage.subject.network.name
    program = name.endswith(SUFFIX)
    if program and (params.epochs or params.weights):
        raise ParamsError(f"{place}: an exported program is used as it is: epochs 0 and no weights")
    if params.epochs:
        must_learn(net, f"{place}.epochs must be 0")
    elif not (program or params.weights or not net.state_dict()):
        raise ParamsError(f"{place}.epochs is 0, so the network must be brought with weights")
    if params.weights:
        load_weights(net, stage.read(params.weights))
    if params.epochs and (params.weights or not name.startswith(OURS)):
        check_outputs(net, spec.shape, spec.num_classes, compute, name)
    file = name if program else params.weights
    return {"brought": dvc_md5(stage.ws.root / file)} if file else {}


def tried_target(
    stage: StageRun, net: Classifier, images: LabelledImages, spec: DatasetSpec, compute: Compute
) -> tuple[Module, dict[str, Any]]:
    """Try a network that is used as it is brought, and say what is odd about it.

    Returns:
        The network with what it lacks put around it, and what its file should say of that.

    Raises:
        InputError: it cannot be attacked, or cannot be hardened, since it writes into its images or computes
            on another device.
    """
    from deepcustom.training.prediction import BATCH
    from deepcustom.training.trial import tried

    name = stage.subject.network.name
    sizes, shown = batches(stage.tree, stage.row.subject)
    trial = tried(net, *images, spec.num_classes, compute, name, sizes=(BATCH, *sizes), shown=shown)
    if not trial.gradient:
        raise InputError(
            f"{name}: the network has no gradient with respect to the images, which generators learn by; "
            "`deepcustom evaluate --network FILE` scores any network"
        )
    if trial.remedy.copy:
        raise InputError(
            f"{name}: the network changes the images that it is given: let it work on a copy"
        )
    if trial.remedy.device not in (None, "cpu"):
        raise InputError(
            f"{name}: the network computes on {trial.remedy.device} alone: set compute.device to cuda"
        )
    for note in trial.notes:
        print(f"note: {note}")
    return trial.net, {REMEDY: trial.remedy.as_json()} if trial.remedy.needed else {}


def batches(tree: Mapping[str, Any], subject: str) -> tuple[list[int], list[int]]:
    """How many images the rows of a subject show its target network at once, rising.

    Args:
        tree: ``params.yaml``.
        subject: the subject's name.

    Returns:
        Numbers of images that a gradient is asked for, and those without.
    """
    later = {stage: list(rows(tree, stage, subject)) for stage in LAYOUTS if stage in tree}
    sizes = {size for found in later.values() for row in found for size in _sizes(row.settings)}
    if later.get("relevance"):
        sizes.add(PROPAGATED)
    return sorted(sizes), [LOOKED_AT] if later.get("suspiciousness") else []


def _sizes(settings: Mapping[str, Any]) -> Iterator[int]:
    """Every ``batch_size``, at whatever depth; other stages say what is wrong with theirs."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _sizes(value)
        elif key == "batch_size" and type(value) is int and value > 0:
            yield value
