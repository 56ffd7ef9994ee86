"""Loads the DGNs of a subject, whichever kind a file holds."""

from __future__ import annotations

from deepcustom.attacks.bank import DGNBank
from deepcustom.attacks.conditional import KIND, ConditionalDGN
from deepcustom.data.datasets import DatasetSpec
from deepcustom.pipeline import workspace
from deepcustom.pipeline.load import architecture
from deepcustom.pipeline.run import StageRun
from deepcustom.training.compute import Compute
from deepcustom.training.weights import read_metadata


def load_dgns(
    stage: StageRun, spec: DatasetSpec, name: str, compute: Compute
) -> DGNBank | ConditionalDGN:
    """The subject's DGNs by name: a bank, or the generator that trained together with that network.

    Raises:
        InputError: the file is missing, or holds something else.
    """
    subject, whose = stage.subject, stage.row.subject
    path = stage.read(workspace.bank(whose, name))
    if read_metadata(path).get("kind") == KIND:
        told = architecture(stage, subject.conditional)
        return ConditionalDGN.load(path, told, whose, spec.num_classes, compute.device)
    each = architecture(stage, subject.generator)
    return DGNBank.load(path, each, whose, spec.num_classes, compute.device)
