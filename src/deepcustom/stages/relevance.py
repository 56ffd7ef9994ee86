"""Which pixels each class depends on."""

from __future__ import annotations

import math

from deepcustom.attacks.relevance import class_relevance, top_pixels
from deepcustom.base.errors import ParamsError
from deepcustom.base.settings import RelevanceParams
from deepcustom.pipeline import workspace
from deepcustom.pipeline.load import labelled, load_classifier, load_dataset, load_split
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.workspace import Workspace
from deepcustom.training.weights import save_tensors


def run(ws: Workspace, subject: str) -> None:
    """Find the most relevant pixels of each class of ``subject``, on the train split."""
    with StageRun(ws, "relevance", subject) as stage:
        params = stage.settings(RelevanceParams)
        compute = stage.compute()

        spec = load_dataset(stage)
        values = math.prod(spec.shape)
        if params.k > values:
            raise ParamsError(
                f"params.yaml: relevance.{subject}.k must be at most {values}, found {params.k}"
            )
        x, y = labelled(load_split(stage, spec, "train"), compute)
        target_net = load_classifier(stage, "target", compute)

        relevance = class_relevance(
            target_net, x, y, spec.num_classes, epsilon=params.epsilon, method=params.method
        )
        pixels = top_pixels(relevance, params.k)

        arrays = {"relevance": relevance, "pixels": pixels}
        save_tensors(stage.write(workspace.analysis(subject, "relevance")), arrays, {"k": params.k})

        positive = relevance.clamp(min=0).flatten(1)
        share = positive.gather(1, pixels).sum(1) / positive.sum(1)
        stage.log({f"class_{i}/share_of_relevance": float(value) for i, value in enumerate(share)})
