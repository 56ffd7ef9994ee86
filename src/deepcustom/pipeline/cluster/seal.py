"""The code that tasks run, and what must be the same where they run."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from deepcustom.pipeline import provenance


@dataclass(frozen=True)
class Seal:
    """What must be the same where a task runs: the code, and the versions of packages.

    Attributes:
        code: hash of the package's files, and of the user's own.
        packages: name → version.
    """

    code: str
    packages: Mapping[str, str]

    @classmethod
    def of_code(cls, code: bytes) -> Seal:
        """Of the code in a zip archive, and the packages of this process."""
        with zipfile.ZipFile(io.BytesIO(code)) as archive:
            return cls.of({name: archive.read(name) for name in archive.namelist()})

    @classmethod
    def of_files(cls, files: Mapping[Path, str]) -> Seal:
        """Of files, each with its place in the code, and the packages of this process."""
        return cls.of({place: path.read_bytes() for path, place in files.items()})

    @classmethod
    def of(cls, files: Mapping[str, bytes]) -> Seal:
        """Of the content of files, by their places."""
        digest = hashlib.sha256()
        for place, content in sorted(files.items()):
            digest.update(f"{place} {hashlib.sha256(content).hexdigest()}\n".encode())
        return cls(digest.hexdigest(), provenance.packages())

    def differs(self, other: Seal) -> str | None:
        """What differs, in words; None if nothing does."""
        for name, version in self.packages.items():
            there = other.packages.get(name)
            if there != version:
                return f"{name} {there} instead of {version}"
        return None if self.code == other.code else "other code"


def packed(root: Path, own: Iterable[str]) -> bytes:
    """The code that tasks run, a zip archive: the package as this process loaded it, and the user's own.

    Args:
        root: the project.
        own: files and folders of the user's own code, relative to it.
    """
    import deepcustom

    package = Path(deepcustom.__file__).parent
    files = {path.relative_to(package.parent).as_posix(): path for path in code_files(package)}
    for name in own:
        files |= {path.relative_to(root).as_posix(): path for path in code_files(root / name)}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
        for place, path in sorted(files.items()):
            made.writestr(
                zipfile.ZipInfo(place), path.read_bytes()
            )  # without times: same code, same archive
    return archive.getvalue()


def code_files(place: Path) -> list[Path]:
    """The files at ``place``, a file or a folder, without what Python caches."""
    found = [place] if place.is_file() else sorted(place.rglob("*"))
    return [path for path in found if path.is_file() and "__pycache__" not in path.parts]
