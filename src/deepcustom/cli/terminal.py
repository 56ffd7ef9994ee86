"""What goes to which stream: the answer to stdout, all else to stderr, and drawing to terminals alone."""

from __future__ import annotations

import io
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from deepcustom.base.progress import hushed

if TYPE_CHECKING:
    from rich.console import Console

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress and no notes: the answer and warnings.")
]
AS_IT_IS = "\b\n"
"""Before a paragraph of help that is not to be filled."""
KEPT = ("warning:", "error:")
"""Lines that ``--quiet`` lets through."""


def is_drawn_on() -> bool:
    """Whether help and errors may have boxes and colours: both streams are terminals, or colour is forced."""
    if os.environ.get("TERM") in ("dumb", "unknown"):
        return False
    both = all(stream.isatty() for stream in (sys.stdout, sys.stderr))
    return both or bool(os.environ.get("FORCE_COLOR"))


def colour() -> bool | None:
    """What typer's own lines are to do: False for no colours; None: as the stream is."""
    return False if os.environ.get("NO_COLOR") or not is_drawn_on() else None


def console_on(stream: TextIO) -> Console:
    """A console; what is not a terminal has lines of one length, and neither colours nor rules."""
    from rich.console import Console

    from deepcustom.report.blocks import WIDTH

    return Console(file=stream, width=None if stream.isatty() else WIDTH, highlight=False)


def print_json(document: Any, stream: TextIO) -> None:
    """Print one document; what is no number is null, since JSON lacks it."""
    print(json.dumps(_plain(document), indent=2, allow_nan=False), file=stream, flush=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def answering(quiet: bool = False) -> Iterator[TextIO]:
    """A context with the stream for the answer, while all else that is printed goes to stderr.

    That holds for this program and for those that it starts, such as DVC.

    Args:
        quiet: print nothing else but warnings and errors.
    """
    with ExitStack() as stack:
        answer = stack.enter_context(_set_apart(quiet))
        if quiet:
            stack.enter_context(hushed())
            stack.enter_context(redirect_stdout(_Warnings(sys.stderr)))
            stack.enter_context(redirect_stderr(_NoTerminal(sys.stderr)))
        else:
            stack.enter_context(redirect_stdout(sys.stderr))
        yield answer


@contextmanager
def _set_apart(quiet: bool) -> Iterator[TextIO]:
    """The stream for the answer: a copy of stdout, whose place stderr takes, or nothing if ``quiet``."""
    sys.stdout.flush()
    own = _number_of(sys.stdout)
    if own is None:  # not a stream of the system: nothing that this program starts writes there
        yield sys.stdout
        return
    copy = os.dup(own)
    place = os.open(os.devnull, os.O_WRONLY) if quiet else os.dup(2)
    os.dup2(place, own)
    os.close(place)
    encoding = getattr(sys.stdout, "encoding", None)
    try:
        with open(copy, "w", encoding=encoding, errors="backslashreplace", closefd=False) as answer:
            yield answer
    finally:
        os.dup2(copy, own)
        os.close(copy)


def _number_of(stream: TextIO) -> int | None:
    """The descriptor of stdout, if ``stream`` is it."""
    try:
        return 1 if stream.fileno() == 1 else None
    except (OSError, ValueError):
        return None


class _Warnings(io.TextIOBase):
    """Lets warnings through, line by line, and nothing else."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._begun = ""

    def write(self, text: str) -> int:
        """Hold what was begun; pass on the lines that end with it, if they warn."""
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            if line.startswith(KEPT):
                self._stream.write(f"{line}\n")
        return len(text)


class _NoTerminal(io.TextIOBase):
    """A stream that passes everything on, and is no terminal: nothing moves on it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Pass on."""
        return self._stream.write(text)

    def flush(self) -> None:
        """Pass on."""
        self._stream.flush()

    def isatty(self) -> bool:
        """It is none."""
        return False

    def fileno(self) -> int:
        """That of the stream."""
        return self._stream.fileno()


def call(app: typer.Typer, words: Sequence[str]) -> None:
    """Run the command line, with boxes and colours where they are wanted."""
    if not is_drawn_on():
        _undrawn(app)
    app(list(words), color=colour())


def _undrawn(app: typer.Typer) -> None:
    """Let typer write help and errors as plain text, and no example across two lines."""
    app.rich_markup_mode = None
    parts: list[Any] = [app.info, *app.registered_commands, *app.registered_groups]
    for one in parts:
        if isinstance(one.epilog, str) and not one.epilog.startswith(AS_IT_IS):
            one.epilog = f"{AS_IT_IS}{one.epilog}"
    for group in app.registered_groups:
        if group.typer_instance is not None:
            _undrawn(group.typer_instance)
