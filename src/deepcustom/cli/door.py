"""One command per stage, and the helpers around them."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepcustom import stages
from deepcustom.base.errors import DeepCustomError, UnknownNameError
from deepcustom.base.helper import is_helper, keep_quiet
from deepcustom.base.progress import heartbeat
from deepcustom.base.waiting import wait_asleep
from deepcustom.cli import change, complete, examples, records, terminal
from deepcustom.cli.doctor import doctor
from deepcustom.cli.evaluate import evaluate
from deepcustom.cli.experiment import experiment
from deepcustom.cli.following import followed
from deepcustom.cli.init import init
from deepcustom.cli.leaderboard import leaderboard
from deepcustom.cli.page import page
from deepcustom.cli.place import Folder, Profile, folder_of, here
from deepcustom.cli.remote import pull, push
from deepcustom.cli.results import results
from deepcustom.cli.terminal import Json, Quiet, answering, print_json
from deepcustom.cli.watch import watch
from deepcustom.pipeline.workspace import SPLITS

if TYPE_CHECKING:
    from deepcustom.pipeline.workspace import Workspace

app = typer.Typer(
    help="Adversarial images from trained generators: make them, harden with them, "
    "and say honestly how robust the result is.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(records.runs, name="runs")
app.add_typer(change.add, name="add")
app.add_typer(change.remove, name="remove")

INTERRUPTED = 130  # what typer ends with on Ctrl-C


def _split(name: str) -> str:
    if name not in SPLITS:
        raise UnknownNameError("split", name, SPLITS)
    return name


STAGES, HELPERS = "Stages (what dvc repro calls)", "Helpers"
Dataset = Annotated[
    str,
    typer.Option(
        help="Data set: its row of prepare in params.yaml.", autocompletion=complete.datasets
    ),
]
Subject = Annotated[
    str,
    typer.Option(
        help="What is attacked: its name below subjects in params.yaml.",
        autocompletion=complete.subjects,
    ),
]
Bank = Annotated[
    str,
    typer.Option(
        help="Bank of DGNs, as a row of params.yaml names it.", autocompletion=complete.banks
    ),
]
Attack = Annotated[
    str,
    typer.Option(help="Attack, as a row of params.yaml names it.", autocompletion=complete.attacks),
]
Split = Annotated[
    str,
    typer.Option(help="train, val or test.", callback=_split, autocompletion=complete.splits),
]
Network = Annotated[
    str,
    typer.Option(
        help="Robust network, as a row of params.yaml names it.",
        autocompletion=complete.networks,
    ),
]


Targets = Annotated[
    list[str] | None,
    typer.Argument(help="Stages; all by default.", autocompletion=complete.targets),
]


@contextmanager
def _stage(module: str, *names: str) -> Iterator[Workspace]:
    """The project, while a stage runs, which answers nothing: all that it prints is about its progress."""
    with answering(), followed(module, *names) as ws:
        yield ws


@app.command("prepare", rich_help_panel=STAGES)
def prepare(dataset: Dataset) -> None:
    """Fetch and verify a data set; carve train, val and test."""
    from deepcustom.stages import prepare as stage

    with _stage(stage.__name__, dataset) as ws:
        stage.run(ws, dataset)


@app.command("train_target", rich_help_panel=STAGES)
def train_target(subject: Subject) -> None:
    """Train the network under attack."""
    from deepcustom.stages import train_target as stage

    with _stage(stage.__name__, subject) as ws:
        stage.run(ws, subject)


@app.command("relevance", rich_help_panel=STAGES)
def relevance(subject: Subject) -> None:
    """Find each class's most relevant pixels (LRP, or gradients)."""
    from deepcustom.stages import relevance as stage

    with _stage(stage.__name__, subject) as ws:
        stage.run(ws, subject)


@app.command("suspiciousness", rich_help_panel=STAGES)
def suspiciousness(subject: Subject) -> None:
    """Find each class's most suspicious units (hit spectra)."""
    from deepcustom.stages import suspiciousness as stage

    with _stage(stage.__name__, subject) as ws:
        stage.run(ws, subject)


