"""Walks from a number or a file back to the raw data, run by run, and verifies every hash."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from deepcustom.base.account import outputs_told
from deepcustom.base.errors import InputError, UnknownNameError
from deepcustom.base.files import named
from deepcustom.base.hashes import dvc_md5
from deepcustom.evaluation.results import Result, read_csv
from deepcustom.pipeline import provenance, workspace
from deepcustom.pipeline.code import code_digest, is_code
from deepcustom.pipeline.code_lock import LOCK, parse_lock
from deepcustom.pipeline.dvc import parse_stages, read_lock
from deepcustom.pipeline.trace.lineage import ABSENT, BROKEN, OK, TAKEN, File, Lineage, Link, Run
from deepcustom.pipeline.trace.locked import Entry, agree, lock_links
from deepcustom.pipeline.trace.official import official_links
from deepcustom.pipeline.workspace import Workspace
from deepcustom.tracking.record import RUN_FILE, RunRecord

ACCOUNTS = ("reports/metrics/", "reports/page/", "reports/training/")
"""Where runs say what they measured; numbers are not traced through these."""

OF_CODE = ("params", "code", "code that ran")
"""What `dvc commit` may take over: see :meth:`_Records._entry`."""


def trace(ws: Workspace, what: str, project: Path) -> Lineage:
    """Walk back from ``what`` to the raw data.

    Args:
        ws: the workspace that holds it.
        what: an output's path, such as ``models/robust/mnist/nce.safetensors``, or a number, as
            subject, network, protocol and attack: ``mnist/nce/transfer/pgd``.
        project: the checkout whose code ran; its git history says which code each commit had.

    Raises:
        InputError, UnknownNameError: nothing is known under that name; the message says what is.
    """
    known = _Records.of(ws, project)
    path = known.output(what)
    if path:
        return Lineage(what, None, [], known.file(path, known.recorded(path)))
    number = _number(ws, what, known.makers)
    table = workspace.results(number.dataset)
    if table not in known.makers:
        raise InputError(f"{table}: no run record below reports/runs says which run made it")
    wanted = {number.network_md5, number.set_md5}
    found = known.file(table, known.recorded(table), follow=wanted)
    return Lineage(what, number, _number_links(number, known.makers[table]), found)


def _number(ws: Workspace, what: str, outputs: Iterable[str]) -> Result:
    parts = what.split("/")
    tables = {file.stem: file for file in sorted((ws.root / "reports/results").glob("*.csv"))}
    a_path = parts[0] not in tables and (ws.root / parts[0]).is_dir()
    if len(parts) != 4 or a_path:
        made = min(outputs, key=lambda path: (not path.startswith("models/"), path))
        row = next((row for file in tables.values() for row in read_csv(file)), None)
        one = "" if row is None else f", such as {_name(row)}"
        raise InputError(
            f"{what!r} is neither the output of a stage, such as {made}, nor a number{one} "
            "(subject/network/protocol/attack)"
        )
    subject, *rest = parts
    if subject not in tables:
        raise UnknownNameError("subject", subject, tables)
    rows = read_csv(tables[subject])
    for name, wanted in zip(("network", "protocol", "attack"), rest, strict=True):
        there = dict.fromkeys(getattr(row, name) for row in rows)
        if wanted not in there:
            raise UnknownNameError(name, wanted, there)
        rows = [row for row in rows if getattr(row, name) == wanted]
    return rows[0]


def _name(row: Result) -> str:
    return "/".join([row.dataset, row.network, row.protocol, row.attack])


def _number_links(number: Result, evaluated: RunRecord) -> list[Link]:
    """Check that the run which made the table read the weights and images that the number names."""
    seen = set(evaluated.inputs.values())
    pairs = {"weights of the row": number.network_md5, "images of the row": number.set_md5}
    return [
        agree(name, "an input of the run", md5, md5 if md5 in seen else "not among them")
        for name, md5 in pairs.items()
    ]


@dataclass
class _Records:
    """The records of a workspace's runs; this hashes every file once, and shows every run once."""

    ws: Workspace
    project: Path
    makers: dict[str, RunRecord]
    records: dict[str, str]  # run key → where the record lies
    lock: Mapping[str, Any]
    _hashes: dict[str, str | None] = field(default_factory=dict)
    _code: dict[tuple[str, str], str | None] = field(default_factory=dict)
    _shown: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, ws: Workspace, project: Path) -> _Records:
        files = sorted(ws.runs.rglob(RUN_FILE))
        records = [RunRecord.read(file.parent) for file in files]
        if not records:
            raise InputError("no run records in reports/runs: `deepcustom repro` makes them")
        makers = {path: record for record in records for path in record.outputs}
        places = [file.relative_to(ws.root).as_posix() for file in files]
        lie = {record.run_key: place for record, place in zip(records, places, strict=True)}
        return cls(ws, project, makers, lie, read_lock(ws.root))

    def output(self, what: str) -> str | None:
        """The output that ``what`` is or lies in; None if there is none.

        Links below the project are not followed: DVC may link to its cache, and folders may lie elsewhere.
        """
        root = self.ws.root
        full = named(root / what)
        top = next((one for one in (full, *full.parents) if _same(one, root)), None)
        if top is None:
            raise InputError(f"{what} lies outside the project's folder")
        path = full.relative_to(top)
        candidates = (p.as_posix() for p in (path, *path.parents))
        return next((p for p in candidates if p in self.makers), None)

    def recorded(self, path: str) -> str:
        """The hash of ``path`` that the run which made it recorded."""
        return self.makers[path].outputs[path]

    def file(self, path: str, md5: str, follow: Iterable[str] | None = None) -> File:
        """``path`` with the hash ``md5``, and how it came to be.

        ``follow``: hashes of the inputs to walk back from; all by default.
        """
        made = self.makers.get(path)
        if made is None and not workspace.producer(path):  # brought by the user: no stage makes it
            return File(path, md5, [agree("file", "the one here", md5, self._hash(path))], None)
        made_md5 = made.outputs[path] if made else None
        links = [
            agree("file", "the one here", md5, self._hash(path)),
            agree("dvc.lock", "its output", md5, self._locked(path)),
            agree("made as", "the record of the run", md5, made_md5)
            if made
            else Link("made as", BROKEN, "no record of the run that made it"),
        ]
        if made is None:
            return File(path, md5, links, None)
        above = made.run_key in self._shown
        self._shown.add(made.run_key)
        return File(path, md5, links, self._run(made, follow, above), above)

    def _run(self, record: RunRecord, follow: Iterable[str] | None, above: bool) -> Run:
        wanted = (
            record.inputs
            if follow is None
            else {path: md5 for path, md5 in record.inputs.items() if md5 in set(follow)}
        )
        return Run(
            name=record.name,
            run_key=record.run_key,
            started=record.started.isoformat(timespec="seconds"),
            seconds=round(record.seconds, 1),
            git_commit=record.git_commit,
            git_dirty=record.git_dirty,
            params=record.params,
            inputs=[] if above else [self.file(path, md5) for path, md5 in wanted.items()],
            skipped=len(record.inputs) - len(wanted),
            links=[] if above else self._run_links(record),
        )

    def _run_links(self, record: RunRecord) -> list[Link]:
        entry, taken_over = self._entry(record)
        links = [*lock_links(record, entry, self._told), *self._code_links(record, entry)]
        if not taken_over and self._hidden:
            links = [self._unsure(link) for link in links]
        if taken_over:
            links.append(Link("taken over", TAKEN, taken_over))
        if record.stage == "prepare":
            source = record.params.get(f"prepare.{record.dataset}", {}).get("source")
            own = source not in (None, "built_in")
            links.extend(official_links(self.ws, record.dataset, own=own))
        return links

    def _entry(self, record: RunRecord) -> tuple[Entry | None, str]:
        """The run's entry in ``dvc.lock``, and, where the entry is from an older ``dvc.lock``, why.

        After `dvc commit`, ``dvc.lock`` may name today's code and settings for outputs that a run with
        others made. If data and outputs are the same, the run is compared with the ``dvc.lock`` that was
        committed with its record.
        """
        now = self.lock.get(record.name)
        if now is None or self._agrees(record, now):
            return now, ""
        commit = provenance.last_change(self.project, self.records[record.run_key])
        then = parse_stages(self._then(commit, "dvc.lock")) if commit else {}
        before = then.get(record.name)
        if (
            before is None
            or not self._same_files(record, before, now)
            or not self._agrees(record, before)
        ):
            return now, ""
        return before, (
            f"dvc.lock names code or settings of now, which did not run: they were taken over; the run is "
            f"held against dvc.lock of commit {commit[:7] if commit else ''}"
        )

    def _same_files(self, record: RunRecord, before: Entry, now: Entry) -> bool:
        """Whether ``now`` has all outputs of ``before``, and all data that it read.

        What it read of a whole folder may be among the files whose hashes small files tell.
        """
        read, also = (
            {
                (d["path"], d["md5"])
                for d in entry.get("deps", [])
                if not is_code(d["path"], record.stage)
                and not d["path"].startswith((*ACCOUNTS, LOCK))
            }
            for entry in (before, now)
        )
        below = {
            path: [name for name in record.inputs if name.startswith(f"{path}/")]
            for path, _ in read - also
        }
        told = all(
            names and all(self._told(name, now) == record.inputs[name] for name in names)
            for names in below.values()
        )
        return told and _outs(before) <= _outs(now)

    def _told(self, path: str, entry: Entry) -> str | None:
        """The hash of ``path`` by a small file, in a folder that is as ``entry`` says."""
        for place in workspace.metrics_of(path):
            folder = PurePosixPath(place).parent.as_posix()
            named = {dep["path"]: dep["md5"] for dep in entry.get("deps", [])}
            if folder in named and self._hash(folder) == named[folder]:
                found = outputs_told(self.ws.root / place).get(path)
                if found:
                    return found
        return None

    def _unsure(self, link: Link) -> Link:
        """A link that does not hold, but might against an earlier ``dvc.lock``, which git hides."""
        if link.verdict != BROKEN or link.name not in OF_CODE:
            return link
        return Link(link.name, ABSENT, f"{link.detail}, or of an earlier commit: {self._hidden}")

    def _agrees(self, record: RunRecord, entry: Entry) -> bool:
        links = [*lock_links(record, entry, self._told), *self._code_links(record, entry)]
        return not any(link.verdict == BROKEN for link in links)

    def _hash(self, path: str) -> str | None:
        if path not in self._hashes:
            full = self.ws.root / path
            self._hashes[path] = dvc_md5(full) if full.exists() else None
        return self._hashes[path]

    def _locked(self, path: str) -> str | None:
        """The hash of the output ``path`` in ``dvc.lock``."""
        outs = (one for entry in self.lock.values() for one in entry.get("outs", []))
        return next((str(one["md5"]) for one in outs if one["path"] == path), None)

    def _code_links(self, record: RunRecord, entry: Entry | None) -> list[Link]:
        """Compare the code that ran with the code that the lock names, and both with the recorded commit."""
        code = _locked_code(record, entry or {})
        if not code:
            return []
        ran = record.code
        links = [] if ran is None else [agree("code that ran", "dvc.lock", ran, code_digest(code))]
        return [*links, self._commit_link(record, code)]

    def _commit_link(self, record: RunRecord, code: Mapping[str, str]) -> Link:
        commit = record.git_commit
        if commit is None or record.git_dirty:
            why = "no commit is recorded" if commit is None else "the tree had changes"
            return Link("code", ABSENT, why)
        found = {path: self._code_at(commit, path, record.stage) for path in code}
        if not any(found.values()):
            return Link("code", ABSENT, f"commit {commit[:7]}: {self._lacking}")
        wrong = sorted(path for path, md5 in code.items() if found[path] != md5)
        if wrong:
            return Link("code", BROKEN, f"not as in commit {commit[:7]}: {', '.join(wrong)}")
        if record.code not in (None, code_digest(code)):
            return Link("code", BROKEN, f"commit {commit[:7]} has other code than ran")
        return Link("code", OK)

    @cached_property
    def _hidden(self) -> str | None:
        """Why git does not show earlier commits that there are; None where it does."""
        if why := provenance.trouble(self.project):
            return f"git cannot be read: {why}"
        if provenance.shallow(self.project):
            return "this is a shallow clone: `git fetch --unshallow` fetches the rest"
        return None

    @cached_property
    def _lacking(self) -> str:
        """Why a commit is not found."""
        if self._hidden or provenance.repository(self.project):
            return self._hidden or "it is not in this repository"
        return "the project lies in no git repository"

    def _code_at(self, commit: str, path: str, stage: str) -> str | None:
        key = (commit, f"{path}:{stage}" if path == LOCK else path)
        if key not in self._code:
            if path == LOCK:
                lock = parse_lock(self._then(commit, path) or b"")
                self._code[key] = lock.stages.get(stage) if lock else None
            else:
                self._code[key] = provenance.md5_at(*self._in_git(commit, path))
        return self._code[key]

    def _then(self, commit: str, path: str) -> bytes | None:
        return provenance.file_at(*self._in_git(commit, path))

    def _in_git(self, commit: str, path: str) -> tuple[Path, str, str]:
        """Where git finds a path of the project, which may be a folder of a larger repository."""
        below = self.project.resolve().relative_to(self._top)
        return self._top, commit, (below / path).as_posix()

    @cached_property
    def _top(self) -> Path:
        return provenance.repository(self.project) or self.project.resolve()


def _same(one: Path, other: Path) -> bool:
    return one.exists() and one.samefile(other)


def _locked_code(record: RunRecord, entry: Entry) -> dict[str, str]:
    """Path → hash of the code in the lock; for ``deepcustom.lock``, the digest of the stage's code."""
    found = {
        one["path"]: one["md5"]
        for one in entry.get("deps", [])
        if is_code(one["path"], record.stage)
    }
    locked = entry.get("params", {}).get(LOCK, {}).get(f"stages.{record.stage}")
    return found if locked is None else {LOCK: locked, **found}


def _outs(entry: Entry) -> set[tuple[str, str]]:
    """Outputs and their hashes, without the run's own account of itself, whose form follows the code."""
    outs = {(one["path"], one["md5"]) for one in entry.get("outs", [])}
    return {one for one in outs if not one[0].startswith(ACCOUNTS)}
