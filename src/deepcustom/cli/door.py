"""One command per stage, and the helpers around them."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepcustom import stages
from deepcustom.base.errors import DeepCustomError, InputError, TrackingError, UnknownNameError
from deepcustom.base.files import check_writable, replace_file
from deepcustom.base.progress import heartbeat
from deepcustom.base.waiting import wait_asleep
from deepcustom.cli import change
from deepcustom.cli.evaluate import evaluate
from deepcustom.cli.experiment import experiment
from deepcustom.cli.following import followed
from deepcustom.cli.init import init
from deepcustom.cli.page import page
from deepcustom.pipeline.workspace import SPLITS

if TYPE_CHECKING:
    from deepcustom.pipeline.workspace import Workspace

app = typer.Typer(
    help="Adversarial images from trained generators: make them, harden with them, "
    "and say honestly how robust the result is.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
runs = typer.Typer(help="Records of stage runs.", no_args_is_help=True)
app.add_typer(runs, name="runs")
app.add_typer(change.add, name="add")
app.add_typer(change.remove, name="remove")

UNCUT = 10_000  # characters a line, for what is piped or kept: no hash is cut short
INTERRUPTED = 130  # what typer ends with on Ctrl-C


def _split(name: str) -> str:
    if name not in SPLITS:
        raise UnknownNameError("split", name, SPLITS)
    return name


STAGES, HELPERS = "Stages (what dvc repro calls)", "Helpers"
Dataset = Annotated[str, typer.Option(help="Data set: its row of prepare in params.yaml.")]
Subject = Annotated[
    str, typer.Option(help="What is attacked: its name below subjects in params.yaml.")
]
Bank = Annotated[str, typer.Option(help="Bank of DGNs, as a row of params.yaml names it.")]
Attack = Annotated[str, typer.Option(help="Attack, as a row of params.yaml names it.")]
Split = Annotated[str, typer.Option(help="train, val or test.", callback=_split)]
Network = Annotated[str, typer.Option(help="Robust network, as a row of params.yaml names it.")]
Profile = Annotated[str, typer.Option(help="Set of settings: default, paper or smoke.")]
Folder = Annotated[
    Path | None,
    typer.Option(help="Folder to work in; by default workspaces/PROFILE, for default this one."),
]


def _here() -> Workspace:
    from deepcustom.pipeline.workspace import Workspace

    return Workspace.here()


@app.command("prepare", rich_help_panel=STAGES)
def prepare(dataset: Dataset) -> None:
    """Fetch and verify a data set; carve train, val and test."""
    from deepcustom.stages import prepare as stage

    with followed(stage.__name__, dataset) as ws:
        stage.run(ws, dataset)


@app.command("train_target", rich_help_panel=STAGES)
def train_target(subject: Subject) -> None:
    """Train the network under attack."""
    from deepcustom.stages import train_target as stage

    with followed(stage.__name__, subject) as ws:
        stage.run(ws, subject)


@app.command("relevance", rich_help_panel=STAGES)
def relevance(subject: Subject) -> None:
    """Find each class's most relevant pixels (LRP, or gradients)."""
    from deepcustom.stages import relevance as stage

    with followed(stage.__name__, subject) as ws:
        stage.run(ws, subject)


@app.command("suspiciousness", rich_help_panel=STAGES)
def suspiciousness(subject: Subject) -> None:
    """Find each class's most suspicious units (hit spectra)."""
    from deepcustom.stages import suspiciousness as stage

    with followed(stage.__name__, subject) as ws:
        stage.run(ws, subject)


@app.command("train_dgn", rich_help_panel=STAGES)
def train_dgn(subject: Subject, bank: Bank) -> None:
    """Train one bank of DGNs: a generator per class, or one that is told the label."""
    from deepcustom.stages import train_dgn as stage

    with followed(stage.__name__, subject, bank) as ws:
        stage.run(ws, subject, bank)


@app.command("generate", rich_help_panel=STAGES)
def generate(subject: Subject, bank: Bank, split: Split) -> None:
    """Make an adversarial set with a bank of DGNs."""
    from deepcustom.stages import generate as stage

    with followed(stage.__name__, subject, bank, split) as ws:
        stage.run(ws, subject, bank, split)


