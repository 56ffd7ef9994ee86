"""Run the smoke profile of two commits side by side, and compare the hash of every output.

Each side runs its own code in a clone of its own, at one thread, with a cache and a tracking store of its
own. See "Proof by bytes" in CONTRIBUTING.md.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NoReturn

from deepcustom.base.errors import DeepCustomError, InputError
from deepcustom.base.hashes import dvc_md5
from deepcustom.pipeline.dvc import read_lock

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = (str(Path(sys.executable).parent / "deepcustom"), "repro", "--profile", "smoke")
WORKSPACE = "workspaces/smoke"
EVERY = 10.0  # seconds between two lines of progress
TAIL = 40  # lines of a failed side's log
# Of the caller's environment: what would make the two sides one, or one of them another.
DROPPED = ("MLFLOW_", "DVC_", "DEEPCUSTOM_CHECKOUT", "PYTHON", "OMP_", "MKL_", "OPENBLAS_")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Comparison:
    """How the outputs of two sides compare, each by its path.

    Attributes:
        same: equal on both sides.
        differ: on both sides, and not equal.
        first: on the first side alone; ``second`` likewise.
        allowed: which of those that differ, or are on one side alone, may do so.
    """

    same: list[str]
    differ: list[str]
    first: list[str]
    second: list[str]
    allowed: set[str] = field(default_factory=set)

    @property
    def alike(self) -> bool:
        """Whether something was compared, and nothing differs but what may."""
        unlike = {*self.differ, *self.first, *self.second}
        return bool(self.same) and unlike <= self.allowed


def outputs(workspace: Path) -> dict[str, str]:
    """Path → hash of every output that ``dvc.lock`` names, of the files as they lie there now.

    Raises:
        InputError: there are none, one is missing, or one is not what ``dvc.lock`` says.
    """
    told = {
        str(out["path"]): str(out["md5"])
        for entry in read_lock(workspace).values()
        for out in entry.get("outs", [])
    }
    if not told:
        raise InputError(f"{workspace}: dvc.lock names no output: nothing was run here")
    for path, md5 in told.items():
        if not (workspace / path).exists():
            raise InputError(f"{workspace}: {path} is missing, though dvc.lock names it")
        if dvc_md5(workspace / path) != md5:
            raise InputError(f"{workspace}: {path} is not what dvc.lock says: it was changed since")
    return told


def compare(
    first: Mapping[str, str], second: Mapping[str, str], allow: Sequence[str] = ()
) -> Comparison:
    """Compare two sides' hashes; paths that match a pattern of ``allow`` may differ."""
    both = sorted(path for path in first if path in second)
    differ = [path for path in both if first[path] != second[path]]
    alone = sorted(path for path in first if path not in second)
    other = sorted(path for path in second if path not in first)
    unlike = [*differ, *alone, *other]
    allowed = {path for path in unlike if any(fnmatchcase(path, glob) for glob in allow)}
    same = [path for path in both if first[path] == second[path]]
    return Comparison(same, differ, alone, other, allowed)


def say_comparison(found: Comparison, names: tuple[str, str], say: Say = print) -> None:
    """A line for each output that is not the same, and one that counts."""
    groups = {
        "differs": found.differ,
        f"only in {names[0]}": found.first,
        f"only in {names[1]}": found.second,
    }
    for title, paths in groups.items():
        for path in paths:
            say(f"{title}{' (allowed)' if path in found.allowed else ''}: {path}")
    counts = [f"{len(paths)} {title}" for title, paths in groups.items()]
    say(f"{len(found.same)} outputs are the same, {', '.join(counts)}")


@dataclass
class Side:
    """One commit in a clone of its own; ``log`` is what its run prints."""

    name: str
    folder: Path
    command: Sequence[str] = PROGRAM

    @property
    def log(self) -> Path:
        """Beside the clone."""
        return self.folder.with_suffix(".log")

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Run it, or those of its stages that ``words`` name, in a session of its own."""
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*self.command, *words],
                cwd=self.folder,
                env=environment(self.folder),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def at(self) -> str:
        """How far it is, by its log."""
        begun = [line for line in self._lines() if line.startswith("Running stage ")]
        if not begun:
            return "starting"
        return f"stage {len(begun)}, {begun[-1].split(chr(39))[1]}"

    def tail(self) -> str:
        """The end of its log."""
        return "\n".join(self._lines()[-TAIL:])

    def _lines(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines() if self.log.exists() else []


def environment(folder: Path) -> dict[str, str]:
    """The variables of a side: its own code, one thread, and no store, cache or setting of the user's."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(DROPPED)}
    scripts = str(Path(sys.executable).parent)
    # A cache that DVC shares between projects would restore the one side's outputs on the other.
    dvc = {
        f"DVC_{kind}_DIR": str(folder.with_suffix(".dvc") / kind.lower())
        for kind in ("GLOBAL_CONFIG", "SYSTEM_CONFIG", "SITE_CACHE")
    }
    return {
        **kept,
        **dvc,
        "PATH": os.pathsep.join([scripts, kept.get("PATH", "")]),
        "PYTHONPATH": str(folder / "src"),
        "PYTHONUNBUFFERED": "1",
        "DVC_NO_ANALYTICS": "1",
        "OMP_NUM_THREADS": "1",
        "TQDM_DISABLE": "1",
    }


