"""Write beside the output, then rename: the output is complete or absent, whoever else writes it meanwhile.

Every call writes to a temporary name of its own, ``.NAME.WHO.partial``, which git and DVC ignore; WHO stands
for the machine, the process and the call. A folder that is being replaced is called
``.NAME.WHO.partial-old`` for a moment.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from deepcustom.base.errors import InputError, OutputError

STALE_SECONDS = 24 * 3600.0
"""A leftover whose process cannot be checked is removed after this long without a change."""

_NAME = re.compile(
    r"\.(?P<name>.+?)(\.(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)-\d+)?\.partial(?P<old>-old)?"
)
_COUNT = itertools.count()
_TAKEN = {errno.ENOTEMPTY, errno.EEXIST, errno.EISDIR, errno.ENOTDIR}
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


def replace_file(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``, completely or not at all; missing folders are created."""
    with beside(path) as partial:
        partial.write_bytes(content)


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A context for writing a file or folder, which gets the name ``path`` when the context succeeds.

    Yields:
        An unused path beside ``path``, to write to. If the context raises, what was written there is
        removed, and ``path`` stays as it was.

    Raises:
        OutputError: it cannot be written, for example because the disk is full.
    """
    partial = partial_of(path)
    try:
        with naming(path, partial):
            yield partial
            settle(partial, path)
    finally:
        remove(partial)


@contextmanager
def naming(path: Path, place: Path) -> Iterator[None]:
    """A context in which ``path`` is written at ``place``: what the system refuses is told in one line.

    The system names no file where a disk is full.

    Raises:
        OutputError: ``place``, or something below it, cannot be written.
    """
    try:
        yield
    except OSError as error:
        found = refused(path, place, error)
        if found is None:
            raise
        raise found from error


def refused(path: Path, place: Path, error: OSError) -> OutputError | None:
    """``error`` as one line that names ``path``, if it comes of writing ``place``; else None."""
    if error.filename is None:
        ours = error.errno in _NO_ROOM
    else:
        ours = Path(os.fsdecode(error.filename)).is_relative_to(place)
    shown = Path(*(final_of(Path(part)) for part in path.parts))
    return OutputError(f"{shown} cannot be written: {error.strerror or error}") if ours else None


def named(path: Path) -> Path:
    """A path in full, whose last part is the name that the user knows: links are not followed.

    A cache or a hub keeps a file under another name, without a suffix, and puts a link in its place.
    """
    return Path(os.path.normpath(path.absolute()))


def check_writable(folder: Path, what: str) -> None:
    """Refuse a folder in which nothing can be written, before hours of work go into what is to lie there.

    Args:
        folder: it need not exist yet; nothing is made.
        what: what to call it, such as ``--out``.

    Raises:
        InputError: in one line: it is a file, or cannot be made, or nothing can be written there.
    """
    there = folder
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        how = "is a file" if there.exists() else "is a link to nothing"
        raise InputError(f"{what} {folder}: {there} {how}, want a folder")
    try:
        with tempfile.TemporaryFile(dir=there) as probe:
            probe.write(b"x")
            probe.flush()
    except OSError as error:
        why = error.strerror or error
        raise InputError(f"{what} {folder}: nothing can be written in {there}: {why}") from None


def partial_of(path: Path) -> Path:
    """A path beside ``path`` for this call alone; leftovers of ended processes are removed first.

    Raises:
        OutputError: the folder of ``path`` cannot be made or read.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _tidy(path)
    except (FileExistsError, NotADirectoryError) as error:
        raise OutputError(f"{path} cannot be written: {error.filename} is no folder") from error
    except PermissionError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error
    who = f"{this_machine()}-{os.getpid()}-{next(_COUNT)}"
    return path.with_name(f".{path.name}.{who}.partial")


def final_of(path: Path) -> Path:
    """The final path of a path from :func:`partial_of`, for messages; any other path is returned as it is."""
    found = _NAME.fullmatch(path.name)
    return path.with_name(found["name"]) if found else path


def settle(partial: Path, path: Path) -> None:
    """Rename ``partial`` to ``path``, and remove what had that name.

    A file is replaced in one step. An older folder is renamed aside first; if another process puts its own
    folder there in between, that folder is renamed aside in turn. If this call is interrupted in between,
    the older folder gets its name back.
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
    """Try once; False if another process was quicker."""
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
    """Remove a file, a link or a whole folder, if it exists."""
    with suppress(FileNotFoundError):  # another process may remove it at the same time
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _tidy(path: Path) -> None:
    """Remove what ended processes left beside ``path``; a folder they renamed aside may get its name back."""
    for left in list(path.parent.iterdir()):
        found = _NAME.fullmatch(left.name)
        if not found or found["name"] != path.name:
            continue
        with suppress(OSError):  # another process may tidy up at the same time
            if _abandoned(left, found["machine"], found["pid"]):
                if found["old"] and not os.path.lexists(path):
                    left.rename(path)
                else:
                    remove(left)


def _abandoned(left: Path, machine: str | None, pid: str | None) -> bool:
    """Whether the process that wrote ``left`` has ended; if that cannot be checked, its age decides."""
    if pid and machine == this_machine() and os.name == "posix":
        try:
            os.kill(int(pid), 0)  # signal 0 only asks whether the process exists
        except ProcessLookupError:
            return True
        except PermissionError:  # it exists, and is another user's
            pass
        return False
    inside = left.rglob("*") if left.is_dir() and not left.is_symlink() else ()
    newest: float = max(file.lstat().st_mtime for file in (left, *inside))
    return time.time() - newest > STALE_SECONDS


@cache
def this_machine() -> str:
    """The machine or container that process ids belong to: 8 digits of a hash, which hide its name."""
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        space = ""
    text = f"{socket.gethostname()} {space}"
    return hashlib.sha256(text.encode()).hexdigest()[:8]
