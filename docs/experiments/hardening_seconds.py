"""How long each way of hardening takes, side by side in one run.

The script trains each network for two epochs on the whole train split, and does not score it on ``val``.
It trains one way after the other, in rounds; a figure is the ratio to ``madry`` within a round. Two
epochs are needed because a generator may learn only in the first half of a training. Run the script from
the project's top folder after ``dvc repro``, with nothing else running; it overwrites the CSV beside this
file.
"""

from __future__ import annotations

import csv
import time
from dataclasses import replace
from pathlib import Path

from hardening_seeds import COMPARED, SUBJECTS, Attackers, harden, read_attackers
from project import reading

from deepcustom.base.params import seed as base_seed
from deepcustom.pipeline.run import StageRun

OUT = Path(__file__).with_suffix(".csv")
ROUNDS, EPOCHS, WARMING = 3, 2, 2000


def seconds(stage: StageRun, known: Attackers, name: str, seed: int) -> float:
    """How long a training of few epochs takes."""
    began = time.monotonic()
    harden(stage, known, name, seed, epochs=EPOCHS)
    return time.monotonic() - began


def main() -> None:
    """Measure all ways after a warm-up on a few images, and write the table."""
    rows = []
    for subject in SUBJECTS:
        with reading(subject) as stage:
            seed = base_seed(stage.tree)
            known = read_attackers(stage, meets=False)
            x, y = known.val
            known = replace(known, val=(x[:0], y[:0]))
            few = replace(known, train=(known.train[0][:WARMING], known.train[1][:WARMING]))
            for name in COMPARED:
                seconds(stage, few, name, seed)
            for number in range(1, 1 + ROUNDS):
                for name in COMPARED:
                    took = seconds(stage, known, name, seed)
                    print(f"{subject} {name}, round {number}: {took:.2f} s", flush=True)
                    rows.append([subject, name, number, f"{took:.2f}"])
    with OUT.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["dataset", "network", "round", "seconds"])
        writer.writerows(rows)


if __name__ == "__main__":
    main()
