"""Folders that a stage reads as a whole. DVC wants them to exist, even if no row makes anything in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepcustom.base.files import replace_file
from deepcustom.base.rows import rows

MARKER = ".gitignore"
"""An empty file of this name keeps a folder in git; DVC's hash of the folder leaves it out."""

READ_WHOLE = {
    "evaluate": ("data/adversarial/{}/test", "models/dgn/{}", "models/robust/{}"),
    "report": (
        "reports/metrics/{}/train_dgn",
        "reports/metrics/{}/adversarial_train",
        "reports/metrics/{}/train_online",
    ),
}
"""Stage → the folders of a subject that it reads as a whole; a test compares them with the template."""


def whole_folders(subject: str) -> list[str]:
    """The folders of a subject that some stage reads as a whole."""
    return [form.format(subject) for forms in READ_WHOLE.values() for form in forms]


def keep_folders(root: Path, tree: Mapping[str, Any]) -> None:
    """Make the folders that the rows of a project read as a whole, where they are missing or empty.

    Args:
        root: the project.
        tree: all of its params.
    """
    for stage, forms in READ_WHOLE.items():
        for one in rows(tree, stage):
            for form in forms:
                path = root / form.format(one.subject)
                if not path.is_dir() or not any(path.iterdir()):
                    replace_file(path / MARKER, b"")
