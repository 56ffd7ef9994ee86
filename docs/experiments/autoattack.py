"""AutoAttack as a protocol of this project, and its authors' package called plainly, on the same networks.

Both attack the test images that the evaluation attacks, in batches of one size and with one seed, so
every verdict should be the same. Run this script from the project's top folder after ``dvc repro`` or ``make
evaluate``; it writes a CSV beside this file, a row as soon as it is known, and goes on after those that are
there. ``series`` is what stands against this project's own attacks, by the committed results.
"""

from __future__ import annotations

import csv
import time
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from project import reading
from pyautoattack import AutoAttack

from deepcustom.base.progress import silent
from deepcustom.base.settings import EvaluateParams
from deepcustom.evaluation.autoattack import PROTOCOL, SEED, autoattack
from deepcustom.evaluation.found import Evaluation
from deepcustom.evaluation.results import ALL, pivot, read_csv
from deepcustom.evaluation.score_store import Pieces
from deepcustom.evaluation.victim import Victim
from deepcustom.pipeline import workspace
from deepcustom.pipeline.load import load_dataset
from deepcustom.pipeline.score_inputs import load_networks, testbed

OUT = Path(__file__).with_suffix(".csv")
SUBJECTS, NETWORKS = ("mnist", "cifar10"), ("fgsm-art", "madry", "online")


@dataclass(frozen=True)
class Row:
    """One network."""

    dataset: str
    network: str
    network_md5: str
    images: int
    protocol_left: float
    plainly_left: float
    images_that_differ: int
    series_left: float
    gradients: int
    queries: int
    seconds: float


def measure(subject: str, name: str) -> Row:
    """Attack one network in both ways."""
    with reading(subject) as stage:
        params = stage.settings(EvaluateParams)
        auto = params.autoattack.model_copy(update={"version": "standard"})
        bed = testbed(stage, load_dataset(stage), params)
        (network,) = load_networks(stage, [name], bed.compute)
    victim: Victim = bed.victim(network, silent)
    found, pieces = Evaluation(), Pieces(victim, "")
    begin = time.monotonic()
    for attack in autoattack(victim, auto, found.stands):
        found.add(pieces.finding(attack))
    seconds = time.monotonic() - begin
    *_, ours = found.stands[PROTOCOL].values()

    plain = AutoAttack(
        victim.net, norm="Linf", eps=victim.threat.eps, seed=SEED, version="standard"
    )
    given = victim.x, victim.y
    _, answers = plain.run_standard_evaluation(*given, batch_size=auto.batch_size)
    theirs = answers == victim.y

    results = read_csv(Path(workspace.results(subject)))
    series = pivot(results, subject, "worst")[2][name, ALL]
    cost = found.spent(PROTOCOL)
    return Row(
        subject,
        name,
        network.md5,
        len(victim.x),
        float(ours.double().mean()),
        float(theirs.double().mean()),
        int((ours != theirs.cpu()).sum()),
        series.accuracy,
        cost.gradients,
        cost.queries,
        round(seconds),
    )


def main() -> None:
    """Measure what is lacking."""
    names = [field.name for field in fields(Row)]
    if not OUT.is_file():
        OUT.write_text(",".join(names) + "\n")
    with OUT.open(newline="") as file:
        there = {(row["dataset"], row["network"]) for row in csv.DictReader(file)}
    for subject in SUBJECTS:
        for network in NETWORKS:
            if (subject, network) not in there:
                row = measure(subject, network)
                print(row, flush=True)
                with OUT.open("a", newline="") as file:
                    csv.writer(file, lineterminator="\n").writerow(astuple(row))


if __name__ == "__main__":
    main()
