"""Lays down a project: settings, pipeline, lock, folders, git and DVC, all of it or nothing."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template

from deepcustom.base.errors import InputError, OutputError
from deepcustom.base.files import final_of, naming, partial_of, remove
from deepcustom.base.params import read_params
from deepcustom.pipeline import template
from deepcustom.pipeline.check import check
from deepcustom.pipeline.code_lock import write_lock
from deepcustom.pipeline.dvc import run_dvc
from deepcustom.pipeline.outputs import keep_folders
from deepcustom.pipeline.provenance import repository
from deepcustom.pipeline.repository import OF_RUNS
from deepcustom.pipeline.start.estimate import Pace, pace
from deepcustom.pipeline.start.images import Images
from deepcustom.pipeline.start.starter import Answers
from deepcustom.pipeline.workspace import OWN_CODE, OWN_IMAGES

README = Path(__file__).with_name("readme.md")
MARKER = ".gitkeep"
GITIGNORE = f"""__pycache__/
.venv/
/workspaces/
/data/raw/
# DVC hashes these and keeps no copy: `dvc repro` makes them anew.
/data/prepared/
/data/adversarial/
# The page: `deepcustom page` makes it anew.
/reports/*.html
# Your images. `dvc add` keeps them with the project's other data, and git then keeps what it writes. DVC
# would take a plain * for the folder itself, and not look for that.
/{OWN_IMAGES}/?*
!/{OWN_IMAGES}/*.dvc
!/{OWN_IMAGES}/.gitignore
{OF_RUNS}"""
GITATTRIBUTES = """# Hashes are of bytes, so git is to change no end of a line, whatever core.autocrlf says.
* -text
"""
DVCIGNORE = """# Profiles work in folders of their own below this one.
/workspaces
.venv
__pycache__
# Hashes of folders count results only.
.gitignore
.*.partial*
# What interrupted stages had finished.
/.checkpoints
"""
COMMIT = "A new project of DeepCustom"


@dataclass(frozen=True)
class Brought:
    """A file or folder of the user's that goes into the project.

    Attributes:
        source: where it lies.
        path: where it goes, relative to the project.
    """

    source: Path
    path: str


@dataclass(frozen=True)
class Laid:
    """What was laid down.

    Attributes:
        git: ``committed``; ``staged``, where the first commit is left to the user; ``inside``, where the
            folder lies in a repository that was there already, which is left as it is; or ``missing``.
        pace: what an image costs in a step of training.
        why: why git committed nothing, in its own words.
    """

    git: str
    pace: Pace
    why: str = ""


def refuse_occupied(folder: Path) -> None:
    """Refuse a folder that holds something.

    Raises:
        InputError: in one line: it is a file, or it is not empty.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: name a new or empty folder")
    if (folder / "params.yaml").exists():
        raise InputError(f"{folder} has a params.yaml already: name a new or empty folder")
    if folder.exists() and any(final_of(one) == one for one in folder.iterdir()):
        raise InputError(f"{folder} is not empty: name a new or empty folder")


def lay_down(
    folder: Path, params: str, answers: Answers, images: Images, brought: list[Brought]
) -> Laid:
    """Make a project in ``folder``, completely or not at all.

    Args:
        folder: a new or an empty one.
        params: the text of its ``params.yaml``.
        answers: what the user said about it.
        images: of its data set.
        brought: what is copied into it.

    Raises:
        InputError, ParamsError: the folder holds something; what is brought has links; a setting is wrong.
        DeepCustomError: DVC failed.
    """
    refuse_occupied(folder)
    with _whole(folder.resolve()) as root:
        root.mkdir(parents=True)
        (root / "params.yaml").write_text(params)
        (root / ".gitignore").write_text(GITIGNORE)
        (root / ".gitattributes").write_text(GITATTRIBUTES)
        (root / ".dvcignore").write_text(DVCIGNORE)
        readme = Template(README.read_text()).substitute(subject=answers.name)
        (root / "README.md").write_text(readme)
        for name in (*OWN_CODE, OWN_IMAGES):
            (root / name).mkdir(parents=True)
            if name in OWN_CODE:
                (root / name / MARKER).touch()
        for one in brought:
            _copy(one.source, root / one.path)
        write_lock(root)
        (root / "dvc.yaml").write_text(template.render(root))
        tree = read_params(root / "params.yaml")
        check(root, tree)
        keep_folders(root, tree)
        at = pace(root, answers.network.network, answers.network.conditional, images)
        remove(root / "own/nets/__pycache__")
        state, why = _versioned(root, folder.resolve())
        return Laid(state, at, why)


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A context for writing a project, which comes to lie in ``folder`` when the context succeeds.

    An empty folder stays the one that it is, since the user's shell may stand in it: the project is written
    inside, and its parts are moved up.
    """
    inside = folder.is_dir()
    partial = partial_of(folder / "project" if inside else folder)
    try:
        with naming(folder, partial):
            yield partial
        if inside:
            _move_up(partial, folder)
        else:
            partial.rename(folder)
    finally:
        remove(partial)


def _move_up(partial: Path, folder: Path) -> None:
    """Move all parts, ``params.yaml`` last, since with it the folder is a project; or none."""
    parts = sorted(partial.iterdir(), key=lambda part: (part.name == "params.yaml", part.name))
    moved: list[Path] = []
    try:
        for part in parts:
            moved.append(folder / part.name)
            part.rename(moved[-1])
    except BaseException:
        for path in moved:
            remove(path)
        raise


def _copy(source: Path, copy: Path) -> None:
    """Copy a file or a folder; a link inside a folder is refused, since it may lead anywhere.

    Raises:
        InputError: there is a link.
        OutputError: a file cannot be read or written.
    """
    source = source.resolve()
    if source.is_file():
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, copy)
        return
    link = next((one for one in source.rglob("*") if one.is_symlink()), None)
    if link is not None:
        raise InputError(f"{link} is a link: copy the images without links first, as `cp -rL` does")
    try:
        shutil.copytree(source, copy)
    except shutil.Error as error:  # a list of all files that could not be copied
        raise OutputError(f"{source} cannot be copied: {error.args[0][0][2]}") from error


def _versioned(root: Path, final: Path) -> tuple[str, str]:
    """Set up git and DVC; make the first commit, where git knows who the user is, and no hook objects.

    Inside a repository that does not ignore the folder, the project becomes a part of that repository.

    Args:
        root: where the project is written.
        final: where it will lie.

    Returns:
        What :class:`Laid` calls ``git``, and ``why``.
    """
    if shutil.which("git") is None:
        run_dvc(root, ["init", "--quiet", "--no-scm"])
        template.write_charts(root)
        return "missing", ""
    inside = _part_of_a_repository(final)
    _git(root, "init", "--quiet")
    run_dvc(root, ["init", "--quiet"])
    run_dvc(root, ["config", "core.analytics", "false"])
    template.write_charts(root)
    if inside:
        remove(root / ".git")
        return "inside", ""
    _git(root, "add", ".")
    try:
        _git(root, "commit", "--quiet", "--message", COMMIT)
    except InputError as error:
        return "staged", str(error)
    return "committed", ""


def _part_of_a_repository(folder: Path) -> bool:
    """Whether a folder, which need not be there, lies in a git repository that does not ignore it."""
    there = next(one for one in folder.parents if one.is_dir())
    if repository(there) is None:
        return False
    words = ["git", "check-ignore", "--quiet", str(folder)]
    return subprocess.run(words, cwd=there, capture_output=True).returncode != 0


def _git(root: Path, *words: str) -> None:
    done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True)
    if done.returncode:
        why = " ".join(done.stderr.split())
        raise InputError(f"git {words[0]} failed: {why}")
