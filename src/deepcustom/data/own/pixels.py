"""One image: from a file or an array to uint8 pixels (C, H, W) of the form that its data set asks for.

The rule. EXIF's orientation is applied. Transparent pixels lie over white; palettes become colours. The image
is resized by Pillow's bicubic filter, which averages over all pixels where it makes an image smaller, until
it just covers the wanted size; then the centre is cut out. An image that has the size is left as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = npt.NDArray[np.uint8]

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm"),
)
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
_GREY = ("1", "L", "LA", "La")
_CLEAR = ("LA", "La", "PA", "RGBA", "RGBa")
_MODES = {1: "L", 3: "RGB"}


@dataclass(frozen=True)
class Form:
    """What images are brought to.

    Attributes:
        size: (H, W); None leaves each image's.
        channels: 1 or 3; None leaves each image's.
    """

    size: tuple[int, int] | None
    channels: int | None


def from_file(file: Path | BinaryIO, form: Form) -> Pixels:
    """The image in ``file``, uint8 (C, H, W).

    Raises:
        ValueError: it is no image that can be read, or is animated, or has more than 8 bits a channel.
        OSError: the file cannot be read, or is cut off.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file, formats=FORMATS) as image:
            return from_picture(image, form)
    except UnidentifiedImageError:
        raise ValueError(f"no readable image; formats: {', '.join(FORMATS)}") from None


def from_picture(image: Image, form: Form) -> Pixels:
    """As :func:`from_file`, for an image that Pillow has opened."""
    from PIL import ImageOps

    # A JPEG of a phone may carry a second picture (MPO): its first one is the image.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise ValueError(f"an animated image of {image.n_frames} frames")  # type: ignore[attr-defined]
    if image.mode[0] in "IF" or _deep(image):
        raise ValueError(f"more than 8 bits a channel (mode {image.mode}): save it with 8")
    image = _plain(ImageOps.exif_transpose(image), form.channels)
    if form.size is not None:
        image = _fitted(image, form.size)
    return _channels_first(np.asarray(image))


def from_array(array: Any, form: Form) -> Pixels:
    """An image uint8 (H, W), (H, W, C) or (C, H, W), as uint8 (C, H, W).

    Raises:
        ValueError: it has another dtype or shape.
    """
    from PIL import Image

    array = np.asarray(array)
    if array.dtype != np.uint8 or not _is_image(array):
        raise ValueError(
            f"{array.dtype} of shape {array.shape}, expected uint8 of shape (H, W), (H, W, C) or (C, H, W), "
            "C 1 or 3"
        )
    pixels = _channels_first(array)
    channels, *size = pixels.shape
    if form.size in (None, tuple(size)) and form.channels in (None, channels):
        return np.ascontiguousarray(pixels)
    flat = pixels[0] if channels == 1 else pixels.transpose(1, 2, 0)
    return from_picture(Image.fromarray(np.ascontiguousarray(flat)), form)


def _is_image(array: npt.NDArray[Any]) -> bool:
    if array.size == 0:
        return False
    return array.ndim == 2 or (
        array.ndim == 3 and (array.shape[2] in _MODES or len(array) in _MODES)
    )


def _channels_first(array: Pixels) -> Pixels:
    if array.ndim == 2:
        return array[np.newaxis]
    return array.transpose(2, 0, 1) if array.shape[2] in _MODES else array


def _deep(image: Image) -> bool:
    """Whether a file has 16 bits a channel, which Pillow would cut to 8 without a word."""
    tiles = getattr(image, "tile", ())
    return image.format in ("PNG", "TIFF") and any(";16" in str(tile[3]) for tile in tiles)


def _plain(image: Image, channels: int | None) -> Image:
    """The image in grey or in colours, without transparency."""
    from PIL.Image import alpha_composite, new

    mode = _MODES[channels or (1 if image.mode in _GREY else 3)]
    if image.mode in _CLEAR or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = alpha_composite(new("RGBA", layer.size, "white"), layer)
    return image if image.mode == mode else image.convert(mode)


def _fitted(image: Image, size: tuple[int, int]) -> Image:
    """``image``, resized until it just covers ``size`` (H, W), and its centre cut out: both in one step."""
    from PIL.Image import Resampling

    height, width = size
    if image.size == (width, height):
        return image
    scale = min(image.height / height, image.width / width)
    left, top = (image.width - width * scale) / 2, (image.height - height * scale) / 2
    box = (
        left,
        top,
        min(left + width * scale, image.width),
        min(top + height * scale, image.height),
    )
    return image.resize((width, height), Resampling.BICUBIC, box=box)
