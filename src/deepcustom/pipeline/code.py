"""Which code a stage runs: the modules that its file imports, and those that they import in turn.

This module reads imports from the sources, at the top of a file and inside functions, and runs nothing.
A running stage also finds some code by its name: a loss, a user's own class. No import shows such code, so
the row in ``params.yaml`` names its file, and :func:`closure_of` says what that file needs.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import deepcustom
from deepcustom.base.errors import InputError, UnknownNameError
from deepcustom.base.hashes import file_md5

NAME = "deepcustom"
PREFIX = f"src/{NAME}/"
"""Where the package lies in a project that has its sources."""

FACE = "__init__"
"""A package's face: the file that Python runs when it imports the package."""
CUT: Mapping[str, str] = {
    FACE: "a face says what lives in its room and runs nothing: a test holds it to that",
    "cli": "hands the words of the command line on to a stage",
    "base.errors": "says in one line what is wrong",
    "base.experiment": "says which project an experiment's folder is a copy of",
    "base.settings": "refuses what is misspelt or out of range; it has no default, and changes no setting",
    "base.image_settings": "as base.settings, for rows of prepare",
    "base.files": "gives what was written its name; which bytes they are, others decide",
    "base.progress": "says how far the work is",
    "pipeline.code": "says which code a stage runs",
    "pipeline.template": "lists in dvc.yaml the code that each stage runs",
    "pipeline.code_lock": "says which code a stage ran when the lock was written",
    "pipeline.loaded": "compares the code that runs with the code that DVC hashes",
    "pipeline.provenance": "describes the commit and the machine, for the record",
    "pipeline.repro": "says which dvc repro started the stage, for the record",
    "report": "draws and prints; the stage report alone has pages and pictures for outputs",
    "tracking": "keeps records of runs, and shows them in MLflow",
}
"""Modules of the package, each with all modules below it, that decide no stage's output, and why."""
OUTPUTS = ("data", "models", "reports")
"""The folders of a project that hold no code."""
OWN = "own"
"""The folder of a project for the user's own code, with a folder for each kind of it."""
BY_NAME = {"training/nets/base.py": "training/nets", "pipeline/cards.py": "hardening"}
"""Modules that load others by a name in ``params.yaml``, and the folder whose modules they may load."""
KEPT = {
    "report": ("report", "base.settings"),
    "page": ("report", "base.settings"),
    "evaluate": ("tracking.record",),
}
"""Stage → modules of :data:`CUT` that do decide its output: evaluate looks up in the records what training
read, and report and page draw and print settings."""
BESIDE = {"report/web/page.py": "report/web/assets"}
"""Modules that lay the files of a folder into what they write; these files count as code."""


def closure(stage: str, package: Path | None = None) -> tuple[str, ...]:
    """The modules that ``stages/<stage>.py`` runs, itself among them, without :data:`CUT`.

    Args:
        stage: a stage's name.
        package: the package's folder; by default the one that Python loaded.

    Returns:
        Paths relative to the package's folder, with forward slashes, sorted.

    Raises:
        UnknownNameError: there is no such stage.
        InputError: a source cannot be read.
    """
    sources = _Sources(package or loaded_package())
    start = f"{PREFIX}stages/{stage}.py"
    if not sources.file(start).is_file():
        raise UnknownNameError("stage", stage, stages_of(sources.package))
    found = _walk(sources, start, stage)
    return tuple(path.removeprefix(PREFIX) for path in found)


def stages_of(package: Path) -> list[str]:
    """The stages that the package in a folder has, sorted."""
    return sorted(file.stem for file in (package / "stages").glob("[!_]*.py"))


def closure_of(path: str, root: Path | None = None) -> tuple[str, ...]:
    """The modules that a file runs, if a stage finds it by name: a loss, a user's own class.

    Args:
        path: relative to the project: ``src/deepcustom/...`` or a file of the user's own.
        root: the project. If it is None or lacks the package's sources, the package that Python loaded
            stands in for them.

    Returns:
        Paths relative to the project, ``path`` among them, without :data:`CUT`; sorted.

    Raises:
        InputError: a source cannot be read.
    """
    own = root / PREFIX if root else None
    return _walk(_Sources(own if own and own.is_dir() else loaded_package(), root), path, None)


