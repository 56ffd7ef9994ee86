"""What the run of each row makes, and the folders that a stage reads as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from deepcustom.base.files import replace_file
from deepcustom.base.rows import HARDENING, LAYOUTS, SETS, SUBJECTS, TRAINING, Row, rows
from deepcustom.pipeline import workspace

MARKER = ".gitignore"
"""An empty file of this name keeps a folder in git; DVC's hash of the folder leaves it out."""

READ_WHOLE = tuple(
    f"reports/metrics/{{}}/{stage}"
    for stage in ("train_dgn", "generate", "attack", "adversarial_train", "train_online")
)
"""The folders of a subject that evaluate and report read as a whole; a test compares with the template."""


def whole_folders(subject: str) -> list[str]:
    """The folders of a subject that some stage reads as a whole."""
    return [form.format(subject) for form in READ_WHOLE]


def outputs(one: Row) -> list[str]:
    """What the run of a row makes, by the row alone; a test compares with ``dvc.yaml``."""
    subject, stage = one.subject, one.stage
    names = [one.about[key] for key in LAYOUTS[stage].names[1:]]
    metrics = workspace.metrics(subject, stage, *names)
    if stage == "prepare":
        made = [workspace.split(one.name, name) for name in workspace.SPLITS]
        made += [workspace.dataset(one.name), workspace.data_record(one.name)]
    elif stage == "train_target":
        made = [workspace.target(subject)]
    elif stage in ("relevance", "suspiciousness"):
        made = [workspace.analysis(subject, stage)]
    elif stage == "train_dgn":
        made = [workspace.bank(subject, one.about["bank"])]
    elif stage in SETS:
        made = [workspace.adversarial(subject, one.about["split"], one.about[SETS[stage]])]
    elif stage in HARDENING:
        name = one.about["network"]
        made = [workspace.robust(subject, name)]
        made += [workspace.bank(subject, name)] if stage == "train_online" else []
    elif stage == "evaluate":
        kinds = (workspace.results, workspace.checks, workspace.curves, workspace.pairs)
        made = [*(kind(subject) for kind in kinds), workspace.headline(subject)]
    elif stage == "gallery":
        made = [workspace.gallery(subject)]
    elif stage == "page":
        made = [workspace.web_page(one.name)]
    else:
        made = [f(subject) for f in (workspace.page, workspace.figures, workspace.cards)]
    if stage in TRAINING:
        made.append(workspace.training(subject, stage, *names))
    return [*made, metrics]


def keep_folders(root: Path, tree: Mapping[str, Any]) -> None:
    """Make the folders that rows read as a whole and no row makes anything in; DVC wants them to exist.

    Args:
        root: the project.
        tree: all of its params.
    """
    stages = [stage for stage in LAYOUTS if stage != "prepare" and stage in tree]
    whole = [path for stage in stages for one in rows(tree, stage) for path in outputs(one)]
    made = {str(PurePosixPath(path).parent) for path in whole}
    for folder in workspace.PAGE_READS:
        path = root / folder
        if not any(one.startswith(f"{folder}/") for one in whole) and not path.is_dir():
            replace_file(path / MARKER, b"")
    for subject in tree.get(SUBJECTS, {}):
        for folder in whole_folders(subject):
            path = root / folder
            if folder not in made and not (path.is_dir() and any(path.iterdir())):
                replace_file(path / MARKER, b"")
