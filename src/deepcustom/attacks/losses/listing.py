"""The registered losses, for people and as data."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import getdoc
from typing import TYPE_CHECKING, Any

from deepcustom.attacks.losses.base import registered

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from rich.console import RenderableType


OWN = "Your own: a CustomLoss in any importable file, named package.module:Class"
INDENT = 4  # characters


def losses_lines() -> Iterator[RenderableType]:
    """A paragraph per loss: its name, what it does, the analyses it needs, its options with their ranges."""
    from rich.padding import Padding
    from rich.text import Text

    for one in losses_listed():
        yield Text(one["loss"], "bold")
        options = [" ".join([key, *filter(None, [text])]) for key, text in one["options"].items()]
        lines = [one["about"], f"requires: {', '.join(one['requires']) or 'nothing'}"]
        lines += [f"options: {'; '.join(options)}"] if options else []
        yield from (Padding(Text(line), (0, 0, 0, INDENT), expand=False) for line in lines)
    yield Text(OWN)


def losses_listed() -> list[dict[str, Any]]:
    """The losses as plain data; ``options`` maps names to ranges, which are empty for what is no number."""
    return [
        {
            "loss": name,
            "requires": list(cls.requires),
            "options": {key: _range(one) for key, one in cls.Options.model_fields.items()},
            "about": (getdoc(cls) or "").partition("\n")[0],
        }
        for name, cls in sorted(registered().items())
    ]


def _range(field: FieldInfo) -> str:
    """The range of a number, such as ``>= 0, <= 1``."""
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    bounds = [
        (sign, getattr(one, key, None)) for one in field.metadata for key, sign in signs.items()
    ]
    return ", ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)
