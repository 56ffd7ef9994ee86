"""The curves of a training that is under way, as far as its checkpoint has them.

A training saves what it has measured after each epoch but the last. Only the head of each file is read, so
that no weights are, and nothing of the training has to be loaded for it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

EPOCH = "epoch"
"""The name, in a checkpoint, of an epoch's state; other files are called by the part that they hold."""
_KEY = "deepcustom"
_LONGEST = 100 * 2**20  # bytes of a head, as the format allows


class Curves:
    """What the checkpoint of one training says.

    Args:
        folder: the checkpoint's; need not exist yet.
        since: seconds since 1970. A file that is older was left by an earlier run, perhaps with other
            settings, and is passed over; the same training writes it anew after its next epoch.

    Attributes:
        whole: name → values by step, as of the last call of :meth:`new`.
    """

    def __init__(self, folder: Path, since: float) -> None:
        self._folder, self._since = folder, since
        self._read: dict[Path, int] = {}
        self._sent: dict[str, int] = {}
        self.whole: dict[str, list[float]] = {}

    def new(self) -> list[tuple[str, int, float]]:
        """Name, step from 1, and value of every point that was not told before."""
        points = []
        for file in sorted(self._folder.rglob("*.safetensors")):
            for name, curve in self._changed(file).items():
                self.whole[name] = curve
                done = self._sent.get(name, 0)
                points += [
                    (name, step, curve[step - 1]) for step in range(done + 1, len(curve) + 1)
                ]
                self._sent[name] = max(done, len(curve))
        return points

    def _changed(self, file: Path) -> dict[str, list[float]]:
        """The curves of a file, under the names of the record, if it is new since the last look."""
        try:
            stamp = file.stat().st_mtime_ns
            if stamp < self._since * 1e9 or self._read.get(file) == stamp:
                return {}
            history = dict(_about(file).get("history", ()))
        except (
            OSError,
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
        ):  # it is just being replaced
            return {}
        self._read[file] = stamp
        parts = [*file.relative_to(self._folder).parent.parts, file.stem]
        front = "".join(f"{part}/" for part in parts if part != EPOCH)
        return {f"{front}{name}": curve for name, curve in history.items()}


def _about(file: Path) -> dict[str, Any]:
    """What a checkpoint's file says besides its tensors."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > _LONGEST:
            raise ValueError("no safetensors file")
        head = json.loads(opened.read(length))
    about: dict[str, Any] = json.loads(head["__metadata__"][_KEY])["about"]
    return about
