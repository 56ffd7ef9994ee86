"""Images as PNG data in the page: sheets for the gallery, and maps of relevant pixels."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deepcustom.report.web.subject import Gallery, Relevance

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

COLUMNS = 10
"""Images in a row of a sheet."""
COLD, HOT = (0, 90, 148), (193, 74, 0)
"""Colours of negative and of positive relevance."""


def data_uri(pixels: Array) -> str:
    """``pixels``, uint8 (H, W) or (H, W, 3), as a PNG in a ``data:`` address."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def sheet(x: Array) -> str:
    """Images (N, C, H, W), uint8, in rows of :data:`COLUMNS`, without gaps."""
    import numpy as np

    count, channels, height, width = x.shape
    rows = max(-(-count // COLUMNS), 1)
    whole = np.zeros((rows * COLUMNS, channels, height, width), np.uint8)
    whole[:count] = x
    grid = whole.reshape(rows, COLUMNS, channels, height, width).transpose(0, 3, 1, 4, 2)
    pixels = grid.reshape(rows * height, COLUMNS * width, channels)
    return data_uri(pixels[..., 0] if channels == 1 else np.ascontiguousarray(pixels))


def gallery(shown: Gallery, subject: str) -> dict[str, Any]:
    """What the page's script leafs through: sheets, and what the target network says of each image.

    Args:
        shown: the images; channels other than 1 or 3 are shown by their mean.
        subject: its name.
    """
    channels, height, width = shown.x.shape[1:]
    return {
        "subject": subject,
        "height": height,
        "width": width,
        "columns": COLUMNS,
        "eps": shown.eps,
        "classes": list(shown.classes),
        "clean": {
            "sheet": sheet(_drawable(shown.x)),
            "label": shown.label.tolist(),
            "predicted": shown.predicted.tolist(),
            "confidence": _shares(shown.confidence),
            "index": shown.index.tolist(),
        },
        "sets": {
            name: {
                "sheet": sheet(_drawable(one.x)),
                "of": one.of.tolist(),
                "predicted": one.predicted.tolist(),
                "confidence": _shares(one.confidence),
            }
            for name, one in shown.sets.items()
        },
        "grey": channels != 3,
    }


def _drawable(x: Array) -> Array:
    import numpy as np

    if x.shape[1] in (1, 3):
        return x
    grey: Array = np.rint(x.mean(1, keepdims=True)).astype(np.uint8)
    return grey


def _shares(values: Array) -> list[float]:
    return [round(float(value), 3) for value in values]


def relevance_maps(found: Relevance, classes: Sequence[str]) -> list[dict[str, str]]:
    """For each class: its name, a map of relevance, and its most relevant pixels, also in words."""
    import numpy as np

    maps = []
    for label, name in enumerate(classes):
        values = np.asarray(found.relevance[label], np.float64)
        size = values.shape[1] * values.shape[2]
        marked = np.zeros(values.shape[1:], bool)
        marked.flat[np.unique(np.asarray(found.pixels[label]) % size)] = True
        maps.append(
            {
                "name": name,
                "relevance": data_uri(_diverging(values.sum(0))),
                "pixels": data_uri(np.where(marked, 0, 235).astype(np.uint8)),
                "words": _where(marked),
            }
        )
    return maps


def _diverging(values: Array) -> Array:
    """(H, W, 3) uint8: white at 0, :data:`HOT` at the largest value, :data:`COLD` at minus that."""
    import numpy as np

    share = np.clip(values / (np.abs(values).max() or 1.0), -1, 1)[..., None]
    end = np.where(share > 0, np.array(HOT), np.array(COLD))
    pixels: Array = np.rint(245 + (end - 245) * np.abs(share)).astype(np.uint8)
    return pixels


def _where(marked: Array) -> str:
    """In which part of the image the marked pixels lie, in words."""
    import numpy as np

    if not marked.any():
        return "none"
    height, width = marked.shape
    rows, columns = (places.mean() for places in np.nonzero(marked))
    up = ("top", "middle", "bottom")[min(int(3 * rows / height), 2)]
    along = ("left", "centre", "right")[min(int(3 * columns / width), 2)]
    return f"{int(marked.sum())} pixels, on average in the {up} {along}"
