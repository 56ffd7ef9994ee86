"""Images that stay in their file: a batch is read when it is needed, however many there are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, overload

import numpy as np

from deepcustom.data.arrays import Array, images

if TYPE_CHECKING:
    import torch
    from torch import Tensor

RESIDENT = 2**31  # bytes: images up to this size are held on a GPU, so that they travel once


@dataclass(frozen=True, eq=False)
class MappedImages:
    """Images (N, C, H, W) of a split or an adversarial set, read where they are needed.

    They are indexed like a tensor. Rows by number or by a slice are read: float32 in [0, 1] on the device,
    as :func:`deepcustom.data.arrays.images` makes them. A mask (N,) bool chooses images, and reads none.

    Attributes:
        array: uint8 in 0..255, or float32 in [0, 1], (M, C, H, W); it may be mapped from a file.
        device: where images are put.
        rows: (N,) int64, which images of ``array`` these are; None: all.
        held: the array on a GPU, if it is small enough.
    """

    array: Array
    device: torch.device
    rows: Array | None = None
    held: Tensor | None = None

    @classmethod
    def on(cls, array: Array, device: torch.device) -> MappedImages:
        """The images of ``array``, held on a GPU where they are small enough."""
        import torch

        plain = np.asarray(array)  # a memory map's own class is slow to index
        small = device.type != "cpu" and plain.nbytes <= RESIDENT
        return cls(plain, device, None, torch.tensor(plain, device=device) if small else None)

    def __len__(self) -> int:
        return len(self.array if self.rows is None else self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return (len(self), *self.array.shape[1:])

    @overload
    def __getitem__(self, which: slice) -> Tensor: ...

    @overload
    def __getitem__(self, which: Tensor) -> Tensor | MappedImages: ...

    def __getitem__(self, which: slice | Tensor) -> Tensor | MappedImages:
        """The images of a slice, or of rows (n,) int64; or those of a mask (N,) bool, unread."""
        if isinstance(which, slice):
            return self._read(np.arange(*which.indices(len(self))))
        places = which.cpu().numpy()
        if places.dtype == bool:
            return replace(self, rows=self._of(np.flatnonzero(places)))
        return self._read(places)

    def _of(self, places: Array) -> Array:
        """Rows of the array, for places among these images."""
        return places if self.rows is None else self.rows[places]

    def _read(self, places: Array) -> Tensor:
        rows = self._of(places)
        if self.held is None:
            return images(self.array[rows]).to(self.device)
        import torch

        found = self.held[torch.from_numpy(rows).to(self.device)]
        return found.float().div_(255) if found.dtype == torch.uint8 else found


class Sliced(Protocol):
    """What gives images for a slice, such as a tensor."""

    def __getitem__(self, which: slice, /) -> Any: ...


def held(images: Sliced) -> Array:
    """The images as an array in memory, (N, C, H, W): uint8 in 0..255 where they are so in their file."""
    if isinstance(images, MappedImages):
        rows = images.rows
        return np.ascontiguousarray(images.array if rows is None else images.array[rows])
    found: Tensor = images[:]
    return found.cpu().numpy()
