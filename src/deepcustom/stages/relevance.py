"""Which pixels each class depends on."""

from __future__ import annotations

from deepcustom.attacks.relevance import class_relevance, top_pixels
from deepcustom.base.errors import ParamsError
from deepcustom.base.params import RelevanceParams
from deepcustom.pipeline import workspace
from deepcustom.pipeline.load import load_classifier, load_dataset, load_split, to_device
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.workspace import Workspace
from deepcustom.training.weights import save_tensors


def run(ws: Workspace, dataset: str) -> None:
    """Find the most relevant pixels of each class of ``dataset``, on train."""
    with StageRun(ws, "relevance", dataset) as stage:
        params = stage.params(RelevanceParams)
        compute = stage.compute()
        spec = load_dataset(stage)
        values = spec.shape[0] * spec.shape[1] * spec.shape[2]
        if params.k > values:
            raise ParamsError(f"params.yaml: relevance.{dataset}.k must be at most {values}")

        x, y = to_device(load_split(stage, spec, "train"), compute)
        target_net = load_classifier(stage, spec, "target", compute)

        relevance = class_relevance(target_net, x, y, spec.num_classes, epsilon=params.epsilon)
        pixels = top_pixels(relevance, params.k)

        arrays = {"relevance": relevance, "pixels": pixels}
        save_tensors(stage.write(workspace.analysis(dataset, "relevance")), arrays, {"k": params.k})

        positive = relevance.clamp(min=0).flatten(1)
        share = positive.gather(1, pixels).sum(1) / positive.sum(1)
        stage.log({f"class_{i}/share_of_relevance": float(value) for i, value in enumerate(share)})
