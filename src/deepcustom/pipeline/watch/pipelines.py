"""The processes of DVC that run the stages of a project."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from deepcustom.pipeline.repro import starts_stages
from deepcustom.pipeline.watch.state import Process


def pipelines(root: Path) -> list[Process]:
    """The ``dvc repro`` and the like that work in a project, the oldest first.

    DVC's lock is not asked, since a look at it holds it for a moment.
    """
    import psutil

    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            words = process.cmdline()
            if not starts_stages(words, ("dvc",)) or words[0].endswith("sh"):
                continue
            if _project(Path(process.cwd())) == root.resolve():
                found.append(Process.of(process.pid, words))
    return sorted(found, key=lambda one: one.created)


def _project(folder: Path) -> Path | None:
    """The project of DVC that a folder lies in."""
    here = folder.resolve()
    return next((one for one in (here, *here.parents) if (one / ".dvc").is_dir()), None)
