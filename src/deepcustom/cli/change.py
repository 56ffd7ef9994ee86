"""``deepcustom add`` and ``deepcustom remove``: rows of ``params.yaml`` for a whole item at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
import yaml

from deepcustom.base.errors import InputError
from deepcustom.cli import complete
from deepcustom.cli.terminal import Json, answering, console_on, print_json

if TYPE_CHECKING:
    from deepcustom.pipeline.change.draft import Draft
    from deepcustom.pipeline.change.plan import Change

add = typer.Typer(
    help="Add a bank, a network, an attack or a subject to params.yaml.", no_args_is_help=True
)
remove = typer.Typer(
    help="Remove a bank, a network, an attack or a subject, with all that its runs left.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="Its name: letters, digits, '-' and '_'.")]
Subject = Annotated[
    str,
    typer.Option(
        help="Whose: a name below subjects in params.yaml.", autocompletion=complete.subjects
    ),
]


def _there(names: Callable[[typer.Context, str], list[str]]) -> Any:
    return typer.Argument(help="Its name, as a row of params.yaml names it.", autocompletion=names)


BankThere = Annotated[str, _there(complete.banks)]
AttackThere = Annotated[str, _there(complete.attacks)]
NetworkThere = Annotated[str, _there(complete.networks)]
SubjectThere = Annotated[str, _there(complete.subjects)]

Recipe = Annotated[
    str | None, typer.Option(help="Recipe; by default that of a row of the same kind.")
]
Given = Annotated[
    list[str] | None,
    typer.Option("--set", help="KEY=VALUE of its row, such as training.epochs=5; repeat it."),
]
Dry = Annotated[bool, typer.Option("--dry-run", help="Show the change; change nothing.")]


@add.command("bank")
def add_bank(
    name: Name,
    subject: Subject,
    loss: Annotated[
        str | None,
        typer.Option(
            help="A name of `deepcustom losses`, or package.module:Class; by default soft_margin.",
            autocompletion=complete.losses,
        ),
    ] = None,
    recipe: Recipe = None,
    given: Given = None,
    dry_run: Dry = False,
    as_json: Json = False,
) -> None:
    """Add a bank of DGNs, and its adversarial set of the test split."""
    from deepcustom.library.starting import LOSS
    from deepcustom.pipeline.change import added

    own = _settings(given)
    _add(lambda d: added.add_bank(d, subject, name, loss or LOSS, recipe, own), dry_run, as_json)


@add.command("attack")
def add_attack(
    name: Name,
    subject: Subject,
    method: Annotated[
        str, typer.Option(help="fgsm or pgd, of ART.", autocompletion=complete.methods)
    ],
    recipe: Recipe = None,
    given: Given = None,
    dry_run: Dry = False,
    as_json: Json = False,
) -> None:
    """Add an attack of ART, and its adversarial set of the test split."""
    from deepcustom.pipeline.change import added

    _add(
        lambda d: added.add_attack(d, subject, name, method, recipe, _settings(given)),
        dry_run,
        as_json,
    )


@add.command("network")
def add_network(
    name: Name,
    subject: Subject,
    kind: Annotated[
        str,
        typer.Option(
            "--type",
            help="Way of hardening: goodfellow (on the set of the bank or attack that it is called "
            "after), art, madry or online.",
            autocompletion=complete.ways,
        ),
    ],
    start: Annotated[
        str | None,
        typer.Option(
            help="What it starts from: anew (the default), target, or a .safetensors file of the project."
        ),
    ] = None,
    recipe: Recipe = None,
    given: Given = None,
    dry_run: Dry = False,
    as_json: Json = False,
) -> None:
    """Add a hardened network, and the adversarial set of the train split that it learns from."""
    from deepcustom.pipeline.change import added

    own = _settings(given)
    _add(lambda d: added.add_network(d, subject, name, kind, recipe, own, start), dry_run, as_json)


@add.command("subject")
def add_subject(
    name: Name,
    like: Annotated[
        str,
        typer.Option(
            help="The subject whose banks, attacks and networks it gets, too.",
            autocompletion=complete.subjects,
        ),
    ],
    eps: Annotated[
        str | None,
        typer.Option(help="Radius of its ball, such as 0.03 or 8/255; lengths of steps follow it."),
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="KEY=VALUE of its row below subjects, such as network=my.nets:Mine."
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="A bank, an attack or a network that it gets; repeat it; all by default."
        ),
    ] = None,
    dry_run: Dry = False,
    as_json: Json = False,
) -> None:
    """Add a subject: the images of another one, or its network, under another threat."""
    from deepcustom.pipeline.change import added

    own = _settings(given)
    if eps is not None:
        threat = own.get("threat", {})
        if not isinstance(threat, dict):
            raise InputError(f"--set threat={threat!r} and --eps {eps}: name one of them")
        own["threat"] = {**threat, "eps": _value("--eps", eps)}
    _add(lambda d: added.add_subject(d, name, like, own, only or ()), dry_run, as_json)


@remove.command("bank")
def remove_bank(
    name: BankThere, subject: Subject, dry_run: Dry = False, as_json: Json = False
) -> None:
    """Remove a bank, its adversarial sets, and the network that learned from them."""
    _remove("bank", subject, name, dry_run, as_json)


@remove.command("attack")
def remove_attack(
    name: AttackThere, subject: Subject, dry_run: Dry = False, as_json: Json = False
) -> None:
    """Remove an attack's adversarial sets, and the network that learned from them."""
    _remove("attack", subject, name, dry_run, as_json)