def clone(root: Path, commit: str, folder: Path) -> None:
    """A clone of the repository ``root`` at ``commit``, whose downloads are those of ``root``.

    Raises:
        DeepCustomError: git failed; the message is its own.
    """
    _git(root, "clone", "--quiet", "--shared", "--no-checkout", str(root), str(folder))
    _git(folder, "checkout", "--quiet", "--detach", commit)
    raw = root / "data/raw"
    raw.mkdir(parents=True, exist_ok=True)
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data/raw").symlink_to(raw, target_is_directory=True)


def commit_of(root: Path, name: str) -> str:
    """The hash of a commit by any of its names.

    Raises:
        InputError: there is none.
    """
    try:
        return _git(root, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    except DeepCustomError:
        raise InputError(f"REF={name} is no commit of this repository, and no folder") from None


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise DeepCustomError(f"git {words[0]} failed: {' '.join(done.stderr.split())}")
    return done.stdout.strip()


def check_code(side: Side) -> None:
    """Whether Python loads the side's own code.

    Raises:
        DeepCustomError: it loads another.
    """
    ask = [sys.executable, "-c", "import deepcustom; print(deepcustom.__file__)"]
    told = subprocess.run(
        ask, cwd=side.folder, env=environment(side.folder), capture_output=True, text=True
    )
    if not Path(told.stdout.strip()).is_relative_to(side.folder / "src"):
        loaded = told.stdout.strip() or told.stderr.strip()[-200:]
        raise DeepCustomError(f"{side.name} would run other code than its own: {loaded}")


def run_sides(sides: Sequence[Side], words: Sequence[str] = (), say: Say = print) -> None:
    """Run all sides at once, and say how far they are; where one fails, the others are stopped.

    Raises:
        DeepCustomError: one failed; the end of its log has been said.
    """
    start = last = time.monotonic()
    with ExitStack() as stopped:
        runs = [(side, side.start(*words)) for side in sides]
        for _, run in runs:
            stopped.callback(_stop, run)
        while not _over([run.poll() for _, run in runs]):
            time.sleep(0.2)
            if time.monotonic() - last >= EVERY:
                last = time.monotonic()
                say(f"{last - start:.0f} s  {' | '.join(_state(*one) for one in runs)}")
        failed = [side for side, run in runs if run.poll()]
    if failed:
        say(f"--- the end of what {failed[0].name} printed\n{failed[0].tail()}")
        raise DeepCustomError(f"{failed[0].name}: its run failed, see above")


def _over(codes: Sequence[int | None]) -> bool:
    """Whether all runs have ended, or one has failed."""
    return any(codes) or None not in codes


def _state(side: Side, run: subprocess.Popen[bytes]) -> str:
    return f"{side.name}: {side.at() if run.poll() is None else 'done'}"


def _stop(run: subprocess.Popen[bytes]) -> None:
    """End a run with all it has started."""
    if run.poll() is None:
        os.killpg(run.pid, signal.SIGTERM)
        try:
            run.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()


def same_bytes(
    ref: str,
    allow: Sequence[str] = (),
    *,
    root: Path = ROOT,
    command: Sequence[str] = PROGRAM,
    say: Say = print,
) -> Comparison:
    """Run two commits and compare what they make.

    Args:
        ref: a commit; or a folder, the workspace of a run that is over, which then stands for one.
        allow: patterns of outputs that may differ or be on one side alone.
        root: the repository; its HEAD is the second side.
        command: what a side runs in its clone, making :data:`WORKSPACE` there.
        say: takes what is to be told.

    Raises:
        InputError: ``ref`` is neither; or a side's files are not what its ``dvc.lock`` says.
        DeepCustomError: a side failed.
    """
    before = Path(ref).resolve() if (Path(ref) / "dvc.lock").is_file() else None
    commits = [("HEAD", commit_of(root, "HEAD"))]
    if before is None:
        commits.append((f"REF ({ref})", commit_of(root, ref)))
    if _git(root, "status", "--porcelain", "--untracked-files=no"):
        say("warning: uncommitted changes take no part: HEAD is what is run")
    folder = Path(tempfile.mkdtemp(prefix="deepcustom-same-bytes-")).resolve()
    try:
        sides = []
        for place, (name, commit) in enumerate(commits):
            say(f"{name} is {commit[:12]}")
            sides.append(Side(name, folder / str(place), command))
            clone(root, commit, sides[-1].folder)
            check_code(sides[-1])
        run_sides(sides[:1], ["prepare"], say)  # alone: what is not here yet is fetched once
        run_sides(sides, say=say)
        say("comparing")
        found = compare(
            outputs(before or sides[1].folder / WORKSPACE),
            outputs(sides[0].folder / WORKSPACE),
            allow,
        )
        say_comparison(found, ("REF", "HEAD"), say)
        return found
    finally:
        shutil.rmtree(folder)


def _end(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def main(words: Sequence[str] | None = None) -> int:
    """The command line; returns 0 where all is the same, 1 where not or a run failed, 2 for a bad REF."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ref", help="a commit, or the folder of a workspace that was run before")
    parser.add_argument(
        "--allow", default="", help="patterns of outputs that may differ, blanks between them"
    )
    asked = parser.parse_args(words)
    signal.signal(signal.SIGTERM, _end)  # so that runs are ended and folders removed

    def say(line: str) -> None:
        print(line, flush=True)

    try:
        found = same_bytes(asked.ref, asked.allow.split(), say=say)
    except DeepCustomError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if not found.alike:
        print("error: the outputs are not the same, see above", file=sys.stderr)
    return 0 if found.alike else 1


if __name__ == "__main__":
    sys.exit(main())
