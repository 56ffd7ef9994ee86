"""A project with what a clone has: the committed reports, and small made-up images and analyses."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import Tensor

from deepcustom.training.weights import save_tensors

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("results", "curves", "checks", "pairs")
CLASSES = 10


def small_project(folder: Path) -> Path:
    """The reports of this repository, but as if cifar10 had not been evaluated, with images for mnist."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("dvc.yaml", "dvc.lock", "params.yaml"):
        shutil.copy(ROOT / name, folder)
    for kind in KINDS:
        (folder / "reports" / kind).mkdir(parents=True)
        for file in (ROOT / "reports" / kind).glob("mnist.*"):
            shutil.copy(file, folder / "reports" / kind)
    for kind in ("training", "runs"):
        shutil.copytree(
            ROOT / "reports" / kind / "mnist",
            folder / "reports" / kind / "mnist",
            ignore=shutil.ignore_patterns("*.png"),
        )
    save_gallery(folder / "data/gallery/mnist.safetensors")
    save_analyses(folder / "data/analysis/mnist")
    return folder


def save_gallery(path: Path, *, channels: int = 1, size: int = 28, classes: int = CLASSES) -> None:
    """Two sets over a clean image of each class: on every other one the network fell."""
    drawn = torch.Generator().manual_seed(1)
    shape = (classes, channels, size, size)
    clean = torch.randint(0, 256, shape, generator=drawn, dtype=torch.uint8)
    labels, sure = torch.arange(classes), torch.full((classes,), 0.9)
    arrays: dict[str, Tensor] = {
        "clean.x": clean,
        "clean.label": labels,
        "clean.predicted": labels,
        "clean.confidence": sure,
        "clean.index": torch.arange(classes) * 7,
    }
    for number, name in enumerate(("nce", "pgd")):
        change = torch.randint(-76, 77, shape, generator=drawn)
        arrays[f"set.{name}.x"] = (clean.int() + change).clamp(0, 255).to(torch.uint8)
        arrays[f"set.{name}.of"] = labels
        arrays[f"set.{name}.predicted"] = (labels + (labels + number) % 2) % classes
        arrays[f"set.{name}.confidence"] = sure
    about = {
        "title": "MNIST",
        "classes": [str(label) for label in range(classes)],
        "eps": 0.3,
        "reduced": 1,
        "sets": ["nce", "pgd"],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(path, arrays, about)


def save_analyses(folder: Path) -> None:
    """Relevance of pixels, and suspicious units in two layers."""
    drawn = torch.Generator().manual_seed(2)
    relevance = torch.randn(CLASSES, 1, 28, 28, generator=drawn)
    pixels = relevance.flatten(1).topk(5).indices
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / "relevance.safetensors", {"relevance": relevance, "pixels": pixels}, {})
    scores = {f"scores.dense{n}": torch.rand(CLASSES, 8, generator=drawn) for n in (1, 2)}
    marked = {name.replace("scores", "suspicious"): one > 0.6 for name, one in scores.items()}
    failures = {"failures": torch.arange(CLASSES)}
    save_tensors(folder / "suspiciousness.safetensors", {**scores, **marked, **failures}, {})
