"""Hashes of files and folders, as DVC counts them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def dvc_md5(path: Path) -> str:
    """The hash that DVC gives a file or a folder.

    Returns:
        32 hexadecimal digits; for a folder those of its sorted list of files, and ``.dir``.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        entries = [
            {"md5": file_md5(file), "relpath": file.relative_to(path).as_posix()} for file in files
        ]
        entries.sort(key=lambda entry: entry["relpath"])
        listing = json.dumps(entries, sort_keys=True).encode()
        return hashlib.md5(listing, usedforsecurity=False).hexdigest() + ".dir"
    return file_md5(path)


def file_md5(path: Path) -> str:
    """The md5 of a file's bytes, 32 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
