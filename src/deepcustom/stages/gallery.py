"""Some images of each adversarial test set, for the page."""

from __future__ import annotations

from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.rows import adversarial_sets
from deepcustom.base.settings import GalleryParams
from deepcustom.data.arrays import AdversarialSet
from deepcustom.pipeline import workspace
from deepcustom.pipeline.gallery import choose, describe
from deepcustom.pipeline.load import load_classifier, load_dataset
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.workspace import Workspace
from deepcustom.training.weights import save_tensors


def run(ws: Workspace, subject: str) -> None:
    """Choose images of ``subject``: on which its target network fell, and on which it withstood."""
    with StageRun(ws, "gallery", subject) as stage:
        params = stage.settings(GalleryParams)
        compute = stage.compute()

        spec = load_dataset(stage)
        target_net = load_classifier(stage, "target", compute)
        sets = {
            name: AdversarialSet.load(
                stage.read(workspace.adversarial(subject, "test", name)), spec
            )
            for name in adversarial_sets(stage.tree, subject)
        }

        arrays, reduced = choose(sets, target_net, compute, params)
        eps = ThreatModel.of(stage.subject.threat).eps
        save_tensors(
            stage.write(workspace.gallery(subject)), arrays, describe(spec, eps, reduced, sets)
        )

        shown = sum(len(arrays[f"set.{name}.of"]) for name in sets)
        stage.log({"clean": len(arrays["clean.index"]), "adversarial": shown})
