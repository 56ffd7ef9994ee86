"""The door: the command line, one command per stage and the helpers around them."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deepcustom.cli.door import STAGES as STAGES
    from deepcustom.cli.door import app as app
    from deepcustom.cli.door import main as main

HOMES = {
    "STAGES": "deepcustom.cli.door",
    "app": "deepcustom.cli.door",
    "main": "deepcustom.cli.door",
}
"""What others may use, and the module that it is in; loaded when it is first asked for."""


def __getattr__(name: str) -> object:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)
