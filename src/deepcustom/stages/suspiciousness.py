"""Which units the target network's failures point at."""

from __future__ import annotations

from deepcustom.attacks.suspiciousness import suspicious_units
from deepcustom.base.settings import SuspiciousnessParams
from deepcustom.pipeline import workspace
from deepcustom.pipeline.load import labelled, load_classifier, load_dataset, load_split
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.workspace import Workspace
from deepcustom.training.weights import save_tensors


def run(ws: Workspace, subject: str) -> None:
    """Find the most suspicious units for each class of ``subject``, on the train split."""
    with StageRun(ws, "suspiciousness", subject) as stage:
        params = stage.settings(SuspiciousnessParams)
        compute = stage.compute()

        spec = load_dataset(stage)
        x, y = labelled(load_split(stage, spec, "train"), compute)
        target_net = load_classifier(stage, "target", compute)

        found = suspicious_units(
            target_net,
            x,
            y,
            spec.num_classes,
            k=params.k,
            threshold=params.activation_threshold,
            formula=params.formula,
        )

        arrays = {f"suspicious.{layer}": mask for layer, mask in found.suspicious.items()}
        arrays |= {f"scores.{layer}": scores for layer, scores in found.scores.items()}
        arrays["failures"] = found.failures
        about = {"k": params.k, "formula": params.formula}
        save_tensors(stage.write(workspace.analysis(subject, "suspiciousness")), arrays, about)

        failures = found.failures.tolist()
        without = [spec.classes[label] for label, count in enumerate(failures) if count == 0]
        if without:
            print(f"no failure on train, so no spectrum, for: {', '.join(without)}")
        stage.log({f"class_{label}/failures": count for label, count in enumerate(failures)})
        stage.log({"classes_without_failures": len(without)})