@app.command("train_dgn", rich_help_panel=STAGES)
def train_dgn(subject: Subject, bank: Bank) -> None:
    """Train one bank of DGNs: a generator per class, or one that is told the label."""
    from deepcustom.stages import train_dgn as stage

    with _stage(stage.__name__, subject, bank) as ws:
        stage.run(ws, subject, bank)


@app.command("generate", rich_help_panel=STAGES)
def generate(subject: Subject, bank: Bank, split: Split) -> None:
    """Make an adversarial set with a bank of DGNs."""
    from deepcustom.stages import generate as stage

    with _stage(stage.__name__, subject, bank, split) as ws:
        stage.run(ws, subject, bank, split)


@app.command("attack", rich_help_panel=STAGES)
def attack(subject: Subject, attack: Attack, split: Split) -> None:
    """Make an adversarial set with ART's FGSM or PGD."""
    from deepcustom.stages import attack as stage

    with _stage(stage.__name__, subject, attack, split) as ws:
        stage.run(ws, subject, attack, split)


@app.command("adversarial_train", rich_help_panel=STAGES)
def adversarial_train(subject: Subject, network: Network) -> None:
    """Train a robust network."""
    # Before anything imports tqdm: ART draws two bars an epoch, and the stage itself tells more.
    os.environ.setdefault("TQDM_DISABLE", "1")
    from deepcustom.stages import adversarial_train as stage

    with _stage(stage.__name__, subject, network) as ws:
        stage.run(ws, subject, network)


@app.command("train_online", rich_help_panel=STAGES)
def train_online(subject: Subject, network: Network) -> None:
    """Train a robust network and a generator against each other."""
    from deepcustom.stages import train_online as stage

    with _stage(stage.__name__, subject, network) as ws:
        stage.run(ws, subject, network)


app.command("evaluate", rich_help_panel=STAGES)(evaluate)


@app.command("report", rich_help_panel=STAGES)
def report(subject: Subject) -> None:
    """Write the page and its figures."""
    from deepcustom.stages import report as stage

    with _stage(stage.__name__, subject) as ws:
        stage.run(ws, subject)


@app.command("gallery", rich_help_panel=STAGES)
def gallery(subject: Subject) -> None:
    """Choose images of each adversarial test set, for the page."""
    from deepcustom.stages import gallery as stage

    with followed(stage.__name__, subject) as ws:
        stage.run(ws, subject)


app.command("page", rich_help_panel=STAGES)(page)
app.command("init", rich_help_panel=HELPERS)(init)


@app.command("repro", rich_help_panel=HELPERS)
def repro(
    targets: Annotated[
        list[str] | None,
        typer.Argument(help="Stages; all by default.", autocompletion=complete.targets),
    ] = None,
    profile: Profile = "default",
    folder: Folder = None,
) -> None:
    """Run dvc repro under a profile."""
    from deepcustom.pipeline.profile import reproduce, workspace

    project = here()
    code = reproduce(workspace(project, profile, folder), targets or [], project)
    raise typer.Exit(code)


app.command("watch", rich_help_panel=HELPERS)(watch)
app.command("doctor", rich_help_panel=HELPERS)(doctor)
app.command("results", rich_help_panel=HELPERS)(results)
app.command("leaderboard", rich_help_panel=HELPERS)(leaderboard)


@app.command("rescore", rich_help_panel=HELPERS)
def rescore(quiet: Quiet = False, as_json: Json = False) -> None:
    """Score the published networks again, without training; compare with the committed tables."""
    from dataclasses import asdict

    from deepcustom.base.params import read_params
    from deepcustom.pipeline import rescore as again
    from deepcustom.pipeline.hardened import hardened_networks
    from deepcustom.report.printed import print_tables, say

    with answering(quiet) as answer:
        found, compared = again.rescore(here(), run_words)
        if as_json:
            lines = [{**asdict(one), "alike": one.alike} for one in compared]
            print_json({"results": [asdict(one) for one in found], "compared": lines}, answer)
            again.say_differences(compared, lambda line: None)
            return
        console = terminal.console_on(answer)
        print_tables(found, hardened_networks(read_params(here().params)), console)
        again.say_differences(compared, lambda line: say(console, line))


