"""All findings, those on the machine first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from deepcustom.base.errors import DeepCustomError
from deepcustom.base.params import read_params
from deepcustom.pipeline import dvc
from deepcustom.pipeline.doctor import machine, project
from deepcustom.pipeline.doctor.finding import Finding
from deepcustom.pipeline.doctor.locked import absent

TOP = ("dvc.yaml", "params.yaml")


def examine(root: Path) -> Iterator[Finding]:
    """Find out about the machine, and about the project in ``root`` if there is one."""
    yield machine.python()
    packages = machine.packages(root)
    yield packages
    yield machine.memory()
    yield from machine.compute()
    there = [name for name in TOP if (root / name).is_file()]
    if not there:
        yield machine.disk(root, 0)
        yield Finding("project", "missing", "no project in this folder", "deepcustom init DIR")
        return
    if packages.hinders:
        yield Finding("project", "cannot", "not looked at without these packages")
        return
    yield from _of_project(root)


def _of_project(root: Path) -> Iterator[Finding]:
    yield project.git(root)
    yield project.dvc_folder(root)
    try:
        tree, lock = read_params(root / "params.yaml"), dvc.read_lock(root)
    except DeepCustomError as error:
        missing = not (root / "params.yaml").is_file()
        says = str(error).partition(": `")[0]
        mend = "git checkout params.yaml" if missing else ""
        mend = "git checkout dvc.lock" if says.startswith("dvc.lock") else mend
        yield Finding("project", "missing" if missing else "cannot", says, mend, True)
        return
    yield machine.disk(root, sum(absent(root, lock).values()))
    wrong = project.params(root)
    yield wrong
    if not wrong.hinders:
        yield from project.raw(root, tree)
    yield project.pipeline(root)
    yield project.remote(root)
    yield project.models(root, lock)
    yield project.stages(root, lock)
    yield project.store(root)
