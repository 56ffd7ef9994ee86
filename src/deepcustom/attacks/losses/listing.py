"""The registered losses as a table."""

from __future__ import annotations

from inspect import getdoc
from typing import TYPE_CHECKING

from deepcustom.attacks.losses.base import registered

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from rich.table import Table


def losses_table() -> Table:
    """A row per loss: its name, the analyses it needs, its options with their ranges, and what it does."""
    from rich.table import Table

    table = Table(
        title="Registered losses",
        caption="Your own: a CustomLoss in any importable file, named package.module:Class",
    )
    table.add_column("loss")
    table.add_column("requires")
    table.add_column("options", no_wrap=True)  # a name cut short could not be typed
    table.add_column("what it does")
    for name, cls in sorted(registered().items()):
        fields = cls.Options.model_fields.items()
        options = "\n".join(f"{key}\n  {_range(field)}".rstrip() for key, field in fields)
        about = (getdoc(cls) or "").partition("\n")[0]
        table.add_row(name, ", ".join(cls.requires) or "nothing", options, about)
    return table


def _range(field: FieldInfo) -> str:
    """The range of a number, such as ``>= 0, <= 1``."""
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    bounds = [
        (sign, getattr(one, key, None)) for one in field.metadata for key, sign in signs.items()
    ]
    return ", ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)
