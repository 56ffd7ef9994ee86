"""What runs in a project, how far it is, and how long it will still take."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pipeline_fixtures import ROOT, call_main, environment, make_project
from test_record import record

from deepcustom.base import progress as progress_module
from deepcustom.base.errors import InputError
from deepcustom.base.files import this_machine
from deepcustom.base.progress import progress
from deepcustom.pipeline.watch import state as state_module
from deepcustom.pipeline.watch.beacon import Beacon, telling
from deepcustom.pipeline.watch.curve import curves
from deepcustom.pipeline.watch.left import After, Earlier, Records, after, left
from deepcustom.pipeline.watch.look import Watcher
from deepcustom.pipeline.watch.memory import free_and_whole, held
from deepcustom.pipeline.watch.plan import Plan, plan
from deepcustom.pipeline.watch.quantities import counted, size, span
from deepcustom.pipeline.watch.sparkline import BLOCKS, PLAIN, levels_for, sparkline
from deepcustom.pipeline.watch.state import FOLDER, Process, State, states, this_process

STAGE = "train_dgn@mnist-lrp"


def state(root: Path, **changes: Any) -> State:
    """A stage that this process runs, which began a minute ago."""
    now = time.time()
    given: dict[str, Any] = {
        "stage": STAGE,
        "folder": str(root),
        "checkpoint": str(root / ".checkpoints/train_dgn/mnist-lrp"),
        "machine": this_machine(),
        "process": this_process(),
        "began": now - 60,
        "written": now,
    }
    return State(**given | changes)


CHILD = """
import sys, time
from pathlib import Path
from deepcustom.base.progress import progress
from deepcustom.pipeline.watch.beacon import telling
root = Path(sys.argv[1])
with telling(root, "train_dgn@mnist-lrp", root / "none"), progress("train_dgn@mnist-lrp", 10) as advance:
    advance("loss 0.5")
    advance("epoch 2", steps=0)
    print("under way", flush=True)
    time.sleep(600)