@app.command("attack", rich_help_panel=STAGES)
def attack(subject: Subject, attack: Attack, split: Split) -> None:
    """Make an adversarial set with ART's FGSM or PGD."""
    from deepcustom.stages import attack as stage

    with followed(stage.__name__, subject, attack, split) as ws:
        stage.run(ws, subject, attack, split)


@app.command("adversarial_train", rich_help_panel=STAGES)
def adversarial_train(subject: Subject, network: Network) -> None:
    """Train a robust network."""
    # Before anything imports tqdm: ART draws two bars an epoch, and the stage itself tells more.
    os.environ.setdefault("TQDM_DISABLE", "1")
    from deepcustom.stages import adversarial_train as stage

    with followed(stage.__name__, subject, network) as ws:
        stage.run(ws, subject, network)


@app.command("train_online", rich_help_panel=STAGES)
def train_online(subject: Subject, network: Network) -> None:
    """Train a robust network and a generator against each other."""
    from deepcustom.stages import train_online as stage

    with followed(stage.__name__, subject, network) as ws:
        stage.run(ws, subject, network)


app.command("evaluate", rich_help_panel=STAGES)(evaluate)


@app.command("report", rich_help_panel=STAGES)
def report(subject: Subject) -> None:
    """Write the page and its figures."""
    from deepcustom.stages import report as stage

    with followed(stage.__name__, subject) as ws:
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
    targets: Annotated[list[str] | None, typer.Argument(help="Stages; all by default.")] = None,
    profile: Profile = "default",
    folder: Folder = None,
) -> None:
    """Run dvc repro under a profile."""
    from deepcustom.pipeline.profile import reproduce, workspace

    project = _here()
    code = reproduce(workspace(project, profile, folder), targets or [], project)
    raise typer.Exit(code)


@app.command("results", rich_help_panel=HELPERS)
def results(
    profile: Profile = "default",
    folder: Folder = None,
    into: Annotated[
        Path | None, typer.Option(help="Markdown file whose marked tables are brought up to date.")
    ] = None,
) -> None:
    """Print the tables of robust accuracies that evaluate saved."""
    from deepcustom.base.params import read_params
    from deepcustom.evaluation.results import read_csv
    from deepcustom.pipeline.hardened import hardened_networks
    from deepcustom.report.tables import fill_tables, print_tables

    root = _folder(profile, folder)
    files = sorted((root / "reports/results").glob("*.csv"))
    if not files:
        raise InputError("no results in reports/results: `deepcustom repro evaluate` makes them")
    found = [result for file in files for result in read_csv(file)]
    filled = fill_tables(_text_of(into), found) if into else ""
    print_tables(found, hardened_networks(read_params(root / "params.yaml")))
    if into:
        replace_file(into.resolve(), filled.encode())


def _text_of(into: Path) -> str:
    """The file whose tables are brought up to date, before anything is printed.

    Raises:
        InputError: it cannot be read, or its folder not be written.
    """
    check_writable(into.resolve().parent, "--into: the folder")
    try:
        return into.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InputError(f"--into {into}: cannot be read: {why}") from None


def run_words(words: Sequence[str]) -> None:
    """Run a command in this process; its errors are the caller's."""
    app(list(words), standalone_mode=False)


@app.command("rescore", rich_help_panel=HELPERS)
def rescore() -> None:
    """Score the published networks again, without training; compare with the committed tables."""
    from deepcustom.base.params import read_params
    from deepcustom.pipeline import rescore as again
    from deepcustom.pipeline.hardened import hardened_networks
    from deepcustom.report.tables import print_tables

    found, compared = again.rescore(_here(), run_words)
    print_tables(found, hardened_networks(read_params(_here().params)))
    again.say_differences(compared, print)


Remote = Annotated[
    str | None, typer.Option(help="DVC remote; by default the project's default remote.")
]


@app.command("push", rich_help_panel=HELPERS)
def push(remote: Remote = None) -> None:
    """Push the trained models, and own images that DVC keeps, to a DVC remote."""
    from deepcustom.pipeline.push import push as send

    raise typer.Exit(send(_here().root, remote))


