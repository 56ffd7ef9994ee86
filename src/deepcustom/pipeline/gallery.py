"""Images for the page: chosen from the adversarial test sets, kept in one small file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepcustom.base.errors import InputError
from deepcustom.base.settings import GalleryParams
from deepcustom.report.web.subject import Gallery, Shown

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from deepcustom.data.arrays import AdversarialSet
    from deepcustom.data.datasets import DatasetSpec
    from deepcustom.training.compute import Compute
    from deepcustom.training.nets.base import Classifier

    Array = np.ndarray[Any, np.dtype[Any]]


def choose(
    sets: Mapping[str, AdversarialSet],
    target_net: Classifier,
    compute: Compute,
    params: GalleryParams,
) -> tuple[dict[str, Tensor], int]:
    """The arrays of the file, and by how much each side of the images was divided.

    Of each set and class they hold the first images, in the order of the test split, that the network gets
    right unchanged: some on which it fell, and some on which it withstood.

    Args:
        sets: attack → its adversarial test set.
        target_net: the network that they were made against, on ``compute.device``.
        compute: where to predict.
        params: how many.
    """
    import numpy as np
    import torch

    chosen = {name: _rows(one, target_net, compute, params) for name, one in sets.items()}
    index = np.unique(
        np.concatenate([np.zeros(0, np.int64), *(sets[n].index[r] for n, r in chosen.items())])
    )
    arrays: dict[str, Tensor] = {"clean.index": torch.from_numpy(index)}
    reduced = 1
    for name, one in sets.items():
        rows = chosen[name]
        x, x_adv, _ = one.take(rows).tensors()
        of = np.searchsorted(index, one.index[rows])
        _, reduced = small(x, params.size)
        if "clean.x" not in arrays:
            shape = small(x[:1] if len(x) else torch.zeros(1, *one.x.shape[1:]), params.size)[
                0
            ].shape
            arrays["clean.x"] = torch.zeros(len(index), *shape[1:], dtype=torch.uint8)
            arrays["clean.label"] = torch.zeros(len(index), dtype=torch.int64)
            arrays["clean.predicted"] = torch.zeros(len(index), dtype=torch.int64)
            arrays["clean.confidence"] = torch.zeros(len(index))
        predicted, confidence = _answers(x, target_net, compute)
        place = torch.from_numpy(of)
        arrays["clean.x"][place] = small(x, params.size)[0]
        arrays["clean.label"][place] = torch.from_numpy(one.y[rows].astype(np.int64))
        arrays["clean.predicted"][place] = predicted
        arrays["clean.confidence"][place] = confidence
        predicted, confidence = _answers(x_adv, target_net, compute)
        arrays[f"set.{name}.x"] = small(x_adv, params.size)[0]
        arrays[f"set.{name}.of"] = place
        arrays[f"set.{name}.predicted"] = predicted
        arrays[f"set.{name}.confidence"] = confidence
    return arrays, reduced


def _rows(
    one: AdversarialSet, target_net: Classifier, compute: Compute, params: GalleryParams
) -> Array:
    """The rows of a set that are shown, by class."""
    import numpy as np

    left = {
        (label, fell): params.per_class for label in range(params.classes) for fell in (True, False)
    }
    found: list[int] = []
    for begin in range(0, len(one), CHUNK):
        if not any(left.values()):
            break
        x, x_adv, y = one.take(slice(begin, begin + CHUNK)).tensors()
        before, after = (_answers(images, target_net, compute)[0] for images in (x, x_adv))
        for row, (label, clean, adversarial) in enumerate(
            zip(y.tolist(), before.tolist(), after.tolist(), strict=True)
        ):
            key = (label, adversarial != label)
            if clean == label and left.get(key):
                left[key] -= 1
                found.append(begin + row)
    rows = np.array(found, np.int64)
    return rows[np.argsort(one.y[rows], kind="stable")] if found else rows


CHUNK = 1000  # images


def _answers(x: Tensor, target_net: Classifier, compute: Compute) -> tuple[Tensor, Tensor]:
    """Predicted classes (N,) and their softmax probabilities (N,)."""
    import torch

    from deepcustom.training.prediction import predict

    if not len(x):
        return torch.zeros(0, dtype=torch.int64), torch.zeros(0)
    shares = predict(target_net, x.to(compute.device)).float().softmax(1).cpu()
    confidence, label = shares.max(1)
    return label, confidence


def small(x: Tensor, size: int) -> tuple[Tensor, int]:
    """Images as uint8, each side divided by the least whole number that makes both ``size`` or less.

    Args:
        x: float32 (N, C, H, W) in [0, 1].
        size: the longest side that an image may have, in pixels.
    """
    import torch
    import torch.nn.functional as F

    by = -(-max(x.shape[2:]) // size)
    if by > 1:
        x = F.avg_pool2d(x, by, ceil_mode=True) if len(x) else x[..., ::by, ::by]
    return (x * 255).round().clamp(0, 255).to(torch.uint8), by


def describe(
    spec: DatasetSpec, eps: float, reduced: int, sets: Mapping[str, Any]
) -> dict[str, Any]:
    """What the file says besides arrays."""
    return {
        "title": spec.title,
        "classes": list(spec.classes),
        "eps": eps,
        "reduced": reduced,
        "sets": list(sets),
    }


def read_gallery(path: Path) -> Gallery | None:
    """Read what the stage wrote; None if it holds no image.

    Raises:
        InputError: the file is none of this kind.
    """
    from deepcustom.training.weights import load_tensors

    tensors, about = load_tensors(path)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    try:
        if not about["sets"] or not len(arrays["clean.index"]):
            return None
        return Gallery(
            title=about["title"],
            x=arrays["clean.x"],
            label=arrays["clean.label"],
            predicted=arrays["clean.predicted"],
            confidence=arrays["clean.confidence"],
            index=arrays["clean.index"],
            sets={name: _shown(arrays, f"set.{name}.") for name in about["sets"]},
            classes=about["classes"],
            eps=float(about["eps"]),
            reduced=int(about["reduced"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a file of `deepcustom gallery`: {error!r}") from None


def _shown(arrays: Mapping[str, Array], begin: str) -> Shown:
    names = ("x", "of", "predicted", "confidence")
    return Shown(*(arrays[begin + name] for name in names))
