"""What runs in a process of Ray before the package is there: it travels by value, and unpacks the package.

So it uses nothing of the package by name. Ray can send code itself, but nodes on one machine share the folder
that it unpacks to, and one removes it while another still needs it.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGE = "deepcustom"
THREADS = {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "10000"}


def work(first: dict[str, Any], parcel: list[Any]) -> Any:
    """Do one task, in a process of Ray's.

    Args:
        first: ``packages``, name → version, which must be the same here; and ``strangers``, folders of the
            driver's machine that Ray put into the path of imports, where the code is not to come from.
        parcel: references to the code, to what all tasks share, and to the task's own arguments. Ray does not
            look for them in a list, so they are unpacked only when the code is there.

    Returns:
        What the task returned, with where it ran; or, in one line, why it was not done here.
    """
    import ray

    code, *rest = parcel
    if PACKAGE not in sys.modules:  # the first task of this process
        if why := refusal(first["packages"]):
            return f"node {ray.get_runtime_context().get_node_id()[:8]} {why}"
        unpack(ray.get(code), first["strangers"])
    from deepcustom.pipeline.cluster.perform import perform

    return perform(*(ray.get(one) for one in rest))


def refusal(packages: dict[str, str]) -> str | None:
    """What of ``packages`` is of another version here, in words; None if nothing is."""
    for name, version in packages.items():
        try:
            there = metadata.version(name)
        except metadata.PackageNotFoundError:
            return f"lacks {name} {version}"
        if there != version:
            return (
                f"has {name} {there} instead of {version}: its results would not be those of here"
            )
    return None


def unpack(code: bytes, strangers: list[str]) -> None:
    """Put the code, a zip archive, into a folder of its own, from which this process then imports.

    The folder is named by the archive's hash, belongs to this user alone, and stays: all tasks of the same
    code on this machine share it. What a cleaner of old files took from it is put back.
    """
    os.environ.update(THREADS)  # before torch is imported
    name = f"deepcustom-code-{os.getuid()}-{hashlib.sha256(code).hexdigest()[:24]}"
    folder = Path(tempfile.gettempdir(), name)
    folder.mkdir(0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user")
    with zipfile.ZipFile(io.BytesIO(code)) as archive:
        lacking = [one for one in archive.namelist() if not (folder / one).is_file()]
        if lacking:
            with tempfile.TemporaryDirectory(prefix=f".{name}-") as fresh:
                archive.extractall(fresh, lacking)
                for one in lacking:  # another task may do the same meanwhile
                    (folder / one).parent.mkdir(parents=True, exist_ok=True)
                    Path(fresh, one).replace(folder / one)
    sys.path[:] = [str(folder), *(path for path in sys.path if path not in ("", *strangers))]
    os.chdir(folder)


class Board:
    """Where tasks tell how they stand; an actor of Ray.

    If its process dies, Ray starts it again, empty: each task tells all of itself every time. How a task
    stands is a plain tuple here, since the package is not there.
    """

    def __init__(self) -> None:
        """Nothing is told yet."""
        self._news: dict[int, tuple[Any, ...]] = {}

    def tell(self, place: int, standing: tuple[Any, ...]) -> None:
        """A task begins, has made progress, or just lives."""
        self._news[place] = standing

    def news(self) -> dict[int, tuple[Any, ...]]:
        """How those tasks stand that told something since this was last asked."""
        found, self._news = self._news, {}
        return found
