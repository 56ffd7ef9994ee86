"""Where a number or a file came from: files, the runs that made them, and whether each link holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from deepcustom.evaluation.results import Result

OK, ABSENT, TAKEN, BROKEN = "ok", "absent", "taken over", "broken"


@dataclass(frozen=True)
class Link:
    """One link of the chain.

    Attributes:
        name: what was compared.
        verdict: ``ok``; ``broken``; ``absent`` where one side is missing; or ``taken over`` where DVC's lock
            names other code or settings than those that ran, with the same outputs.
        detail: what was found, where the verdict is not ``ok``.
    """

    name: str
    verdict: str
    detail: str = ""


@dataclass(frozen=True)
class Run:
    """The run of a stage that made a file.

    Attributes:
        name: of the DVC stage and the MLflow run.
        run_key: the MLflow run's tag ``deepcustom.run_key``.
        started: the time in ISO 8601.
        seconds: the duration.
        git_commit: the code's commit.
        git_dirty: whether code or settings differed from it.
        params: section of ``params.yaml`` → its values as used.
        inputs: what it read, as far as the question needs it.
        skipped: how many more inputs it read.
        links: compare its record with ``dvc.lock``, its code with the commit, and its data with the
            official data.
    """

    name: str
    run_key: str
    started: str
    seconds: float
    git_commit: str | None
    git_dirty: bool | None
    params: dict[str, Any]
    inputs: list[File]
    skipped: int
    links: list[Link]


@dataclass(frozen=True)
class File:
    """A file or folder that a stage made.

    Attributes:
        path: below the project's top folder.
        md5: the hash that the run which read it saw; for the file asked for, the hash that the run which
            made it recorded.
        links: compare the hash with the file here, ``dvc.lock``, and the record of the run that made it.
        run: that run; None where there is no record of it.
        above: whether the tree shows the run at an earlier place.
    """

    path: str
    md5: str
    links: list[Link]
    run: Run | None
    above: bool = False


@dataclass(frozen=True)
class Lineage:
    """What was asked for, and where it came from.

    Attributes:
        what: the path or the number, as the user wrote it.
        number: the accuracy asked for; None for a file.
        links: compare the hashes beside the number with the inputs of the run that made the table.
        file: the file asked for, or the table that holds the number.
    """

    what: str
    number: Result | None
    links: list[Link]
    file: File

    def all_links(self) -> Iterator[tuple[str, Link]]:
        """(where, link) over the whole tree, each once."""
        own = ((self.what, link) for link in self.links)
        yield from dict.fromkeys([*own, *_links(self.file)])

    def broken(self) -> list[tuple[str, Link]]:
        """The links that do not hold."""
        return [(where, link) for where, link in self.all_links() if link.verdict == BROKEN]

    def run_keys(self) -> list[str]:
        """The key of every run in the tree."""
        return list(_run_keys(self.file))


def _links(file: File) -> Iterator[tuple[str, Link]]:
    yield from ((file.path, link) for link in file.links)
    if file.run and not file.above:
        yield from ((file.run.name, link) for link in file.run.links)
        for source in file.run.inputs:
            yield from _links(source)


def _run_keys(file: File) -> Iterator[str]:
    if file.run and not file.above:
        yield file.run.run_key
        for source in file.run.inputs:
            yield from _run_keys(source)
