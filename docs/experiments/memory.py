"""Peak memory of each stage on 20,000 and on 200,000 images.

Counted is anonymous memory: what a process has allocated, without pages that are mapped from files, which the
system takes back when it needs them. A thread reads it from ``/proc/PID/smaps_rollup`` ten times a second,
so this runs on Linux only. Run it anywhere; it works in a temporary folder and writes a CSV beside itself::

    python docs/experiments/memory.py
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

OUT = Path(__file__).with_suffix(".csv")
COUNTS = (20_000, 200_000)
TEST = 2_000
CLASSES = 10
STAGES = {
    "prepare": "prepare",
    "train_target": "train_target",
    "train_dgn": "train_dgn",
    "generate": "generate@images-nce-train",
    "hardening on a set": "adversarial_train@images-nce",
    "hardening, madry": "adversarial_train@images-madry",
    "evaluate": "evaluate",
}


def draw(folder: Path, count: int) -> None:
    """Grey images of 28 x 28 pixels: a bright square at a place that tells the class, in noise."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for part, number in (("train", count), ("test", TEST)):
        y = rng.integers(0, CLASSES, number).astype(np.uint8)
        x = rng.integers(0, 100, (number, 1, 28, 28), dtype=np.uint8)
        for label in range(CLASSES):
            row, column = divmod(label, 5)
            x[y == label, :, 4 + 10 * row : 12 + 10 * row, 5 * column : 5 * column + 6] += 120
        np.save(folder / f"x_{part}.npy", x)
        np.save(folder / f"y_{part}.npy", y)


def shrink(file: Path) -> None:
    """One epoch for everything, few steps, few attacked images: memory does not depend on them."""

    def shrunk(tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        few = {"epochs": 1, "max_iter": 2, "num_random_init": 1}
        return {k: min(v, few[k]) if k in few else shrunk(v) for k, v in tree.items()}

    tree = shrunk(yaml.safe_load(file.read_text()))
    evaluation = tree["recipes"]["every-protocol"]
    evaluation |= {"n": 100, "curves": {"n": 20, "radii": [0.0, 1.0], "steps": [1, 2]}}
    evaluation["autoattack"]["queries"] = 20
    file.write_text(yaml.safe_dump(tree, sort_keys=False))


def peak(words: list[str], folder: Path) -> tuple[int, float]:
    """Run a command; its peak of anonymous memory in bytes, with that of its children, and the seconds."""
    begun, most = time.monotonic(), 0
    process = subprocess.Popen(words, cwd=folder)
    while process.poll() is None:
        most = max(most, sum(anonymous(pid) for pid in family(process.pid)))
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} failed")
    return most, time.monotonic() - begun


def family(pid: int) -> list[int]:
    """A process and all that it started."""
    import psutil

    try:
        own = psutil.Process(pid)
        return [pid, *(child.pid for child in own.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def anonymous(pid: int) -> int:
    """Anonymous memory of a process, bytes."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


def measure(count: int, home: Path) -> dict[str, int]:
    """Stage → peak in bytes, for a project on ``count`` images."""
    scripts = Path(sys.executable).parent
    program = str(scripts / "deepcustom")
    draw(home / "drawn", count)
    init = [program, "init", "images", "--images", "drawn", "--network", "small", "--eps", "0.1"]
    subprocess.run([*init, "--name", "images"], cwd=home, check=True)
    project = home / "images"
    shrink(project / "params.yaml")
    os.environ["PATH"] = f"{scripts}{os.pathsep}{os.environ['PATH']}"
    found = {}
    for title, stage in STAGES.items():
        # What it needs first, then the stage alone, by its own command.
        subprocess.run([sys.executable, "-m", "dvc", "repro", stage], cwd=project, check=True)
        found[title], seconds = peak(command(stage), project)
        print(
            f"{count} images, {title}: {found[title] / 2**20:.0f} MiB, {seconds:.0f} s", flush=True
        )
    return found


def command(stage: str) -> list[str]:
    """The command of a stage of this project."""
    name, _, item = stage.partition("@")
    words = {
        "prepare": ["--dataset", "images"],
        "generate": ["--subject", "images", "--bank", "nce", "--split", "train"],
        "train_dgn": ["--subject", "images", "--bank", "nce"],
        "adversarial_train": ["--subject", "images", "--network", item.rpartition("-")[2]],
    }
    return ["deepcustom", name, *words.get(name, ["--subject", "images"])]


def main() -> None:
    """Measure both sizes, and write the table."""
    found = {}
    for count in COUNTS:
        with tempfile.TemporaryDirectory() as folder:
            found[count] = measure(count, Path(folder))
    with OUT.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("stage", *(f"mib_{count}" for count in COUNTS), "ratio"))
        for title in STAGES:
            few, many = (found[count][title] / 2**20 for count in COUNTS)
            table.writerow((title, f"{few:.0f}", f"{many:.0f}", f"{many / few:.2f}"))


if __name__ == "__main__":
    main()
