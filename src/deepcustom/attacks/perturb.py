"""Perturbs a split of any size chunk by chunk: each chunk is verified, scored and written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deepcustom.attacks.chunks import Chunks, Maker, predictions
from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.progress import Advance, silent
from deepcustom.data.arrays import AdversarialSet, Array, SetWriter, Split, release
from deepcustom.data.datasets import DatasetSpec
from deepcustom.training.compute import Compute
from deepcustom.training.engine import Engine, in_order
from deepcustom.training.nets.base import Classifier

Perturb = Callable[[Tensor, Tensor, int], Tensor]
"""(x, y, start) → x_adv: perturbs images (n, C, H, W) with labels (n,), the rows from ``start`` on."""


_MOST = 2**26  # bytes of a chunk's images as float32


def chunk_size(wanted: int, shape: tuple[int, ...], batch: int) -> int:
    """How many images of ``shape`` a chunk should have: ``wanted`` at most, whole batches, one at least."""
    fit = _MOST // (4 * math.prod(shape))
    return max(min(wanted, fit) // batch, 1) * batch


@dataclass(frozen=True)
class SplitAttack:
    """An attack that is ready to run on a split, and which of its images are kept.

    Attributes:
        perturb: called with each chunk in turn, on ``compute.device``: images float32 in [0, 1], their
            true labels int64, and the chunk's first row. Returns as many images of the same shape,
            and leaves its arguments unchanged.
        target_net: the network whose predictions count; on ``compute.device``.
        threat: checked for every image.
        compute: where ``perturb`` and ``target_net`` run.
        only_changed: keep only images whose predicted class the perturbation changed.
        chunk: images at a time.
        maker: what an engine is given in place of ``perturb``; None: all is done here.
    """

    perturb: Perturb
    target_net: Classifier
    threat: ThreatModel
    compute: Compute
    only_changed: bool
    chunk: int = 2000
    maker: Maker | None = None


@dataclass(frozen=True)
class Effect:
    """What an attack did to the predictions, and how far it moved the images.

    Attributes:
        images: how many images the set holds. All other values cover every image of the split, kept or
            not, and are nan where there is none.
        clean_accuracy: share that the target network gets right before the attack.
        target_accuracy: share that it gets right after the attack.
        attack_success_rate: of the images right before, the share that is wrong after.
        predictions_changed: share whose predicted class differs before and after.
        mean_linf: mean of the largest change of a pixel.
        mean_l2: mean of the change's Euclidean length.
    """

    images: int
    clean_accuracy: float
    target_accuracy: float
    attack_success_rate: float
    predictions_changed: float
    mean_linf: float
    mean_l2: float


def perturb_split(
    split: Split,
    spec: DatasetSpec,
    folder: Path,
    attack: SplitAttack,
    advance: Advance = silent,
    engine: Engine | None = None,
) -> Effect:
    """Make an adversarial set; the memory it takes depends on the attack's ``chunk``, not on the split.

    Args:
        split: the clean images; they may be mapped from files.
        spec: the data set.
        folder: where the set's files are written.
        attack: makes the images.
        advance: called after every chunk with the number of its images; or told how tasks stand.
        engine: makes the chunks elsewhere, as tasks; None: they are made here. Either way they are verified
            and written here, in their order.

    Returns:
        The effect.

    Raises:
        ThreatModelError: an image lies outside the threat model; then no file is written to ``folder``.
    """
    tally, device = _Tally(), attack.compute.device
    elsewhere: Iterator[tuple[Array, Array, Array]] | None = None
    if engine is not None and attack.maker is not None:
        chunks = Chunks(split, attack.chunk)
        elsewhere = in_order(engine.do(attack.maker, chunks, advance))
    with SetWriter(folder, spec) as writer:
        for start in range(0, len(split), attack.chunk):
            # Perturb one chunk, and check it.
            clean = split.take(slice(start, start + attack.chunk))
            x, y = (tensor.to(device) for tensor in clean.tensors())
            x = x.to(memory_format=torch.channels_last)
            if elsewhere is None:
                x_adv, told = attack.perturb(x, y, start).detach().to(device, torch.float32), None
            else:
                x_adv, *told = (torch.tensor(array, device=device) for array in next(elsewhere))
            stored = x_adv.cpu().contiguous().numpy()
            attack.threat.verify(stored, clean.x)
            before, after = told or predictions(attack.target_net, x, x_adv)
            # Write the images to keep, and count the effect on all.
            made = AdversarialSet(x=clean.x, x_adv=stored, y=clean.y, index=clean.index)
            if attack.only_changed:
                made = made.take(np.flatnonzero((before != after).cpu().numpy()))
            writer.append(made)
            tally.add(len(made), x, x_adv, y, before, after)
            release(split.x, split.y, split.index)
            if elsewhere is None:
                advance(steps=len(clean))
    return tally.effect()


class _Tally:
    """Counts over all chunks, and sums in float64."""

    def __init__(self) -> None:
        self._kept = self._images = self._right = self._still = self._fooled = self._changed = 0
        self._linf = self._l2 = 0.0

    def add(
        self, kept: int, x: Tensor, x_adv: Tensor, y: Tensor, before: Tensor, after: Tensor
    ) -> None:
        """Add one chunk: how many images were kept, images (n, C, H, W), labels and predictions (n,)."""
        right = before == y
        change = (x_adv - x).flatten(1)
        self._kept += kept
        self._images += len(y)
        self._right += int(right.sum())
        self._still += int((after == y).sum())
        self._fooled += int((right & (after != y)).sum())
        self._changed += int((before != after).sum())
        self._linf += float(torch.linalg.vector_norm(change, torch.inf, dim=1).double().sum())
        self._l2 += float(torch.linalg.vector_norm(change, dim=1).double().sum())

    def effect(self) -> Effect:
        """The effect over all chunks."""
        n = self._images
        return Effect(
            images=self._kept,
            clean_accuracy=_share(self._right, n),
            target_accuracy=_share(self._still, n),
            attack_success_rate=_share(self._fooled, self._right),
            predictions_changed=_share(self._changed, n),
            mean_linf=_share(self._linf, n),
            mean_l2=_share(self._l2, n),
        )


def _share(total: float, count: int) -> float:
    return total / count if count else float("nan")
