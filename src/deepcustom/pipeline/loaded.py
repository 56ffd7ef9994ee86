"""Compares the code that Python loaded with the code that DVC hashes."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from deepcustom.base.errors import InputError
from deepcustom.base.hashes import dvc_md5, file_md5
from deepcustom.pipeline.code import (
    NAME,
    OWN,
    PREFIX,
    below,
    closure,
    code_digest,
    cut,
    is_code,
    loaded_package,
    module_name,
    runs_nothing,
)
from deepcustom.pipeline.code_lock import LOCK, check_lock, has_sources, may_run
from deepcustom.pipeline.template import listed, own_code

INSTALLED = ("site-packages", "dist-packages")


def verify(root: Path, stage: str, more: Iterable[str] = ()) -> str:
    """Compare the code that a stage runs with the code that DVC hashes in the project.

    Python may load a copy from another folder, if the copy is the same byte for byte. In a project without
    the package's sources, this compares the package with ``deepcustom.lock``.

    Args:
        root: the project.
        stage: the stage's name.
        more: files and folders that the row names, relative to the project; those that are not code are
            ignored.

    Returns:
        The digest of that code.

    Raises:
        InputError: they differ. The message is one line: where Python loaded from, which file differs, and
            what to do.
    """
    return RunningCode(root, stage, more).digest


class RunningCode:
    """Watches the code of a stage from its start to its end.

    Attributes:
        digest: of that code.
    """

    def __init__(self, root: Path, stage: str, more: Iterable[str] = ()) -> None:
        """Compare, as :func:`verify` does."""
        self._root, self._stage = root, stage
        named = (path for path in more if is_code(path, stage))
        self._more = tuple(dict.fromkeys([*named, *own_code(root, stage)]))
        self._before = set(sys.modules)
        self._compare()
        self._listed()
        self._files = self._hashed()
        self.digest = code_digest(self._files)

    def check(self) -> None:
        """Compare again; call it when the stage has loaded what it needs, and at its end.

        Raises:
            InputError: a file changed meanwhile, or differs from what Python loaded, or Python loaded code
                that DVC does not hash for this stage.
        """
        files = self._hashed()
        changed = {path for path, _ in self._files.items() ^ files.items()}
        if changed:
            raise InputError(
                f"{_first(changed)} changed while {self._stage} ran, so it is unknown which code made its "
                "outputs; they are not kept: run it again"
            )
        self._compare()
        unseen = set(self._unseen())
        if unseen:
            folders = own_code(self._root, self._stage)
            move = f"move it into {folders[0]}, or " if folders else ""
            raise InputError(
                f"{self._stage} runs {_first(unseen)}, and DVC would not see a change of it: {move}"
                "name it as code or reads in its row of params.yaml"
            )

    def _listed(self) -> None:
        """Compare what the stage imports with the dependencies that ``dvc.yaml`` lists for it.

        Raises:
            InputError: they differ.
        """
        wanted = set(own_code(self._root, self._stage))
        if not wanted and not has_sources(self._root):
            return
        there = set(listed(self._root, self._stage, f"{OWN}/"))
        if has_sources(self._root):
            wanted |= {PREFIX + path for path in closure(self._stage)}
            there |= set(listed(self._root, self._stage))
        differing = wanted ^ there
        if differing:
            raise InputError(
                f"dvc.yaml does not list the code that {self._stage} runs, {_first(differing)}: "
                "`deepcustom upgrade` writes it anew"
            )

    def _package_files(self) -> Iterator[str]:
        """The package's code that the stage runs, as paths relative to the project."""
        yield from (PREFIX + path for path in closure(self._stage))
        yield from (path for path in self._more if path.startswith(PREFIX))

    def _own(self) -> list[str]:
        """The user's own code that the row names."""
        return [path for path in self._more if not path.startswith(PREFIX)]

    def _hashed(self) -> dict[str, str]:
        """Path → hash, computed as DVC does."""
        paths = self._own()
        if has_sources(self._root):
            locked, paths = {}, [*self._package_files(), *paths]
        else:
            locked = {LOCK: check_lock(self._root, self._stage)}
        there = {path: self._root / path for path in paths if (self._root / path).exists()}
        return locked | {path: dvc_md5(full) for path, full in there.items()}

    def _compare(self) -> None:
        """Compare what Python loaded with the project's files.

        Raises:
            InputError: they differ.
        """
        paths = self._own()
        if has_sources(self._root):
            paths += self._package_files()
        loaded = {path: file for path in paths if (file := _loaded(path))}
        differing = {
            path: file for path, file in loaded.items() if not _same(file, self._root / path)
        }
        if differing:
            first = min(differing)
            place = _place(differing[first], first)
            raise InputError(
                f"the code that runs is not the code that DVC hashes: Python loaded {place}, where "
                f"{_first(differing)} differs from this project's: `make setup` here, or PYTHONPATH=src"
            )

    def _unseen(self) -> Iterator[str]:
        """The files that Python loaded since the start and that DVC does not hash for this stage."""
        package = loaded_package().resolve()
        seen = set(self._package_files())
        if not has_sources(self._root):
            seen |= {PREFIX + path for path in may_run(self._stage)}
        for name in sys.modules.keys() - self._before:
            file = _source(name)
            if file is None:
                continue
            if file.is_relative_to(package):
                path = file.relative_to(package).as_posix()
                if PREFIX + path not in seen and not cut(path, self._stage):
                    yield PREFIX + path
                continue
            own = below(Path(str(sys.modules[name].__file__)), self._root)
            if own and not _installed(own, self._root.resolve()):
                named = any(one.as_posix() in self._more for one in (own, *own.parents))
                if not named and not runs_nothing(file):
                    yield own.as_posix()


def _loaded(path: str) -> Path | None:
    """The file that Python loaded ``path`` from, or would load it from if it belongs to the package."""
    if not path.endswith(".py"):
        return None
    file = _source(module_name(path))
    if file is None and path.startswith(PREFIX):
        return loaded_package() / path.removeprefix(PREFIX)
    return file


def _source(module: str) -> Path | None:
    """The source of a loaded module. Some of torch have none: their ``__file__`` does not exist."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if not isinstance(file, str) or not file.endswith(".py") or not Path(file).is_absolute():
        return None
    return Path(file).resolve() if Path(file).is_file() else None


def _same(one: Path, other: Path) -> bool:
    if not one.is_file() or not other.is_file():
        return False
    return one.samefile(other) or file_md5(one) == file_md5(other)


def _place(file: Path, path: str) -> Path:
    """The folder that a message names for ``file``: the package's for its files, else the file's own."""
    if path.startswith(PREFIX):
        return next((p for p in file.parents if p.name == NAME), file.parent)
    return file.parent


def _installed(path: Path, root: Path) -> bool:
    """Whether a ``path`` below ``root`` belongs to a Python environment that lies below ``root`` too."""
    prefixes = {Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()}
    inside = any(p.is_relative_to(root) and (root / path).is_relative_to(p) for p in prefixes)
    return inside or bool({*INSTALLED} & set(path.parts))


def _first(paths: Iterable[str]) -> str:
    """The first of some paths, and how many more there are."""
    first, *others = sorted(paths)
    return f"{first} (and {len(others)} more)" if others else first
