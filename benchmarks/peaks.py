"""What the machine can do at best, and what share of that the DGNs reach."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import making, training
from benchmarks.race import Contender
from benchmarks.worker import Work

SIZES, QUICK_SIZES = (2048, 4096), (128,)
PRECISIONS = ("bfloat16", "float32")


def settings(quick: bool) -> dict[str, Any]:
    """What the figures depend on."""
    return {"sizes": list(QUICK_SIZES if quick else SIZES)}


def contenders(root: Path, datasets: Sequence[str], quick: bool) -> list[Contender]:
    """Matrix products of each precision and size, and each data set's DGNs making and training."""
    found = [
        Contender(
            f"{precision}-{size}",
            f"matrix product, {precision}, {size}",
            "benchmarks.peaks:product",
            {"size": size, "precision": precision},
        )
        for precision in PRECISIONS
        for size in settings(quick)["sizes"]
    ]
    for dataset in datasets:
        many = making.settings(dataset, quick)["images"]["dgn"]
        count = training.settings(dataset, quick)["images"]
        common = {"root": str(root), "dataset": dataset}
        found += [
            Contender(
                f"making-{dataset}",
                f"making images, {dataset}",
                "benchmarks.peaks:generate",
                {**common, "images": many},
            ),
            Contender(
                f"training-{dataset}",
                f"training (nce), {dataset}",
                "benchmarks.peaks:train",
                {**common, "images": count},
            ),
        ]
    return found


def product(size: int, precision: str) -> Work:
    """One product of two square matrices: 2 * size^3 operations."""
    import torch

    kind = getattr(torch, precision)
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(size, size, generator=draw).to(kind) for _ in range(2))
    out = torch.empty(size, size, dtype=kind)
    return Work(lambda: torch.matmul(a, b, out=out), 2 * size**3)


def generate(root: str, dataset: str, images: int) -> Work:
    """As :func:`benchmarks.making.dgn`, and what an image costs."""
    work = making.dgn(root, dataset, images, images)
    return _costed(work, dataset, 1)


def train(root: str, dataset: str, images: int) -> Work:
    """As :func:`benchmarks.training.project` with nce; backward counts as two forwards."""
    work = training.project(root, dataset, images, "nce")
    return _costed(work, dataset, 3)


def _costed(work: Work, dataset: str, passes: int) -> Work:
    flops = passes * forward_flops(dataset)
    return Work(work.call, work.count, lambda made: {**work.judge(made), "flops": flops})


def forward_flops(dataset: str) -> int:
    """Floating-point operations of a DGN's forward pass on one image.

    Counted by torch's FlopCounterMode on the plain network: convolutions alone, two operations for each
    multiplication and addition; a transposed convolution multiplies every input by the whole kernel,
    and zeros that an implementation may put between or around count nothing.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from benchmarks.plain import generator
    from deepcustom.data.sources import find_source

    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        generator(dataset).eval()(torch.zeros(1, *find_source(dataset).spec.shape))
    return int(counter.get_total_flops())
