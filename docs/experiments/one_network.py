"""How long the evaluation of one hardened CIFAR-10 network takes, and its parts.

It attacks the network as ``deepcustom evaluate --network FILE --with-siblings`` does, but for the protocol
transfer, whose images are made once for all networks. Run this script from the project's top folder after
``make evaluate``, with no other work on the machine; it keeps no score, and writes a CSV beside this file.
"""

from __future__ import annotations

import csv
import time
from pathlib import Path

import torch
from project import reading

from deepcustom.base.rows import networks
from deepcustom.base.settings import EvaluateParams
from deepcustom.evaluation.material import Lazy
from deepcustom.evaluation.score_store import ScoreStore
from deepcustom.evaluation.scoring import Scores, ScoringInputs, score
from deepcustom.pipeline.dgns import load_dgns
from deepcustom.pipeline.load import labelled, load_dataset, load_split
from deepcustom.pipeline.score_inputs import load_networks, testbed

OUT = Path(__file__).with_suffix(".csv")
SUBJECT, NETWORK = "cifar10", "madry"


def evaluate() -> tuple[Scores, float]:
    """Score the network as one that a user brings, with its siblings; also the seconds it takes."""
    with reading(SUBJECT) as stage:
        spec, params = load_dataset(stage), stage.settings(EvaluateParams)
        bed = testbed(stage, spec, params)
        known = load_networks(stage, networks(stage.tree, SUBJECT), bed.compute)
        (own,) = (one for one in known if one.name == NETWORK)
        bank = load_dgns(stage, spec, params.adaptive.bank, bed.compute)
        train = load_split(stage, spec, "train")
        dgns = Lazy({}, lambda: (bank, labelled(train, bed.compute)))
        begin = time.monotonic()
        found = score(ScoringInputs(bed, known, [], dgns, own), ScoreStore())
        return found, time.monotonic() - begin


def main() -> None:
    """Measure, and write the table."""
    found, whole = evaluate()
    parts: dict[str, float] = {}
    for name, seconds in found.seconds.items():
        _, protocol, attack = name.split("/")
        part = attack if attack == "square" else protocol
        parts[part] = parts.get(part, 0.0) + seconds
    parts["images of other networks, curves, checks"] = whole - sum(parts.values())
    parts["everything"] = whole
    parts["everything but square"] = whole - parts["square"]
    with OUT.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["part", "seconds", "threads", "capability"])
        capability = torch.backends.cpu.get_cpu_capability()
        for part, seconds in parts.items():
            table.writerow([part, f"{seconds:.0f}", torch.get_num_threads(), capability])


if __name__ == "__main__":
    main()