def run_words(words: Sequence[str]) -> None:
    """Run a command in this process; its errors are the caller's."""
    app(list(words), standalone_mode=False)


app.command("push", rich_help_panel=HELPERS)(push)
app.command("pull", rich_help_panel=HELPERS)(pull)


app.command("trace", rich_help_panel=HELPERS)(records.trace)


@app.command("upgrade", rich_help_panel=HELPERS)
def upgrade(as_json: Json = False) -> None:
    """Write dvc.yaml, and deepcustom.lock where it is needed, for the code of now; say what will run."""
    from deepcustom.base.params import read_params
    from deepcustom.pipeline import dvc, template
    from deepcustom.pipeline.outputs import keep_folders

    root = here().root
    with answering() as answer:
        changed = template.upgrade(root)
        keep_folders(root, read_params(root / "params.yaml"))
        again = dvc.status(root)
        if as_json:
            print_json({"other_code": list(changed), "will_run": list(again)}, answer)
        else:
            print(f"other code than before: {', '.join(changed) or 'no stage'}", file=answer)
            print(f"will run again: {', '.join(again) or 'nothing'}", file=answer)


@app.command("losses", rich_help_panel=HELPERS)
def losses(as_json: Json = False) -> None:
    """List the losses that a DGN can be trained on."""
    from deepcustom.attacks.losses import listing

    with answering() as answer:
        if as_json:
            print_json({"losses": listing.losses_listed()}, answer)
        else:
            for line in listing.losses_lines():
                terminal.console_on(answer).print(line)


@app.command("ui", rich_help_panel=HELPERS)
def ui(
    profile: Profile = "default",
    folder: Folder = None,
    host: Annotated[str, typer.Option(help="Address to bind to.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Port; the first free one from 5000.")] = None,
) -> None:
    """Start the MLflow UI on the runs."""
    from deepcustom.tracking.ui import serve_ui

    serve_ui(folder_of(profile, folder), host, port)


examples.show(app)

OLD_OPTIONS = {
    **{(stage, "--dataset"): "--subject" for stage in stages.NAMES if stage != "prepare"},
    **{(stage, "--loss"): "--bank" for stage in ("train_dgn", "generate")},
}
"""What options were called, by the command that they are for."""


def _renewed(words: Sequence[str]) -> list[str]:
    """``words`` of the command line with options by today's names; says which were old."""
    found = []
    for word in words:
        option, equals, value = word.partition("=")
        now = OLD_OPTIONS.get((words[0], option))
        if now:
            print(f"hint: {option} is called {now} now", file=sys.stderr)
        found.append(f"{now}{equals}{value}" if now else word)
    return found


def main() -> None:
    """Run; every mistake is one line, never a traceback."""
    if complete.is_asked():
        complete.answer(app)
        return
    wait_asleep()
    if is_helper():
        keep_quiet()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal cannot show is no reason to stop
            stream.reconfigure(errors="backslashreplace")
    words: list[str] = []
    try:
        words = _renewed(sys.argv[1:])
        with heartbeat(" ".join(["deepcustom", *words])), experiment(Path.cwd()):
            terminal.call(app, words)
    except DeepCustomError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if _was_interrupted(error):
            _tell_interrupted(words)
            sys.exit(INTERRUPTED)
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            _tell_interrupted(words)
        raise


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C led to ``error``: shutil.rmtree, cut off at the wrong moment, closes a file twice."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _tell_interrupted(words: Sequence[str]) -> None:
    goes_on = "the same command goes on" if words[:1] == ["evaluate"] else ""
    print(f"interrupted; {goes_on or 'nothing half-written is left'}", file=sys.stderr)
