"""The command line as a person or a script sees it: examples, streams, colours, tables, completion."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from pipeline_fixtures import ROOT, call_main
from quick import times_of_python
from rich.console import Console

from deepcustom import cli
from deepcustom.cli import terminal
from deepcustom.cli.examples import EXAMPLES
from deepcustom.evaluation.results import datasets_of, percent, read_csv
from deepcustom.report.blocks import blocks
from deepcustom.report.printed import print_tables

PROGRAM = Path(sys.executable).parent / "deepcustom"
ESCAPE, BOXES = "\x1b[", "│─╭╰━"
COLOURED = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|9[0-7]|4[0-8])(?:;\d+)*m")
SLOWEST = 6  # times what Python with typer takes; importing torch alone is eighteen
PLAIN = {
    key: value
    for key, value in os.environ.items()
    if key not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "GITHUB_ACTIONS", "PY_COLORS")
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Settings, the pipeline and saved tables: nothing that takes long."""
    for name in ("params.yaml", "dvc.yaml", "dvc.lock"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    shutil.copytree(ROOT / "reports/results", tmp_path / "reports/results")
    return tmp_path


def on_a_terminal(folder: Path, words: str, **env: str) -> str:
    """What a command prints to a terminal of 80 columns, on both streams."""
    ours, theirs = pty.openpty()
    environ = {**PLAIN, "TERM": "xterm-256color", "COLUMNS": "80", **env}
    with subprocess.Popen(
        [PROGRAM, *shlex.split(words)],
        cwd=folder,
        env=environ,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as running:
        os.close(theirs)
        said = b""
        while True:
            ready, _, _ = select.select([ours], [], [], 30)
            try:
                part = os.read(ours, 65536) if ready else b""
            except OSError:  # Linux says so when the other end is closed
                part = b""
            if not part:
                break
            said += part
        running.wait(timeout=30)
    os.close(ours)
    return said.decode()


def piped(folder: Path, words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *shlex.split(words)],
        cwd=folder,
        env={**PLAIN, **env},
        capture_output=True,
        text=True,
    )


# Examples


def commands(group: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every command and every group by its words, the whole first."""
    yield path, group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, f"{path} {name}".strip())


WHOLE = typer.main.get_command(cli.app)
COMMANDS = dict(commands(WHOLE))


def test_every_command_has_an_example_and_every_example_a_command() -> None:
    assert set(EXAMPLES) == set(COMMANDS)
    for path, command in COMMANDS.items():
        assert command.epilog.removeprefix("\b\n") == f"Example: {EXAMPLES[path]}"


@pytest.mark.parametrize("path", EXAMPLES)
def test_an_example_is_a_command_line_of_its_command(path: str) -> None:
    program, *words = shlex.split(EXAMPLES[path].partition(" > ")[0])
    assert program == "deepcustom"
    assert words[: len(path.split())] == path.split()
    command, name = WHOLE, ""
    context = command.make_context("deepcustom", list(words), resilient_parsing=False)
    while hasattr(command, "commands"):  # down to the command that the words name
        name, command, words = command.resolve_command(context, words)
        context = command.make_context(name, list(words), parent=context)
    given = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert given <= {option for one in command.params for option in one.opts}


def test_help_ends_with_the_example_in_one_line(tmp_path: Path) -> None:
    for path in ("", "add network", "runs"):
        done = piped(tmp_path, f"{path} --help")
        assert done.stdout.rstrip().endswith(f"Example: {EXAMPLES[path]}")


# Tables


def shown(width: int, subject: str) -> list[str]:
    """The tables of a subject as a terminal of ``width`` columns shows them."""
    console = Console(
        width=width,
        file=io.StringIO(),
        force_terminal=True,
        color_system=None,
        legacy_windows=False,
    )
    results = read_csv(ROOT / f"reports/results/{subject}.csv")
    print_tables(results, {}, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return str(text).splitlines()


@pytest.mark.parametrize("subject", ["mnist", "cifar10"])
@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_name_and_no_number_is_broken(width: int, subject: str) -> None:
    results = read_csv(ROOT / f"reports/results/{subject}.csv")
    lines = shown(width, subject)
    assert max(map(len, lines)) <= width
    words = set(" ".join(lines).split())
    assert {r.network for r in results} <= words
    assert {r.attack for r in results} <= words
    for one in results:
        assert {percent(one), f"{100 * one.accuracy:.1f}"} & words, one
    assert not any(word.endswith("-") and word != "-" for word in words)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_what_a_narrow_terminal_lacks_is_said(width: int) -> None:
    results = read_csv(ROOT / "reports/results/cifar10.csv")
    made = blocks(results, datasets_of(results)[0], {}, width)
    parts = [re.search(r"\((\d) of (\d)\)", one.title) for one in made]
    for one, part in zip(made, parts, strict=True):
        last = part is None or part[1] == part[2]
        notes = " ".join(one.notes)
        cells = [text.plain for column in one.columns[1:] for text in column[1:]]
        assert ("In " in notes) == (last and part is not None)
        if last:
            assert ("Left out: each number's interval" in notes) == not_any_interval(cells)
    needed = [
        int(n) for one in made for n in re.findall(r"in (\d+) it is one", " ".join(one.notes))
    ]
    assert all(n > width for n in needed)
    assert bool(needed) == any(parts)


def not_any_interval(cells: list[str]) -> bool:
    return not any("[" in cell for cell in cells)


def test_a_name_wider_than_the_terminal_stays_whole() -> None:
    from dataclasses import replace

    results = read_csv(ROOT / "reports/results/mnist.csv")
    name = "a-network-of-a-very-long-name-indeed"
    some = [replace(r, network=name) for r in results if r.network == "target"]
    console = Console(width=20, file=io.StringIO())
    print_tables(some, {}, console)
    assert name in console.file.getvalue()  # type: ignore[attr-defined]


# Streams


@pytest.mark.parametrize("words", ["results", "losses", "--help", "add bank --help"])
def test_what_is_piped_has_neither_colours_nor_boxes(words: str, project: Path) -> None:
    done = piped(project, words)
    assert done.returncode == 0
    assert done.stdout
    assert not set(BOXES) & set(done.stdout)
    assert ESCAPE not in done.stdout
    assert done.stderr == ""


def test_an_error_is_plain_when_piped(project: Path) -> None:
    done = piped(project, "results --fast")
    assert (done.returncode, done.stdout) == (2, "")
    assert "No such option" in done.stderr
    assert not set(BOXES) & set(done.stderr)


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        ("results --json", {"results"}),
        ("losses --json", {"losses"}),
        (
            "add bank mild --subject mnist --loss nce --dry-run --json",
            {"change", "dry_run", "rows", "removed", "will_run", "differences"},
        ),
        (
            "remove bank lrp --subject mnist --dry-run --json",
            {"change", "dry_run", "rows", "removed", "will_run", "differences"},
        ),
    ],
)
def test_json_is_one_document(
    words: str, keys: set[str], project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call_main(project, *words.split()) == 0
    assert set(json.loads(capsys.readouterr().out)) == keys


def test_json_of_results_has_every_row(project: Path) -> None:
    found = json.loads(piped(project, "results --json").stdout)["results"]
    kept = [
        r for name in ("cifar10", "mnist") for r in read_csv(ROOT / f"reports/results/{name}.csv")
    ]
    assert [(r["network"], r["attack"], r["accuracy"]) for r in found] == [
        (r.network, r.attack, r.accuracy) for r in kept
    ]


PRINTS = """
import subprocess, sys
from deepcustom.base.progress import progress
from deepcustom.cli.terminal import answering, print_json
with answering(quiet=len(sys.argv) > 1) as answer:
    print("note: on the way")
    print("warning: odd")
    subprocess.run(["echo", "another program"])
    with progress("work", 1) as advance:
        advance("done")
    print_json({"number": float("nan")}, answer)
print("after")
"""


@pytest.mark.parametrize("quiet", [False, True])
def test_the_answer_is_alone_on_stdout(quiet: bool) -> None:
    words = [sys.executable, "-c", PRINTS, *(["quiet"] if quiet else [])]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    document, _, after = done.stdout.rpartition("}\n")
    assert json.loads(document + "}") == {"number": None}
    assert after == "after\n"
    assert "warning: odd" in done.stderr
    for part in ("note: on the way", "another program", "work: 1/1"):
        assert (part in done.stderr) != quiet


# Colours


def test_a_terminal_has_colours_and_boxes(project: Path) -> None:
    said = on_a_terminal(project, "train_dgn --help")
    assert COLOURED.search(said)
    assert "╭" in said
    assert "─" in on_a_terminal(project, "results")


@pytest.mark.parametrize("words", ["train_dgn --help", "results --fast", "results", "losses"])
def test_no_color_has_no_colours(words: str, project: Path) -> None:
    assert not COLOURED.search(on_a_terminal(project, words, NO_COLOR="1"))


@pytest.mark.parametrize("words", ["train_dgn --help", "results --fast", "results"])
def test_a_dumb_terminal_has_plain_text(words: str, project: Path) -> None:
    said = on_a_terminal(project, words, TERM="dumb")
    assert said.strip()
    assert ESCAPE not in said
    assert not set(BOXES) & set(said)


def test_force_color_has_colours_in_a_pipe(project: Path) -> None:
    env = {"FORCE_COLOR": "1", "TERM": "xterm-256color"}
    assert COLOURED.search(piped(project, "train_dgn --help", **env).stdout)
    assert ESCAPE in piped(project, "results", **env).stdout
    assert not COLOURED.search(piped(project, "train_dgn --help", **env, NO_COLOR="1").stdout)


@pytest.mark.parametrize(
    ("env", "expected"),
    [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "TERM": "dumb"}, False)],
)
def test_drawing_without_a_terminal(
    env: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert terminal.is_drawn_on() is expected


# Completion


def completed(folder: Path, line: str) -> list[str]:
    """What the shell is offered for ``line``, and nothing on stderr."""
    words = line.split(" ")
    env = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = piped(folder, "", _DEEPCUSTOM_COMPLETE="complete_bash", **env)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("deepcustom tra", ["train_target", "train_dgn", "train_online", "trace"]),
        ("deepcustom train_dgn --subject ", ["mnist", "cifar10"]),
        ("deepcustom train_dgn --subject mnist --bank n", ["nce", "nce-ball"]),
        ("deepcustom adversarial_train --subject mnist --network m", ["madry"]),
        ("deepcustom train_online --subject mnist --network ", ["online"]),
        ("deepcustom attack --subject cifar10 --attack f", ["fgsm"]),
        ("deepcustom results --profile ", ["default", "paper", "smoke"]),
        ("deepcustom remove network --subject mnist mad", ["madry"]),
        ("deepcustom repro train_target@m", ["train_target@mnist"]),
        ("deepcustom trace models/target/", ["models/target/cifar10.safetensors"]),
        (
            "deepcustom trace mnist/madry/worst/a",
            ["mnist/madry/worst/adaptive", "mnist/madry/worst/all"],
        ),
    ],
)
def test_values_are_completed(line: str, expected: list[str], project: Path) -> None:
    assert set(expected) <= set(completed(project, line))
    if not line.endswith(("/", " ")):
        assert completed(project, line) == expected


def test_many_paths_are_offered_by_their_beginnings(project: Path) -> None:
    assert set(completed(project, "deepcustom trace ")) >= {"models/", "mnist/", "cifar10/"}


@pytest.mark.parametrize("text", ["a: [", "", "train_dgn: 3\nsubjects: 4", "subjects: [1]"])
def test_completion_is_silent_in_a_broken_project(text: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(text)
    (tmp_path / "dvc.lock").write_bytes(b"\xff")
    for line in ("train_dgn --subject ", "train_dgn --bank ", "trace ", "repro train_dgn@"):
        assert completed(tmp_path, f"deepcustom {line}") == []


def test_completion_is_quick(project: Path) -> None:
    assert times_of_python(lambda: completed(project, "deepcustom trace mnist/"), SLOWEST) < SLOWEST


def test_bash_completes(project: Path) -> None:
    """Through the very script that is installed."""
    bash = shutil.which("bash")
    assert bash, "there is no bash here"
    source = piped(project, "", _DEEPCUSTOM_COMPLETE="source_bash").stdout
    ask = (
        "COMP_WORDS=(deepcustom train_dgn --subject mn); COMP_CWORD=3; COMPREPLY=()\n"
        "$(complete -p deepcustom | sed 's/.*-F \\([^ ]*\\).*/\\1/') deepcustom\n"
        'echo "${COMPREPLY[@]}"\n'
    )
    path = f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [bash, "--norc", "-c", source + ask],
        cwd=project,
        env={**PLAIN, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("mnist\n", "")


def test_completion_can_be_installed(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = piped(tmp_path, "--install-completion bash", **env)
    assert done.returncode == 0, done.stderr
    assert "deepcustom" in (tmp_path / ".bashrc").read_text()
