"""The errors of this package, one class per kind of mistake; the command line prints each in one line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class DeepCustomError(Exception):
    """Base of every error this package raises on purpose.

    ``exit_code`` is the exit status of the command line: 1 for a failure, 2 for a mistake of the user.
    """

    exit_code = 1


class UserError(DeepCustomError):
    """Something the user named or wrote is wrong; the message says what is allowed."""

    exit_code = 2


class UnknownNameError(UserError):
    """A name that is not registered; the message lists the ones that are."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        super().__init__(f"unknown {kind} {name!r}: choose from {', '.join(known)}")


class ParamsError(UserError):
    """A key of ``params.yaml`` is missing, misspelt, or out of range."""


class InputError(UserError):
    """A file that a command needs is missing, corrupted, or of another shape than expected."""


class OutputError(DeepCustomError):
    """A file could not be written; the message says which, and why."""


class SourceError(UserError):
    """No source could provide a data set; the message names each source and why it failed."""


class LossError(UserError):
    """A custom loss cannot be built or breaks its interface."""


class DivergenceError(UserError):
    """The loss of a training is no longer finite; the message says when, and which settings to lower."""


class ThreatModelError(DeepCustomError):
    """An image lies outside the threat model's ball or range."""


class TrackingError(DeepCustomError):
    """The tracking server could not be reached; the data that were to be sent stay on disk."""


def one_line(error: BaseException) -> str:
    """An error of somebody else's code in one line, and whole: its remedy often stands at the end."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def some_of(names: Sequence[str], most: int) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"
