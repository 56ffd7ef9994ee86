"""What a scoring reads, from the files of a project, and where it keeps its scores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from deepcustom.attacks.bank import DGNBank
from deepcustom.base.params import EvaluateParams
from deepcustom.data.arrays import AdversarialSet
from deepcustom.evaluation.material import Adaptable, Lazy
from deepcustom.evaluation.score_store import ScoreStore
from deepcustom.evaluation.scoring import ScoringInputs, Testbed
from deepcustom.evaluation.sets import StoredSet
from deepcustom.evaluation.transfer import Network
from deepcustom.pipeline import provenance, workspace
from deepcustom.pipeline.load import load_classifier, load_split, to_device
from deepcustom.pipeline.provenance import dvc_md5
from deepcustom.pipeline.run import StageRun
from deepcustom.tracking.record import TRAINING, RunRecord

if TYPE_CHECKING:
    from deepcustom.data.datasets import DatasetSpec
    from deepcustom.training.compute import Compute


def score_inputs(
    stage: StageRun,
    spec: DatasetSpec,
    params: EvaluateParams,
    *,
    own: Network | None = None,
    quick: bool = False,
) -> ScoringInputs:
    """Read what the networks of a data set are scored on.

    Args:
        stage: reads.
        spec: the data set.
        params: which networks and sets, and all settings of the attacks.
        own: score this network instead.
        quick: leave out what only the slow protocols need.
    """
    bed = testbed(stage, spec, params)
    networks = load_networks(stage, spec, params.networks, bed.compute)
    sets = stored_sets(stage, spec, params.attacks)
    if quick:
        return ScoringInputs(bed, networks, sets, own=own)
    dgns = _dgns(stage, spec, params.adaptive.bank, bed.compute)
    reads = {} if own else _training_reads(stage, spec)
    return ScoringInputs(bed, networks, sets, dgns, own, reads)


def score_store(stage: StageRun, compute: Compute, run: str, code: str) -> ScoreStore:
    """Where the scores of a data set are kept.

    Args:
        stage: of the data set.
        compute: device and precision.
        run: the name of this kind of run; what its last run has used stays.
        code: a digest of all code that decides a score.
    """
    basis = {
        "code": code,
        "machine": provenance.machine() | compute.describe(),
        "processor": provenance.processor(),
        "packages": provenance.packages(),
    }
    return ScoreStore(stage.ws.scores(stage.dataset), basis, run)


def testbed(stage: StageRun, spec: DatasetSpec, params: EvaluateParams) -> Testbed:
    """Read the test split, and draw the images that are attacked."""
    threat, compute = stage.threat(), stage.compute()
    split = load_split(stage, spec, "test")
    return Testbed.of(
        split,
        _md5(stage, workspace.split(spec.name, "test")),
        spec=spec,
        params=params,
        threat=threat,
        compute=compute,
        seed=stage.seed,
    )


def stored_sets(stage: StageRun, spec: DatasetSpec, attacks: Iterable[str]) -> Iterator[StoredSet]:
    """Adversarial test sets, each read when its turn comes."""
    folders = {
        attack: stage.read(workspace.adversarial(spec.name, "test", attack)) for attack in attacks
    }
    return (
        StoredSet(attack, dvc_md5(folder), AdversarialSet.load(folder, spec))
        for attack, folder in folders.items()
    )


def load_networks(
    stage: StageRun, spec: DatasetSpec, names: Iterable[str], compute: Compute
) -> list[Network]:
    """Networks by their names in the tables."""
    found = []
    for name in names:
        net = load_classifier(stage, spec, name, compute)
        found.append(Network(name, _md5(stage, workspace.network(spec.name, name)), net))
    return found


def _dgns(stage: StageRun, spec: DatasetSpec, bank: str, compute: Compute) -> Lazy[Adaptable]:
    """A bank of DGNs, and the train split to adapt them on."""
    path = stage.read(workspace.bank(spec.name, bank))
    loaded = DGNBank.load(path, spec.name, spec.num_classes, compute.device)
    train = load_split(stage, spec, "train")
    md5 = {"bank": dvc_md5(path), "train": _md5(stage, workspace.split(spec.name, "train"))}
    return Lazy(md5, lambda: (loaded, to_device(train, compute)))


def _training_reads(stage: StageRun, spec: DatasetSpec) -> dict[str, list[str]]:
    """What every run that trained has read, by its record.

    Raises:
        InputError: a record cannot be read.
    """
    reads = {}
    for name in TRAINING:
        for file in sorted((stage.ws.runs / spec.name / name).rglob("run.json")):
            record = RunRecord.read(file.parent)
            reads[record.name] = list(record.inputs)
    return reads


def _md5(stage: StageRun, path: str) -> str:
    return dvc_md5(stage.ws.root / path)
