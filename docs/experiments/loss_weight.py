"""Reads the study of docs/study.md from its project: what each experiment of DVC measured.

Run it in the project's top folder, after the queue has ended. It reads the commits that DVC made of the
experiments, and the commit that they began from, and writes a CSV beside this file.
"""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from deepcustom.evaluation.results import ALL, CLEAN, Result, parse_csv

FILE = Path(__file__).with_suffix(".csv")
SUBJECT, BANK = "digits", "nce"
ROW = f"{SUBJECT}-{BANK}"
BASELINE = "baseline"
COLUMNS = {
    "experiment": "experiment",
    "mse_weight": "weight",
    "root_mse": "change of a pixel",
    "target_under_bank": "undefended, bank's images",
    "clean": "hardened, clean",
    "transfer": "hardened, transfer",
    "everything": "hardened, everything",
}
"""Column of the CSV → its head in the docs; the CSV has more."""


def main() -> None:
    """Read every experiment and write the CSV, by weight."""
    found = sorted(
        (read(name, rev) for name, rev in experiments()), key=lambda row: row["mse_weight"]
    )
    with FILE.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)


def experiments() -> list[tuple[str, str]]:
    """Name and commit of the baseline and of each experiment that began from it."""
    head = git("rev-parse", "HEAD").strip()
    refs = git("for-each-ref", "--format=%(refname)", f"refs/exps/{head[:2]}/{head[2:]}").split()
    return [(BASELINE, head), *((ref.rpartition("/")[2], ref) for ref in refs)]


def read(name: str, rev: str) -> dict[str, Any]:
    """What one experiment measured: accuracies in [0, 1], times in seconds."""
    params = yaml.safe_load(file_at(rev, "params.yaml"))
    content = file_at(rev, f"reports/results/{SUBJECT}.csv").encode()
    results = parse_csv(content, f"{name}: results")
    bank = json.loads(file_at(rev, f"reports/metrics/{SUBJECT}/train_dgn/{BANK}.json"))["metrics"]
    runs = {
        stage: json.loads(file_at(rev, f"reports/runs/{SUBJECT}/{place}/run.json"))["seconds"]
        for stage, place in {"train": f"train_dgn/{BANK}", "evaluate": "evaluate"}.items()
    }
    weight = float(params["train_dgn"][ROW]["options"]["mse_weight"])
    everything = one(results, BANK, "worst", ALL)
    return {
        "experiment": name,
        "mse_weight": weight,
        "root_mse": (bank["mse"] / weight) ** 0.5,
        "target_under_bank": one(results, "target", "transfer", BANK).accuracy,
        "clean": one(results, BANK, "transfer", CLEAN).accuracy,
        "transfer": one(results, BANK, "worst", "transfer").accuracy,
        "everything": everything.accuracy,
        "low": everything.ci_low,
        "high": everything.ci_high,
        "train_seconds": round(runs["train"]),
        "evaluate_seconds": round(runs["evaluate"]),
    }


def one(results: Iterable[Result], network: str, protocol: str, attack: str) -> Result:
    """The result of a network under an attack."""
    wanted = (network, protocol, attack)
    return next(r for r in results if (r.network, r.protocol, r.attack) == wanted)


def table(rows: Iterable[Mapping[str, str]]) -> str:
    """The table of the docs, of the rows of the CSV; accuracies in %."""
    lines = ["| " + " | ".join(COLUMNS.values()) + " |", "| --- |" + " ---: |" * (len(COLUMNS) - 1)]
    for row in rows:
        shares = [f"{100 * float(row[key]):.1f}" for key in list(COLUMNS)[3:]]
        cells = [
            row["experiment"],
            f"{float(row['mse_weight']):g}",
            f"{float(row['root_mse']):.3f}",
        ]
        lines.append("| " + " | ".join([*cells, *shares]) + " |")
    return "\n".join(lines)


def file_at(rev: str, path: str) -> str:
    """The content of a file in a commit."""
    return git("show", f"{rev}:{path}")


def git(*words: str) -> str:
    """Run git here, and return what it prints."""
    return subprocess.run(["git", *words], check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
    with FILE.open(newline="") as source:
        print(table(csv.DictReader(source)))