def cut(path: str, stage: str | None = None) -> str | None:
    """Why a module decides no output of ``stage``; None where it may decide one.

    Args:
        path: relative to the package's folder.
        stage: its name; None stands for any stage that is not in :data:`KEPT`.
    """
    module = path.removesuffix(".py").replace("/", ".")
    if module.rpartition(".")[2] == FACE:
        return CUT[FACE]
    if any(_within(module, name) for name in KEPT.get(stage or "", ())):
        return None
    return next((why for name, why in CUT.items() if _within(module, name)), None)


def _within(module: str, name: str) -> bool:
    return f"{module}.".startswith(f"{name}.")


def code_digest(files: Mapping[str, str]) -> str:
    """One hash for many files.

    Args:
        files: path relative to the project (``src/deepcustom/...``) → md5.

    Returns:
        64 hexadecimal digits (SHA-256).
    """
    return hashlib.sha256(json.dumps(dict(files), sort_keys=True).encode()).hexdigest()


def hashes(paths: Iterable[str], folder: Path) -> dict[str, str]:
    """Path relative to the project → md5, for files of the package in ``folder``.

    Args:
        paths: relative to the package's folder, as :func:`closure` gives them.
        folder: the package's folder.

    Raises:
        InputError: a file is missing.
    """
    found = {}
    for path in paths:
        if not (folder / path).is_file():
            raise InputError(f"{PREFIX}{path} is missing: `git checkout src` brings it back")
        found[PREFIX + path] = file_md5(folder / path)
    return found


def is_code(path: str, stage: str) -> bool:
    """Whether a path in a row of ``stage`` or in its part of ``dvc.lock`` is code.

    Code is Python, or a folder outside :data:`OUTPUTS`; ``prepare`` reads images from other folders.
    """
    name = path.rpartition("/")[2]
    if name.endswith(".py") or path.startswith(PREFIX):
        return True
    if stage == "prepare":
        return f"{path}/".startswith(f"{OWN}/data/")
    return "." not in name and path.partition("/")[0] not in OUTPUTS


def loaded_package() -> Path:
    """The folder that Python loaded this package from."""
    return Path(deepcustom.__file__).parent


def below(file: Path, root: Path) -> Path | None:
    """A file's path in the project, as Python found it there or where links lead; None if it is outside.

    A folder of code may be a link, as ``own/losses`` that several projects share: DVC hashes what lies there.
    """
    top = root.resolve()
    places = [top / file, top / file.resolve()]
    return next((one.relative_to(top) for one in places if one.is_relative_to(top)), None)


@dataclass(frozen=True)
class _Sources:
    """Where modules lie: the package's in ``package``, a user's own below ``root``."""

    package: Path
    root: Path | None = None

    def file(self, path: str) -> Path:
        """The file at ``path``, which is relative to the project."""
        if path.startswith(PREFIX) or self.root is None:
            return self.package / path.removeprefix(PREFIX)
        return self.root / path

    def find(self, module: str) -> str | None:
        """The path of a module or of a face; None if neither the package nor the user has it."""
        first, _, rest = module.partition(".")
        if first == NAME:
            folder, stem = PREFIX, rest.replace(".", "/")
        else:
            folder, stem = "", module.replace(".", "/")
            if self.root is None:
                return None
        stem = f"{folder}{stem}".rstrip("/")
        places = (f"{stem}.py", f"{stem}/{FACE}.py")
        return next((place for place in places if self.file(place).is_file()), None)

    def needs(self, path: str) -> Iterator[str]:
        """The paths of what ``path`` imports."""
        module = module_name(path)
        if not path.startswith(PREFIX):  # importing a user's module runs the faces above it
            faces = (self.find(".".join(folder.parts)) for folder in Path(path).parents)
            yield from (face for face in faces if face and not runs_nothing(self.file(face)))
        if not path.endswith(".py"):
            return
        if folder := BESIDE.get(path.removeprefix(PREFIX)):
            files = sorted((self.package / folder).iterdir())
            yield from (PREFIX + file.relative_to(self.package).as_posix() for file in files)
        if folder := BY_NAME.get(path.removeprefix(PREFIX)):
            files = sorted((self.package / folder).glob("[!_]*.py"))
            yield from (PREFIX + file.relative_to(self.package).as_posix() for file in files)
        for source, name in _imports(self.file(path), module, path.endswith(f"/{FACE}.py")):
            yield from self._from(source, name)

    def _from(self, source: str, name: str | None) -> Iterator[str]:
        """The paths behind ``from source import name`` (``name`` may be a module) or ``import source``."""
        inner = self.find(f"{source}.{name}") if name else None
        outer = self.find(source)
        if outer and outer.endswith(f"{FACE}.py") and outer.startswith(PREFIX) and not inner:
            homes = face_homes(self.file(outer))
            wanted = homes.values() if name == "*" else filter(None, [homes.get(name or "")])
            yield from (place for home in wanted if (place := self.find(home)))
        yield from filter(None, [inner, outer])


