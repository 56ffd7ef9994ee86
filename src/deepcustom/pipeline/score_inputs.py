"""Reads what a scoring needs from the files of a project, and says where it keeps its scores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.hashes import dvc_md5
from deepcustom.base.rows import TRAINING, adversarial_sets, networks
from deepcustom.base.settings import EvaluateParams
from deepcustom.data.arrays import AdversarialSet
from deepcustom.evaluation.material import Adaptable, Lazy
from deepcustom.evaluation.score_store import ScoreStore
from deepcustom.evaluation.scoring import ScoringInputs, Testbed
from deepcustom.evaluation.sets import StoredSet
from deepcustom.evaluation.transfer import Network
from deepcustom.pipeline import workspace
from deepcustom.pipeline.dgns import load_dgns
from deepcustom.pipeline.load import labelled, load_classifier, load_split
from deepcustom.pipeline.run import StageRun
from deepcustom.tracking.record import RunRecord

if TYPE_CHECKING:
    from deepcustom.data.datasets import DatasetSpec
    from deepcustom.training.compute import Compute


def score_inputs(
    stage: StageRun,
    spec: DatasetSpec,
    params: EvaluateParams,
    *,
    own: Network | None = None,
    alone: bool = False,
    quick: bool = False,
) -> ScoringInputs:
    """Read every network and every adversarial test set that rows name for a subject.

    Args:
        stage: the running stage, which declares each file as an input.
        spec: the data set.
        params: the settings of the evaluation.
        own: score this network instead of the subject's.
        alone: read no other network, no set and no DGN; what needs them is left out.
        quick: leave out what only the slow protocols need.
    """
    bed = testbed(stage, spec, params)
    if alone:
        return ScoringInputs(bed, [], [], own=own)
    known = load_networks(stage, networks(stage.tree, stage.row.subject), bed.compute)
    sets = stored_sets(stage, spec, adversarial_sets(stage.tree, stage.row.subject))
    if quick:
        return ScoringInputs(bed, known, sets, own=own, quick=True)
    dgns = _dgns(stage, spec, params.adaptive.bank, bed.compute)
    reads = {} if own else _training_reads(stage)
    return ScoringInputs(bed, known, sets, dgns, own, reads)


def score_store(stage: StageRun, run: str) -> ScoreStore:
    """Where the scores of a subject are kept.

    Args:
        stage: a stage of the subject, which has chosen device and precision.
        run: the name of this kind of run; the store keeps the scores that the last run of each kind used.
    """
    return ScoreStore(stage.ws.scores(stage.row.subject), stage.basis(), run)


def testbed(stage: StageRun, spec: DatasetSpec, params: EvaluateParams) -> Testbed:
    """Read the test split, and draw the images that are attacked."""
    threat, compute = ThreatModel.of(stage.subject.threat), stage.compute()
    split = load_split(stage, spec, "test")
    return Testbed.of(
        split,
        _md5(stage, workspace.split(stage.row.dataset, "test")),
        subject=stage.row.subject,
        classes=spec.classes,
        params=params,
        threat=threat,
        compute=compute,
        seed=stage.seed,
    )


def stored_sets(stage: StageRun, spec: DatasetSpec, attacks: Iterable[str]) -> Iterator[StoredSet]:
    """Adversarial test sets, each read when its turn comes."""
    folders = {
        attack: stage.read(workspace.adversarial(stage.row.subject, "test", attack))
        for attack in attacks
    }
    return (
        StoredSet(attack, dvc_md5(folder), AdversarialSet.load(folder, spec))
        for attack, folder in folders.items()
    )


def load_networks(stage: StageRun, names: Iterable[str], compute: Compute) -> list[Network]:
    """Networks of the subject by their names in the tables."""
    found = []
    for name in names:
        net = load_classifier(stage, name, compute)
        md5 = _md5(stage, workspace.network(stage.row.subject, name))
        found.append(Network(name, md5, net))
    return found


def _dgns(stage: StageRun, spec: DatasetSpec, name: str, compute: Compute) -> Lazy[Adaptable]:
    """A bank of DGNs, and the train split to adapt them on."""
    dgns = load_dgns(stage, spec, name, compute)
    train = load_split(stage, spec, "train")
    images = _md5(stage, workspace.split(stage.row.dataset, "train"))
    md5 = {"bank": _md5(stage, workspace.bank(stage.row.subject, name)), "train": images}
    return Lazy(md5, lambda: (dgns, labelled(train, compute)))


def _training_reads(stage: StageRun) -> dict[str, list[str]]:
    """Name of a training run → paths that it read, according to its record.

    Raises:
        InputError: a record cannot be read.
    """
    reads = {}
    for name in TRAINING:
        for file in sorted((stage.ws.runs / stage.row.subject / name).rglob("run.json")):
            record = RunRecord.read(file.parent)
            reads[record.name] = list(record.inputs)
    return reads


def _md5(stage: StageRun, path: str) -> str:
    return dvc_md5(stage.ws.root / path)
