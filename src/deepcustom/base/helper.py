"""Whether this process only helps another to train: it computes, and that other process writes and speaks."""

from __future__ import annotations

import io
import os
import sys
import traceback
from types import TracebackType

MEETING = "DEEPCUSTOM_MEETING"
"""The variable that holds the file where processes meet that train together; the first one sets it."""
NUMBER = "LOCAL_RANK"
"""The variable that numbers them, from 0, as torch and Lightning Fabric call it."""


def is_helper() -> bool:
    """Whether another process started this one to train together; that one is number 0."""
    return MEETING in os.environ and os.environ.get(NUMBER, "0") != "0"


def keep_quiet() -> None:
    """Print nothing from now on, but the traceback of what nobody foresaw."""
    aloud = sys.stderr

    def told(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        traceback.print_exception(kind, error, trace, file=aloud)

    sys.excepthook = told
    sys.stdout = sys.stderr = io.StringIO()
