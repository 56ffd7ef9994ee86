"""Which project a folder belongs to that DVC copied for an experiment."""

from __future__ import annotations

from pathlib import Path

FOLDER = (".dvc", "tmp", "exps")
"""Where in a project ``dvc exp run --temp`` and ``dvc queue start`` copy it to."""


def home(root: Path) -> Path:
    """The project that ``root`` was copied from for an experiment; otherwise ``root`` itself.

    A project that is a part of a larger repository is found too: DVC then copies the whole repository to
    below the ``.dvc`` of this project.

    Args:
        root: a project's top folder.
    """
    for folder in root.resolve().parents:
        if folder.parts[-len(FOLDER) :] == FOLDER:
            return folder.parents[len(FOLDER) - 1]
    return root