@app.command("pull", rich_help_panel=HELPERS)
def pull(remote: Remote = None) -> None:
    """Fetch the trained models, and own images that DVC keeps, from a DVC remote."""
    from deepcustom.pipeline.push import pull as fetch

    raise typer.Exit(fetch(_here().root, remote))


@app.command("trace", rich_help_panel=HELPERS)
def trace(
    what: Annotated[
        str,
        typer.Argument(
            help="A stage's output, such as models/target/mnist.safetensors, or a number, such as "
            "mnist/nce/transfer/pgd."
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    profile: Profile = "default",
    folder: Folder = None,
) -> None:
    """Show where a number or file comes from, back to the raw data; verify every hash."""
    from rich.console import Console

    from deepcustom.pipeline import provenance
    from deepcustom.pipeline.trace import view as lineage_view
    from deepcustom.pipeline.trace.walk import trace as walk
    from deepcustom.pipeline.workspace import Workspace
    from deepcustom.tracking.store import run_ids

    root, project = _folder(profile, folder), provenance.checkout(_here().root)
    if why := provenance.trouble(project):
        print(f"warning: no commit is compared: {why}", file=sys.stderr)
    found = walk(Workspace(root), what, project)
    try:
        known = run_ids(root, found.run_keys())
    except TrackingError as error:
        print(f"warning: {error}", file=sys.stderr)
        known = {}
    if as_json:
        print(lineage_view.as_json(found, known))
    else:
        wide = None if sys.stdout.isatty() else UNCUT
        Console(width=wide, soft_wrap=True).print(lineage_view.tree(found, known))
    broken = found.broken()
    if broken:
        links = "; ".join(f"{where}: {check.name}: {check.detail}" for where, check in broken)
        raise DeepCustomError(f"{len(broken)} broken: {links}")


@app.command("upgrade", rich_help_panel=HELPERS)
def upgrade() -> None:
    """Write dvc.yaml, and deepcustom.lock where it is needed, for the code of now; say what will run."""
    from deepcustom.pipeline import dvc, template

    root = _here().root
    changed = template.upgrade(root)
    print(f"other code than before: {', '.join(changed) or 'no stage'}")
    again = dvc.status(root)
    print(f"will run again: {', '.join(again) or 'nothing'}")


@app.command("losses", rich_help_panel=HELPERS)
def losses() -> None:
    """List the losses that a DGN can be trained on."""
    from rich.console import Console

    from deepcustom.attacks.losses.listing import losses_table

    Console().print(losses_table())


@app.command("ui", rich_help_panel=HELPERS)
def ui(
    profile: Profile = "default",
    folder: Folder = None,
    host: Annotated[str, typer.Option(help="Address to bind to.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Port; the first free one from 5000.")] = None,
) -> None:
    """Start the MLflow UI on the runs."""
    from deepcustom.tracking.ui import serve_ui

    serve_ui(_folder(profile, folder), host, port)


@runs.command("sync")
def sync(profile: Profile = "default", folder: Folder = None) -> None:
    """Send the runs that the tracking store lacks, once each."""
    from deepcustom.tracking.store import sync as send_missing

    root = _folder(profile, folder)
    sent = send_missing(root / "reports/runs", root)
    for run in sent:
        print(f"{run.name}  {run.run_id}  {'sent' if run.new else 'there already'}")
    absent = [path for run in sent for path in run.absent]
    if absent:
        print(
            f"MLflow cannot load {len(absent)} networks, such as {absent[0]}, whose files are not here: "
            "`deepcustom pull` and this command again mend it"
        )
    print(f"{sum(run.new for run in sent)} sent, {sum(not run.new for run in sent)} there already")


def _folder(profile: str, folder: Path | None) -> Path:
    """Where a profile's files lie, without making anything."""
    from deepcustom.pipeline import profile as profiles

    return profiles.folder_of(_here(), profile, folder)


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
    wait_asleep()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal cannot show is no reason to stop
            stream.reconfigure(errors="backslashreplace")
    words: list[str] = []
    try:
        words = _renewed(sys.argv[1:])
        with heartbeat(" ".join(["deepcustom", *words])), experiment(Path.cwd()):
            app(words)
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