@remove.command("network")
def remove_network(
    name: NetworkThere, subject: Subject, dry_run: Dry = False, as_json: Json = False
) -> None:
    """Remove a hardened network, and the set of the train split that it alone learned from."""
    _remove("network", subject, name, dry_run, as_json)


@remove.command("subject")
def remove_subject(name: SubjectThere, dry_run: Dry = False, as_json: Json = False) -> None:
    """Remove a subject with all that belongs to it; the images stay."""
    _remove("subject", name, "", dry_run, as_json)


def _add(draw: Callable[[Draft], None], dry_run: bool, as_json: bool) -> None:
    from deepcustom.pipeline.change.plan import adding
    from deepcustom.pipeline.workspace import Workspace

    with answering() as answer:
        change = adding(Workspace.here(), draw)
        _make(change, "add", dry_run, as_json, answer)
        if not dry_run:
            print("`dvc repro` runs them")


def _remove(kind: str, subject: str, name: str, dry_run: bool, as_json: bool) -> None:
    from deepcustom.pipeline.change.plan import removing
    from deepcustom.pipeline.workspace import Workspace

    with answering() as answer:
        _make(removing(Workspace.here(), kind, subject, name), "remove", dry_run, as_json, answer)


def _make(change: Change, verb: str, dry_run: bool, as_json: bool, answer: TextIO) -> None:
    """Make a change, or show it line by line; then say what was done, and what will run."""
    from deepcustom.pipeline.change.forecast import in_words
    from deepcustom.report.printed import say

    differences, gone = list(change.differences()) if dry_run else [], list(change.removed())
    if not dry_run:
        change.make()
    if as_json:
        kept = {
            "change": verb,
            "dry_run": dry_run,
            "rows": change.rows,
            "removed": gone,
            "will_run": [asdict(one) for one in change.expected],
            "differences": differences,
        }
        print_json(kept, answer)
        return
    done = f"would {verb}" if dry_run else {"add": "added", "remove": "removed"}[verb]
    for line in differences:
        print(line, file=answer)
    console = console_on(answer)
    for line in (*(f"{done} {row}" for row in change.rows), *in_words(change.expected)):
        say(console, line)
    for line in gone:
        say(console, f"{done} {line}")


def _settings(given: list[str] | None) -> dict[str, Any]:
    """``KEY=VALUE`` words as a tree; values are YAML, and 1e-3 is a number."""
    from deepcustom.base.rows import overlay

    found: dict[str, Any] = {}
    seen: set[str] = set()
    for word in given or []:
        key, equals, text = word.partition("=")
        if key in seen:
            raise InputError(f"--set {word!r}: {key} is set twice")
        seen.add(key)
        if not (all(key.split(".")) and equals and word.isprintable()):
            raise InputError(f"--set {word!r}: want KEY=VALUE, such as training.epochs=5")
        value = _value(f"--set {word!r}", text)
        for part in reversed(key.split(".")):
            value = {part: value}
        found = overlay(found, value)
    return found


def _value(option: str, text: str) -> Any:
    """What ``text`` is in YAML; ``option`` is where it stands, for messages."""
    from deepcustom.pipeline.dvc import read_value

    try:
        return read_value(text)
    except yaml.YAMLError as error:
        why = " ".join(str(error).split())
        raise InputError(f"{option}: the value is not valid YAML: {why}") from None
