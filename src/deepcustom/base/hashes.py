"""Hashes of files and folders, as DVC counts them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from deepcustom.base.errors import InputError


def dvc_md5(path: Path) -> str:
    """The hash that DVC gives a file or a folder; files in ``__pycache__`` are left out.

    Returns:
        32 hexadecimal digits; for a folder, those of its sorted list of files, followed by ``.dir``.

    Raises:
        InputError: a link in the folder leads to another folder: DVC leaves out what lies there, and would
            see no change of it.
    """
    if path.is_dir():
        below = list(path.rglob("*"))
        linked = next((one for one in below if one.is_symlink() and one.is_dir()), None)
        if linked is not None:
            raise InputError(
                f"{linked} is a link to a folder, and DVC would see no change of what lies there: put the "
                "files themselves here, or link to the whole folder where the project names it"
            )
        files = [file for file in below if file.is_file() and not _kept(file)]
        return listing_md5({file.relative_to(path).as_posix(): file_md5(file) for file in files})
    return file_md5(path)


def listing_md5(files: Mapping[str, str]) -> str:
    """The hash of a folder whose files are ``files``: path below it → md5."""
    entries = [{"md5": md5, "relpath": name} for name, md5 in sorted(files.items())]
    listing = json.dumps(entries, sort_keys=True).encode()
    return hashlib.md5(listing, usedforsecurity=False).hexdigest() + ".dir"


def _kept(file: Path) -> bool:
    return file.parent.name == "__pycache__"


def file_md5(path: Path) -> str:
    """The md5 of a file's bytes, 32 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
