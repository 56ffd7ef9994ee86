"""The registered losses as a table."""

from __future__ import annotations

from inspect import getdoc
from typing import TYPE_CHECKING

from deepcustom.attacks.losses.base import registered

if TYPE_CHECKING:
    from rich.table import Table


def losses_table() -> Table:
    """Name, analyses needed, options with their defaults, and what each does in a line."""
    from rich.table import Table

    table = Table(
        title="Registered losses",
        caption="Your own: a CustomLoss in any importable file, named package.module:Class",
    )
    for column in ("loss", "requires", "options", "what it does"):
        table.add_column(column)
    for name, cls in sorted(registered().items()):
        fields = cls.Options.model_fields.items()
        options = "\n".join(f"{key} = {field.default}" for key, field in fields)
        about = (getdoc(cls) or "").partition("\n")[0]
        table.add_row(name, ", ".join(cls.requires) or "nothing", options, about)
    return table
