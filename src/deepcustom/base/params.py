"""How settings are read and checked: a frozen model for each kind, and one line for each mistake.

A key that no model knows is an error, so that a misspelt setting stops before any work starts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from deepcustom.base.errors import ParamsError
from deepcustom.base.once import read_yaml


class Params(BaseModel):
    """Base of every section: frozen, and unknown keys forbidden."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[str(info.field_name)]
        if isinstance(value, bool) and field.annotation in (int, float, int | None, float | None):
            raise ValueError("should be a number")
        return value


P = TypeVar("P", bound=Params)

SHOWN = 3
"""So many faults of a row are told at once."""

_FRACTION = re.compile(r" *([0-9]+(?:\.[0-9]+)?) */ *([0-9]+(?:\.[0-9]+)?) *")


def fraction(text: str) -> float | None:
    """The value of a fraction such as ``8/255``: two plain decimal numbers, the second above 0; else None."""
    found = _FRACTION.fullmatch(text)
    return float(found[1]) / float(found[2]) if found and float(found[2]) else None


def _number(value: Any) -> Any:
    """``value``, or what it is worth if it is a fraction."""
    if isinstance(value, bool):
        raise ValueError("should be a number")
    if not isinstance(value, str) or "/" not in value:
        return value
    number = fraction(value)
    if number is None:
        raise ValueError("should be a number, or a fraction such as 8/255")
    return number


Radius = Annotated[float, Field(gt=0), BeforeValidator(_number)]
"""A ball's radius or a step's length, in units of the [0, 1] pixel range; ``8/255`` is understood."""

_RADIUS: TypeAdapter[float] = TypeAdapter(Radius, config=ConfigDict(allow_inf_nan=False))


def radius(value: Any, where: str) -> float:
    """``value`` as a :data:`Radius`; ``where`` is its dotted place in the file, for messages.

    Raises:
        ParamsError: in one line: the key, what it holds, and what is allowed.
    """
    try:
        return _RADIUS.validate_python(value)
    except ValidationError as error:
        raise ParamsError(f"params.yaml: {_one_line(Params, error.errors()[0], where)}") from None


def read_params(path: Path) -> dict[str, Any]:
    """The whole of a params file as plain dicts.

    Raises:
        ParamsError: the file is missing or is not a YAML mapping.
    """
    try:
        tree = read_yaml(path.read_bytes())
    except FileNotFoundError:
        raise ParamsError(f"{path} is missing: run this from the project's top folder") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ParamsError(f"{path} must be a mapping of sections, found {type(tree).__name__}")
    return tree


def section(tree: Mapping[str, Any], *keys: str) -> Any:
    """The value below ``keys``.

    Raises:
        ParamsError: a key is missing; the message lists the ones that are there.
    """
    value: Any = tree
    for depth, key in enumerate(keys):
        if not isinstance(value, Mapping) or key not in value:
            where = ".".join(keys[:depth]) or "the file"
            there = (
                ", ".join(map(str, value)) if isinstance(value, Mapping) and value else "no keys"
            )
            raise ParamsError(f"params.yaml: {'.'.join(keys)} is missing; {where} has: {there}")
        value = value[key]
    return value


def seed(tree: Mapping[str, Any]) -> int:
    """The seed that everything random derives from.

    Raises:
        ParamsError: it is missing, or is not an integer >= 0.
    """
    if "seed" not in tree:
        raise ParamsError("params.yaml: seed is missing: it must be an integer >= 0")
    value = tree["seed"]
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ParamsError(f"params.yaml: seed must be an integer >= 0, found {value!r}")
    return value


def load(path: Path, model: type[P], *keys: str) -> P:
    """The section below ``keys`` of the file at ``path``, checked.

    Raises:
        ParamsError: in one line: the key, what it holds, and what is allowed.
    """
    return validate(model, section(read_params(path), *keys), ".".join(keys))


def validate(model: type[P], values: Any, where: str) -> P:
    """``values`` as a ``model``; ``where`` is their dotted place in the file, for messages.

    Raises:
        ParamsError: in one line: the key, what it holds, and what is allowed.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        faults = _in_words(model, error.errors(), where)
        more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise ParamsError(f"params.yaml: {'; '.join(faults[:SHOWN])}{more}") from None


def _in_words(model: type[Params], faults: Sequence[Any], where: str) -> list[str]:
    """Each fault in words; all keys that one mapping lacks are one fault."""
    lacking: dict[tuple[Any, ...], list[str]] = {}
    for fault in faults:
        if fault["type"] == "missing":
            lacking.setdefault(fault["loc"][:-1], []).append(str(fault["loc"][-1]))
    found = {}
    for fault in faults:
        parent = fault["loc"][:-1]
        if fault["type"] == "missing" and len(lacking[parent]) > 1:
            place = ".".join([where, *map(str, parent)])
            found[parent, "missing"] = f"{place}: {', '.join(lacking[parent])} are missing"
        else:
            found[fault["loc"], fault["type"]] = _one_line(model, fault, where)
    return list(found.values())


def _one_line(model: type[Params], fault: Any, where: str) -> str:
    key = ".".join([where, *(str(part) for part in fault["loc"])])
    if fault["type"] == "extra_forbidden":
        fields = _fields_at(model, fault["loc"][:-1])
        return f"{key} is not a known key; allowed: {', '.join(fields) or 'none'}"
    if fault["type"] == "missing":
        return f"{key} is missing"
    if fault["type"] == "model_type":
        fields = _fields_at(model, fault["loc"])
        return f"{key} must be a mapping of {', '.join(fields)}{found_value(fault['input'])}"
    message = " ".join(fault["msg"].removeprefix("Value error, ").removeprefix("Input ").split())
    found = "" if isinstance(fault["input"], dict) else f" (found {fault['input']!r})"
    return f"{key}: {message}{found}"


def found_value(value: Any) -> str:
    """The end of a message that has said what is expected: what was found instead."""
    return ", found nothing" if value is None else f", found {value!r}"


def _fields_at(model: type[Params], loc: tuple[Any, ...]) -> list[str]:
    """The field names of the model nested at ``loc``."""
    for part in loc:
        info = model.model_fields.get(str(part))
        if info is None:
            continue
        nested = [info.annotation, *getattr(info.annotation, "__args__", ())]
        model = next((m for m in nested if isinstance(m, type) and issubclass(m, Params)), model)
    return list(model.model_fields)