def _walk(sources: _Sources, start: str, stage: str | None) -> tuple[str, ...]:
    found, left = {start}, [start]
    while left:
        for path in sources.needs(left.pop()):
            ours = path.startswith(PREFIX)
            if path not in found and not (ours and cut(path.removeprefix(PREFIX), stage)):
                found.add(path)
                left.append(path)
    return tuple(sorted(found))


def module_name(path: str) -> str:
    """The name under which Python imports a path of the project."""
    inside = path.removeprefix("src/") if path.startswith(PREFIX) else path
    return inside.removesuffix(".py").removesuffix(f"/{FACE}").replace("/", ".")


def face_homes(file: Path) -> dict[str, str]:
    """Name → its module, for the names that a face hands on: the face's ``HOMES``, if it has one."""
    for node in _parse(file).body:
        names = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
        if any(isinstance(name, ast.Name) and name.id == "HOMES" for name in names):
            homes: dict[str, str] = ast.literal_eval(node.value)  # type: ignore[attr-defined]
            return homes
    return {}


def runs_nothing(file: Path) -> bool:
    """Whether a file holds at most a docstring, as most faces do."""
    tree = _parse(file)
    return len(tree.body) == (ast.get_docstring(tree, clean=False) is not None)


def _parse(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_bytes(), file.name)
    except (OSError, SyntaxError, ValueError) as error:
        why = " ".join(str(error).split())
        raise InputError(f"{file}: not readable as Python: {why}") from None


def _imports(file: Path, module: str, face: bool) -> tuple[tuple[str, str | None], ...]:
    """(module, name) for every ``from module import name`` of a file, (module, None) for every import."""
    stamp = file.stat() if file.is_file() else None
    key = (stamp.st_mtime_ns, stamp.st_size) if stamp else None
    return _imports_as_of(file, module, face, key)


@lru_cache(maxsize=1024)
def _imports_as_of(
    file: Path, module: str, face: bool, _: tuple[int, int] | None
) -> tuple[tuple[str, str | None], ...]:
    found = _Imports(module if face else module.rpartition(".")[0])
    found.visit(_parse(file))
    return tuple(dict.fromkeys(found.pairs))


class _Imports(ast.NodeVisitor):
    """Collects imports, except those in blocks for type checkers.

    Attributes:
        pairs: (module, name or None).
    """

    def __init__(self, package: str) -> None:
        self.package = package.split(".") if package else []
        self.pairs: list[tuple[str, str | None]] = []

    def visit_Import(self, node: ast.Import) -> None:
        self.pairs += [(alias.name, None) for alias in node.names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        above = self.package[: len(self.package) - node.level + 1] if node.level else []
        source = ".".join([*above, *filter(None, [node.module])])
        self.pairs += [(source, alias.name) for alias in node.names]

    def visit_If(self, node: ast.If) -> None:
        test = node.test
        name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
        if name == "TYPE_CHECKING":
            for other in node.orelse:
                self.visit(other)
        else:
            self.generic_visit(node)
