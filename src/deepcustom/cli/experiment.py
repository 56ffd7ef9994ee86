"""What a stage needs in the folder that DVC copies for an experiment, and what it leaves there.

``dvc exp run --temp`` and ``dvc queue start`` run the stages in a folder below ``.dvc/tmp/exps``, which has
what git tracks, and nothing else. DVC removes it afterwards.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deepcustom.base.experiment import home
from deepcustom.base.helper import is_helper
from deepcustom.pipeline.code import PREFIX, loaded_package
from deepcustom.pipeline.provenance import origin
from deepcustom.pipeline.workspace import RAW

NAME = "DVC_EXP_NAME"
"""DVC sets it for each stage of an experiment."""
RUNS = "reports/runs"
SCORES = ".checkpoints/scores"
AGAIN = "DEEPCUSTOM_OWN_SOURCES"
"""Holds the folder of the sources that this process was started anew for."""


@contextmanager
def experiment(root: Path) -> Iterator[None]:
    """A context for a command in ``root``: what an experiment lacks is there, and its record stays."""
    run_own_sources(root)
    project = home(root)
    if project != root:
        lend(project, root)
    try:
        yield
    except SystemExit as end:
        if not end.code and os.environ.get(NAME) and not is_helper():
            keep_records(root)
        raise


def run_own_sources(root: Path) -> None:
    """Start this program anew if the copy of a project in ``root`` has sources that Python did not load.

    Copies are experiments' folders and the workspaces of profiles. Python finds the sources that are
    installed, which are the project's. DVC hashes the copy's, and they differ once the project's change.
    """
    sources = root / PREFIX.rstrip("/")
    is_copy = home(root) != root or origin(root) is not None
    if not is_copy or not (sources / "__init__.py").is_file():
        return
    if loaded_package().resolve() == sources.resolve() or os.environ.get(AGAIN) == str(sources):
        return
    words = sys.argv[1:]
    if sys.orig_argv[len(sys.orig_argv) - len(words) :] != words:
        return  # another program called this one as a function, and would be started in its place
    paths = [str(sources.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), AGAIN: str(sources)}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)


def lend(project: Path, root: Path) -> None:
    """Give an experiment the project's downloads, and the scores that its evaluation may take over.

    A download that the experiment makes goes to the project. Scores that it makes do not: at its end an
    evaluation removes those that it did not use.
    """
    (project / RAW).mkdir(parents=True, exist_ok=True)
    if not (root / RAW).exists():
        (root / RAW).parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            (root / RAW).symlink_to((project / RAW).resolve(), target_is_directory=True)
    if (project / SCORES).is_dir() and not (root / SCORES).exists():
        with suppress(OSError):  # an evaluation of the project may remove some at this moment
            shutil.copytree(project / SCORES, root / SCORES, copy_function=_link)


def _link(source: str, copy: str) -> None:
    """The same file under a second name, which costs no space; a copy where the disk cannot do that."""
    try:
        os.link(source, copy)
    except OSError:
        shutil.copyfile(source, copy)


def keep_records(root: Path) -> None:
    """Put the records of runs into git's index, from where DVC's commit of the experiment takes them.

    Without this the commit would lack those that the project has not committed, and an applied experiment
    would have files that no record explains.
    """
    if (root / RUNS).is_dir():
        with suppress(OSError, subprocess.SubprocessError):
            words = ["git", "add", "--", RUNS]
            subprocess.run(words, cwd=root, capture_output=True, check=True)
