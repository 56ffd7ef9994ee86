"""Where the classes and exported programs of a subject may lie: where DVC sees a change of them."""

from __future__ import annotations

from pathlib import PurePosixPath

from deepcustom.base.errors import ParamsError
from deepcustom.pipeline.workspace import OWN_NETS
from deepcustom.training.nets.exported import SUFFIX

PACKAGE = __name__.partition(".")[0]


def must_be_seen(place: str, called: str) -> None:
    """Refuse a network that DVC does not hash for the stages that make it.

    Args:
        place: where it is named, for messages.
        called: ``package.module:Class``, or the path of an exported program.

    Raises:
        ParamsError: it is neither this package's nor in the folder of the user's own networks.
    """
    if called.endswith(SUFFIX):
        if PurePosixPath(called).parent != PurePosixPath(OWN_NETS):
            raise ParamsError(f"{place}: {called} must be a file in {OWN_NETS}")
    elif not called.startswith((f"{PACKAGE}.", f"{OWN_NETS.replace('/', '.')}.")):
        raise ParamsError(
            f"{place}: {called} must be a class of {PACKAGE}, or of a file in {OWN_NETS}, since DVC sees "
            "no other; `deepcustom evaluate --network FILE` scores any network"
        )
