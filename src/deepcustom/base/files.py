"""Write beside, then rename: an output is there whole or not at all, whoever else writes it meanwhile.

What is being written has a name of its own for each process and call, ``.NAME.WHO.partial``, which git and
DVC ignore; the folder that makes way for a new one is called ``.NAME.WHO.partial-old`` for a moment.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

STALE_SECONDS = 24 * 3600.0
"""A leftover whose process cannot be looked for is removed once nothing in it has changed for so long."""

_NAME = re.compile(
    r"\.(?P<name>.+?)(\.(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)-\d+)?\.partial(?P<old>-old)?"
)
_COUNT = itertools.count()
_TAKEN = {errno.ENOTEMPTY, errno.EEXIST, errno.EISDIR, errno.ENOTDIR}


def replace_file(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``, made with its folders if need be, whole or not at all."""
    with beside(path) as partial:
        partial.write_bytes(content)


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Where to write a file or folder that takes the name ``path`` when the context ends well.

    Yields:
        A place beside ``path`` where nothing is yet. Where the context ends otherwise, it is removed, and
        ``path`` is left as it was.
    """
    partial = partial_of(path)
    try:
        yield partial
        settle(partial, path)
    finally:
        remove(partial)


def partial_of(path: Path) -> Path:
    """A place beside ``path`` that is this call's alone; what ended processes left there is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _tidy(path)
    who = f"{_machine()}-{os.getpid()}-{next(_COUNT)}"
    return path.with_name(f".{path.name}.{who}.partial")


def final_of(path: Path) -> Path:
    """What a place of :func:`partial_of` is to be called, for messages; any other path as it is."""
    found = _NAME.fullmatch(path.name)
    return path.with_name(found["name"]) if found else path


def settle(partial: Path, path: Path) -> None:
    """Give ``partial`` the name ``path``, in place of what has it.

    A file is replaced in one step. An older folder is renamed aside first; where another process puts a
    folder of its own there in between, that one makes way in its turn. Interrupted in between, the
    older one gets its name back.
    """
    old = partial.with_name(f"{partial.name}-old")
    try:
        while not _settled(partial, path, old):
            remove(old)
    except BaseException:
        if os.path.lexists(old) and not os.path.lexists(path):
            old.rename(path)
        raise
    finally:
        remove(old)


def _settled(partial: Path, path: Path, old: Path) -> bool:
    """One attempt; false where another process was quicker."""
    if path.is_dir() or (partial.is_dir() and os.path.lexists(path)):
        with suppress(FileNotFoundError):
            path.rename(old)
    try:
        partial.replace(path)
    except OSError as error:
        if error.errno not in _TAKEN:
            raise
        return False
    return True


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, where it is there."""
    with suppress(FileNotFoundError):  # another process may remove the same
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _tidy(path: Path) -> None:
    """Remove what processes that are gone left beside ``path``; a folder that made way comes back."""
    for left in list(path.parent.iterdir()):
        found = _NAME.fullmatch(left.name)
        if not found or found["name"] != path.name:
            continue
        with suppress(OSError):  # another process tidies the same
            if _abandoned(left, found["machine"], found["pid"]):
                if found["old"] and not os.path.lexists(path):
                    left.rename(path)
                else:
                    remove(left)


def _abandoned(left: Path, machine: str | None, pid: str | None) -> bool:
    """Whether nobody is at work on it: its process is gone; where that cannot be told, by its age."""
    if pid and machine == _machine() and os.name == "posix":
        try:
            os.kill(int(pid), 0)  # sends nothing, asks only
        except ProcessLookupError:
            return True
        except PermissionError:  # another user's
            pass
        return False
    inside = left.rglob("*") if left.is_dir() and not left.is_symlink() else ()
    newest: float = max(file.lstat().st_mtime for file in (left, *inside))
    return time.time() - newest > STALE_SECONDS


@cache
def _machine() -> str:
    """Which machine, or container, numbers of processes belong to: 8 digits that do not name it."""
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        space = ""
    text = f"{socket.gethostname()} {space}"
    return hashlib.sha256(text.encode()).hexdigest()[:8]