"""


@contextlib.contextmanager
def made_up_stage(root: Path, how: int = signal.SIGKILL) -> Iterator[subprocess.Popen[str]]:
    """A stage in another process, as far as its second step; it is ended in the end."""
    words = [sys.executable, "-c", CHILD, str(root)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout
            assert child.stdout.readline() == "under way\n"
            until(lambda: any(one.done == 1 for one in states(root)))
            yield child
        finally:
            child.send_signal(how)


def until(true: Any, seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)
    return found


def seen(root: Path, *words: str) -> str:
    """What ``deepcustom watch --once`` prints of a project, from another folder."""
    command = [sys.executable, "-m", "deepcustom.cli", "watch", "--once", "--folder", str(root)]
    done = subprocess.run([*command, *words], cwd="/", capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "params.yaml").write_text("seed: 1\n")
    return tmp_path


# The command


def test_a_stage_in_another_process_is_seen_and_so_is_that_it_was_killed(project: Path) -> None:
    with made_up_stage(project):
        text = seen(project)
        told = json.loads(seen(project, "--json"))
    assert text.startswith(f"{STAGE}, runs for ")
    assert "1 of 10 done  loss 0.5" in text
    assert "now: epoch 2, for " in text
    assert " held, " in text
    assert told["at_work"]
    assert [(one["stage"], one["done"], one["total"]) for one in told["running"]] == [
        (STAGE, 1, 10)
    ]
    text = seen(project)
    assert "nothing runs in" in text
    assert f"last: {STAGE} was killed at " in text
    assert json.loads(seen(project, "--json"))["last"]["how"] == "killed"


def test_two_projects_are_told_apart(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    with made_up_stage(one):
        assert Watcher(one).look().at_work
        assert not Watcher(other).look().at_work
        (other / "workspaces").mkdir()
        (other / "workspaces/smoke").symlink_to(one)
        hint = Watcher(other).look().lines()[-1]
    assert hint == "the profile smoke runs: `deepcustom watch --profile smoke`"


def test_where_nothing_ever_ran_it_says_so(project: Path, capfd: Any) -> None:
    assert call_main(project, "watch") == 0
    assert capfd.readouterr().out.splitlines() == [
        f"nothing runs in {project}",
        "last: nothing ran here yet",
    ]
    assert not (project / ".checkpoints").exists()


def test_where_only_records_tell_it_is_the_newest(project: Path, capfd: Any) -> None:
    record(stage="prepare", item="mnist").write(project / "reports/runs/mnist/prepare")
    assert call_main(project, "watch", "--once") == 0
    assert "last: prepare@mnist began at 2026-01-0" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, "finished"),
        (InputError("no such file"), "failed: no such file"),
        (ValueError("somebody's secret"), "failed: ValueError"),
        (KeyboardInterrupt(), "was interrupted"),
    ],
)
def test_how_the_last_stage_ended_is_said(
    tmp_path: Path, error: BaseException | None, expected: str
) -> None:
    with contextlib.suppress(BaseException), telling(tmp_path, STAGE, tmp_path / "none"):
        if error:
            raise error
    ended = Watcher(tmp_path).look().how_it_ended()
    how, _, why = expected.partition(": ")
    assert ended.startswith(f"{STAGE} {how} at ")
    assert ended.endswith(f": {why}" if why else ended[-5:])


def test_it_ends_when_the_pipeline_does(project: Path) -> None:
    command = [sys.executable, "-m", "deepcustom.cli", "watch", "--folder", str(project)]
    with (
        made_up_stage(project) as stage,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching,
    ):
        assert watching.stdout
        assert watching.stdout.readline().startswith(STAGE)
        stage.kill()
        rest = watching.communicate(timeout=60)[0]
    assert watching.returncode == 0
    assert "was killed" in rest.splitlines()[-1]


def test_ctrl_c_ends_it_with_0(project: Path) -> None:
    # A shell that runs this in the background has its children disregard Ctrl-C.
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += f"sys.argv = ['deepcustom', 'watch', '--folder', {str(project)!r}]; "
    command = [sys.executable, "-c", f"{code}from deepcustom.cli import main; main()"]
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with made_up_stage(project), subprocess.Popen(command, **both) as one:  # type: ignore[call-overload]
        assert one.stdout.readline().startswith(STAGE)
        one.send_signal(signal.SIGINT)
        errors = one.communicate(timeout=60)[1]
    assert one.returncode == 0, errors
    assert "Traceback" not in errors


def test_a_folder_that_is_no_project_is_refused(tmp_path: Path, capfd: Any) -> None:
    assert call_main(tmp_path, "watch", "--folder", str(tmp_path)) == 2
    assert "no dvc.yaml there" in capfd.readouterr().err


def test_between_two_stages_the_pipeline_is_at_work(tmp_path: Path) -> None:
    watcher = Watcher(tmp_path, seen=this_process())
    found = watcher.look()
    assert found.at_work
    assert found.lines()[0] == "DVC is at work, and no stage runs at this moment"


def test_a_dvc_repro_is_found_before_its_first_stage(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "dvc").write_text("import time\ntime.sleep(600)\n")
    (tmp_path / "below/.dvc").mkdir(parents=True)
    with subprocess.Popen([sys.executable, str(tmp_path / "dvc"), "repro"], cwd=tmp_path) as child:
        try:
            until(lambda: Watcher(tmp_path).look().between)
            assert not Watcher(tmp_path / "below").look().between
        finally:
            child.kill()
    assert not Watcher(tmp_path).look().between


# The file


def test_a_later_process_of_the_same_number_is_not_taken_for_the_stage(tmp_path: Path) -> None:
    mine = this_process()
    state(tmp_path, process=Process(pid=mine.pid, created=mine.created - 1000)).write()
    (one,) = states(tmp_path)
    assert one.ended
    assert one.ended.how == "killed"


def test_another_machine_counts_as_ended_when_it_is_silent(tmp_path: Path) -> None:
    now = time.time()
    state(tmp_path, machine="0" * 8, written=now - 5).write()
    assert states(tmp_path)[0].ended is None
    state(tmp_path, machine="0" * 8, written=now - 2 * state_module.SILENT).write()
    assert states(tmp_path)[0].ended


@pytest.mark.parametrize("text", ["", "{", "[]", '{"stage": 1}'])
def test_a_damaged_file_stops_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / FOLDER).mkdir(parents=True)
    (tmp_path / FOLDER / "a.json").write_text(text)
    assert states(tmp_path) == []
    with telling(tmp_path, STAGE, tmp_path / "none"):
        assert [one.stage for one in states(tmp_path)] == [STAGE]


def test_an_experiments_copy_is_seen_from_its_project(tmp_path: Path) -> None:
    copy = tmp_path / ".dvc/tmp/exps/standalone/x"
    copy.mkdir(parents=True)
    with telling(copy, STAGE, copy / "none"):
        assert [one.folder for one in states(tmp_path)] == [str(copy)]
    assert not (copy / ".checkpoints").exists()


def test_a_folder_that_cannot_be_written_hinders_no_stage(tmp_path: Path) -> None:
    (tmp_path / ".checkpoints").write_text("a file")
    done = False
    with telling(tmp_path, STAGE, tmp_path / "none"):
        done = True
    assert done


def test_only_what_the_terminal_shows_follows_and_nothing_does_afterwards(tmp_path: Path) -> None:
    with telling(tmp_path, STAGE, tmp_path / "none"):
        assert isinstance(progress_module.follower, Beacon)
    assert progress_module.follower is None


def test_a_look_costs_little(tmp_path: Path) -> None:
    beacon = Beacon(tmp_path, STAGE, tmp_path / "none")
    begin = time.thread_time()
    for done in range(100):
        beacon.standing = progress_module.Standing(STAGE, 100, done=done)
        beacon._look()
    assert (time.thread_time() - begin) / 100 < 0.01  # of each second


# Beside the progress


def test_lines_say_what_is_left_and_the_memory(tmp_path: Path, capsys: Any) -> None:
    with telling(tmp_path, STAGE, tmp_path / "none"), progress(STAGE, 4, every=0.01) as advance:
        follower = progress_module.follower
        assert isinstance(follower, Beacon)
        time.sleep(0.05)
        advance("loss 0.5")
        follower._look()
        time.sleep(0.05)
        advance("loss 0.4")
        advance("loss 0.3", steps=2)
    *_, before, last = capsys.readouterr().out.splitlines()
    assert "  [about 0 s left at this pace; " in before
    assert before.endswith(" free]")
    assert last == f"{STAGE}: 4/4, 0 s  loss 0.3"


def test_a_terminal_shows_the_curve_below_the_bar(tmp_path: Path, monkeypatch: Any) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    with telling(tmp_path, STAGE, tmp_path / "none"), progress(STAGE, 4) as advance:
        follower = progress_module.follower
        assert isinstance(follower, Beacon)
        follower._curves.whole = {"loss": [3.0, 2.0, 1.0]}
        follower._look()
        advance("loss 1.0")
        time.sleep(0.3)
    assert "1.0000" in screen.getvalue()
    assert " free; loss " in screen.getvalue()


# Estimates


def test_the_pace_of_a_training_tells_what_is_left(tmp_path: Path) -> None:
    one = state(tmp_path, total=10, done=6, resumed=4, steps_began=1000.0, moved=1020.0)
    found = left(one, Earlier(5.0, "2026-01-02"), 1025.0)
    assert found
    assert found.seconds == pytest.approx(4 * 10.0 - 5.0)
    assert found.line() == "about 35 s left at this pace"


def test_before_the_first_step_the_record_tells_and_is_scaled(tmp_path: Path) -> None:
    one = state(tmp_path, total=30, began=1000.0, steps_began=1000.0)
    found = left(one, Earlier(100.0, "2026-01-02", steps=10), 1060.0)
    assert found
    assert found.seconds == pytest.approx(240.0)
    assert (
        found.line() == "about 4 min left by the record of 2026-01-02, for 30 steps in place of 10"
    )


def test_steps_of_an_evaluation_tell_no_pace(tmp_path: Path) -> None:
    one = state(
        tmp_path, stage="evaluate@mnist", total=10, done=5, steps_began=1000.0, moved=1010.0
    )
    assert left(one, None, 1010.0) is None
    found = left(one, Earlier(400.0, "2026-01-02"), 1010.0)
    assert found
    assert found.line().endswith("by the record of 2026-01-02")


def test_what_takes_longer_than_its_record_promises_nothing(tmp_path: Path) -> None:
    found = left(state(tmp_path, began=0.0), Earlier(40.0, "2026-01-02"), 100.0)
    assert found
    assert (found.seconds, found.line()) == (None, "longer than the 40 s of 2026-01-02")


def test_without_a_record_nothing_is_said(tmp_path: Path) -> None:
    assert left(state(tmp_path), None, time.time()) is None
    assert left(state(tmp_path, total=3, done=3), Earlier(40.0, "x"), time.time()) is None


def test_records_are_read_as_they_come(tmp_path: Path) -> None:
    records = Records(tmp_path)
    assert records.all() == {}
    curve = {"class_0/loss": [1.0, 0.5, 0.4], "class_1/loss": [1.0, 0.5, 0.4], "loss": [1.0] * 3}
    record(stage="train_dgn", item="mnist-lrp", history=curve, timings={}).write(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/run.json").write_text("{")
    found = records.all()
    assert list(found) == [STAGE]
    assert (found[STAGE].steps, found[STAGE].day) == (6, "2026-01-02")


def test_what_comes_after_is_counted_by_the_records(tmp_path: Path) -> None:
    known = {
        name: Earlier(100.0, "2026-01-02", repro="r" if name == "a" else None)
        for name in ("a", STAGE, "c")
    }
    one = state(tmp_path, repro="r")
    assert after(Plan(("a", STAGE, "c", "d"), True), one, known) == After(2, 100.0, 1)
    assert after(Plan(("a", "c", "d", STAGE), False), one, known) == After(2, 100.0, 1, False)
    assert After(2, 100.0, 0, False).line() == "2 other stages: at most 2 min by earlier records"
    assert After(2, 100.0, 1).line() == (
        "2 stages after it: at most 2 min by earlier records, 1 not counted"
    )
    assert After(1, 0.0, 1).line() == "1 stage after it, of which no record tells"
    assert After(0, 0.0, 0).line() == ""


# The order of stages


@pytest.mark.parametrize("targets", [[], ["evaluate@mnist"], ["train_dgn"], ["report"]])
def test_the_plan_is_dvcs_own(targets: list[str], tmp_path: Path) -> None:
    import shutil

    from dvc.repo import Repo
    from dvc.repo.reproduce import collect_stages, plan_repro

    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    with Repo.init(str(tmp_path), no_scm=True):
        pass
    with contextlib.chdir(tmp_path), Repo() as repo:
        chosen = collect_stages(repo, targets or ["dvc.yaml"])
        wanted = [one.addressing for one in plan_repro(repo.index.graph, chosen)]
    found = plan(tmp_path, ["python", "-m", "dvc", "repro", *targets])
    assert found
    assert set(found.stages) == set(wanted)
    if found.ordered:
        assert list(found.stages) == wanted
    assert found.ordered or targets


@pytest.mark.parametrize(
    ("words", "count"),
    [
        ("dvc repro -s train_target@mnist", 1),
        ("dvc repro --glob train_target@*", 4),
        ("dvc repro -f prepare", 2),
        ("dvc exp run --temp -S seed=2 prepare@mnist", 1),
        ("deepcustom repro --profile smoke prepare@mnist", 1),
        ("dvc repro --downstream prepare@mnist", None),
        ("dvc repro nothing@all", None),
        ("dvc status", None),
    ],
)
def test_what_a_command_asks_for(words: str, count: int | None) -> None:
    found = plan(ROOT, words.split())
    assert (len(found.stages) if found else None) == count


def test_a_pipeline_that_cannot_be_read_has_no_plan(tmp_path: Path) -> None:
    assert plan(tmp_path, ["dvc", "repro"]) is None
    (tmp_path / "dvc.yaml").write_text("stages: {a: {foreach: '${none}', do: {cmd: x}}}")
    (tmp_path / "params.yaml").write_text("seed: 1")
    assert plan(tmp_path, ["dvc", "repro"]) is None


# Words and pictures


def test_a_sparkline_rises_and_falls() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == BLOCKS
    assert sparkline([7, 0]) == BLOCKS[-1] + BLOCKS[0]
    assert sparkline([0.0, float("nan"), 1.0]) == f"{BLOCKS[0]}·{BLOCKS[-1]}"
    assert sparkline([2.0, 2.0]) == BLOCKS[4] * 2
    assert sparkline([float("nan")]) == "·"
    assert sparkline([]) == ""
    assert sparkline(list(range(1000)), width=8) == BLOCKS
    assert sparkline([0, 7], levels=PLAIN) == "_@"
    assert (levels_for("utf-8"), levels_for("ascii"), levels_for(None)) == (BLOCKS, PLAIN, PLAIN)


def test_curves_of_classes_stand_in_their_order() -> None:
    whole = {
        "class_10/loss": [3.0],
        "class_2/loss": [2.0],
        "class_0/loss": [1.0, 0.5],
        "class_0/mse": [9.0],
    }
    (found,) = curves(whole)
    assert (found.name, found.values) == ("loss", (1.0, 0.5, 2.0, 3.0))
    assert found.line().endswith(" 3.0000")


def test_spans_and_sizes() -> None:
    assert [span(s) for s in (5.4, 89, 91, 3600, 6000, 7200)] == [
        "5 s",
        "89 s",
        "2 min",
        "60 min",
        "1 h 40 min",
        "2 h",
    ]
    assert [size(b) for b in (412e6, 12.1e9)] == ["412 MB", "12.1 GB"]
    assert [counted(n, "stage") for n in (1, 2)] == ["1 stage", "2 stages"]


def test_memory_is_that_of_this_process() -> None:
    free, whole = free_and_whole()
    assert 0 < held(os.getpid()) < whole
    assert 0 <= free <= whole


# A real stage


def test_a_real_stage_leaves_how_it_ended_and_no_trace_in_its_record(tmp_path: Path) -> None:
    root = make_project(tmp_path / "p").root
    with environment(MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/mlflow.db"):
        assert call_main(root, "train_target", "--subject", "mnist") == 0
    (one,) = states(root)
    assert (one.stage, one.total, one.done) == ("train_target@mnist", 8, 8)
    assert one.ended
    assert one.ended.how == "finished"
    assert "free" not in (root / "reports/runs/mnist/train_target/run.json").read_text()
