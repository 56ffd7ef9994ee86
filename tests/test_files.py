"""Write beside, then rename: whole or not at all, with two at once, and when one is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from pipeline_fixtures import ROOT

from deepcustom.base import files
from deepcustom.base.errors import InputError, OutputError
from deepcustom.base.files import (
    beside,
    check_writable,
    final_of,
    partial_of,
    remove,
    replace_file,
    settle,
)

FULL = Path("/dev/full")  # a device on which every write finds the disk full
full_disk = pytest.mark.skipif(not FULL.exists(), reason="only Linux has it")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fill(folder: Path, text: str) -> None:
    folder.mkdir()
    for name in ("x", "y"):
        (folder / name).write_text(text)


def ended_pid() -> int:
    """The number of a process that is over."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def of_another(partial: Path, pid: int) -> Path:
    """The place that process ``pid`` would have."""
    return partial.with_name(partial.name.replace(f"-{os.getpid()}-", f"-{pid}-"))


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new/folder/a.csv"
    with beside(path) as partial:
        partial.write_bytes(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    replace_file(path, b"other")
    assert path.read_bytes() == b"other"
    assert names(path.parent) == ["a.csv"]


def test_a_folder_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    for text in ("one", "two"):
        with beside(tmp_path / "set") as partial:
            fill(partial, text)
    assert (tmp_path / "set/x").read_text() == "two"
    assert names(tmp_path) == ["set"]


def test_files_and_folders_and_links_take_each_others_place(tmp_path: Path) -> None:
    path = tmp_path / "out"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/kept").write_text("kept")
    path.symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with beside(path) as partial:
        fill(partial, "folder")
    replace_file(path, b"file")
    assert path.read_bytes() == b"file"
    with beside(path) as partial:
        fill(partial, "folder")
    assert (path / "y").read_text() == "folder"
    assert not path.is_symlink()
    assert names(tmp_path) == ["elsewhere", "out"]
    assert names(tmp_path / "elsewhere") == ["kept"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_interrupted_while_writing_the_old_stays_and_nothing_else(
    error: type[BaseException], tmp_path: Path
) -> None:
    fill(tmp_path / "set", "old")

    def half() -> None:
        with beside(tmp_path / "set") as partial:
            fill(partial, "half")
            raise error

    with pytest.raises(error):
        half()
    assert names(tmp_path) == ["set"]
    assert (tmp_path / "set/x").read_text() == "old"


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_interrupted_between_the_renames_the_old_one_is_back(
    kind: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out"
    fill(path, "old") if kind == "folder" else path.write_text("old")

    def fail(self: Path, _: Path) -> None:
        raise error

    monkeypatch.setattr(Path, "replace", fail)

    def write() -> None:
        with beside(path) as partial:
            fill(partial, "new") if kind == "folder" else partial.write_text("new")

    with pytest.raises(type(error)):
        write()
    assert names(tmp_path) == ["out"]
    assert (path / "x" if kind == "folder" else path).read_text() == "old"


def test_one_that_is_quicker_is_replaced_in_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the two renames of this process another one puts its own folder there."""
    path = tmp_path / "set"
    fill(path, "old")
    replace, calls = Path.replace, []

    def late(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) < 3:
            fill(path, "another's")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", late)
    with beside(path) as partial:
        fill(partial, "mine")
    assert len(calls) == 3
    assert (path / "x").read_text() == "mine"
    assert names(tmp_path) == ["set"]


WRITER = """
import sys
from pathlib import Path
from deepcustom.base.files import beside, replace_file
folder, me = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
for turn in range(300):
    with beside(folder / "set") as partial:
        partial.mkdir()
        for name in ("x", "y"):
            (partial / name).write_text(me * 50)
    replace_file(folder / "table.csv", me.encode() * 5000)
"""


def test_two_processes_at_once_leave_whole_outputs_and_nothing_else(tmp_path: Path) -> None:
    both = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), me],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for me in "ab"
    ]
    for run in both:
        assert run.stdout
        assert run.stdout.readline() == "ready\n"
    for run in both:
        assert run.stdin
        run.stdin.write("\n")
        run.stdin.flush()
    seen = set()
    while any(run.poll() is None for run in both):
        table = tmp_path / "table.csv"
        seen.add(table.read_bytes() if table.exists() else b"")
    assert [(run.communicate()[1], run.returncode) for run in both] == [("", 0), ("", 0)]
    assert seen <= {b"", b"a" * 5000, b"b" * 5000}  # no reader ever met half a file
    assert names(tmp_path) == ["set", "table.csv"]
    assert (tmp_path / "set/x").read_text() == (tmp_path / "set/y").read_text()
    assert (tmp_path / "set/x").read_text() in ("a" * 50, "b" * 50)


KILLED = """
import sys, time
from pathlib import Path
from deepcustom.base.files import beside
with beside(Path(sys.argv[1])) as partial:
    partial.mkdir()
    (partial / "half").write_text("half")
    print("half", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "set")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout
        assert run.stdout.readline() == "half\n"
        (left,) = names(tmp_path)
        replace_file(tmp_path / "set.csv", b"")  # of another name
        with beside(tmp_path / "set") as partial:
            fill(partial, "new")
        assert names(tmp_path) == [left, "set", "set.csv"]  # it is still at work
        run.send_signal(signal.SIGKILL)
    with beside(tmp_path / "set") as partial:
        assert names(tmp_path) == ["set", "set.csv"]
        fill(partial, "newer")
    assert (tmp_path / "set/x").read_text() == "newer"


def test_killed_between_the_renames_the_old_folder_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "set"
    partial = of_another(partial_of(path), ended_pid())
    fill(partial, "new")
    fill(partial.with_name(f"{partial.name}-old"), "old")
    with pytest.raises(ValueError, match="fails"), beside(path):
        raise ValueError("fails")
    assert names(tmp_path) == ["set"]
    assert (path / "x").read_text() == "old"


@pytest.mark.parametrize("name", [".set.partial", ".set.00000000-1-0.partial", ".set.partial-old"])
def test_of_an_unknown_process_it_is_the_age_that_counts(name: str, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    left = tmp_path / name
    fill(left, "half")
    past = time.time() - files.STALE_SECONDS - 60
    os.utime(left, (past, past))
    os.utime(left / "x", (past, past))
    partial_of(tmp_path / "set")
    assert left.exists()  # a file in it is new
    os.utime(left / "y", (past, past))
    partial_of(tmp_path / "set")
    assert names(tmp_path) == ["set"]


def test_every_call_has_a_name_of_its_own_that_git_and_dvc_ignore(tmp_path: Path) -> None:
    path = tmp_path / "a.b.npy"
    places = [partial_of(path) for _ in range(3)]
    assert len(set(places)) == 3
    asides = [place.with_name(f"{place.name}-old") for place in places]
    assert {final_of(place) for place in [*places, *asides]} == {path}
    assert final_of(path) == path
    for ignored in (".gitignore", ".dvcignore"):
        patterns = (ROOT / ignored).read_text().splitlines()
        for place in [*places, *asides]:
            assert any(fnmatchcase(place.name, pattern) for pattern in patterns), ignored


def test_removing_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    remove(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError):
        settle(tmp_path / "nothing", tmp_path / "a")
    assert names(tmp_path) == []


# Places where nothing can be written


def on_a_full_disk(path: Path) -> None:
    with beside(path) as partial:
        partial.symlink_to(FULL)
        partial.write_bytes(b"new")


@full_disk
def test_a_full_disk_is_one_line_with_the_file_and_the_old_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    replace_file(path, b"old")
    with pytest.raises(OutputError, match=r"a\.csv cannot be written: No space left on device$"):
        on_a_full_disk(path)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.csv"]


@full_disk
def test_a_file_in_an_unfinished_folder_is_called_by_the_name_that_it_would_get(
    tmp_path: Path,
) -> None:
    outer = partial_of(tmp_path / "set")
    with pytest.raises(OutputError) as caught:
        on_a_full_disk(outer / "x.npy")
    assert str(caught.value) == f"{tmp_path}/set/x.npy cannot be written: No space left on device"


def test_an_error_of_something_else_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), beside(tmp_path / "a.csv"):
        (tmp_path / "none").read_bytes()


def test_a_file_where_a_folder_should_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(OutputError, match=r"taken is no folder$"):
        replace_file(tmp_path / "taken/a.csv", b"new")
    (tmp_path / "data").symlink_to(tmp_path / "unmounted")
    with pytest.raises(OutputError, match=r"data is no folder$"):
        replace_file(tmp_path / "data/a.csv", b"new")


def test_a_folder_is_tried_before_the_work_and_nothing_is_made(tmp_path: Path) -> None:
    check_writable(tmp_path / "new/folder", "--out")
    assert names(tmp_path) == []
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(InputError, match=r"^--out .*/below: .*/taken is a file, want a folder$"):
        check_writable(tmp_path / "taken/below", "--out")
    (tmp_path / "link").symlink_to(tmp_path / "unmounted")
    with pytest.raises(InputError, match="link is a link to nothing, want a folder"):
        check_writable(tmp_path / "link/below", "--out")
    with pytest.raises(InputError, match="nothing can be written in /proc"):
        check_writable(Path("/proc/scores"), "--out")
