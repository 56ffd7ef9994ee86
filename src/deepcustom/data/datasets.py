"""The description of a prepared data set: a file beside its splits, which every later stage reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, field_validator
from pydantic.dataclasses import dataclass

from deepcustom.base.errors import InputError
from deepcustom.base.once import read_json

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Size = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]

_CHECKED = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, config=_CHECKED)
class SplitFacts:
    """What identifies a whole split, before anything is drawn from it.

    Attributes:
        size: number of images.
        x_sha256: of the raw bytes of the C-contiguous uint8 (N, C, H, W) images.
        y_sha256: of the raw bytes of the (N,) labels, uint8, or uint16 for more than 256 classes.
    """

    size: Size
    x_sha256: Sha256
    y_sha256: Sha256


@dataclass(frozen=True, config=_CHECKED)
class DatasetSpec:
    """A data set without its images.

    Attributes:
        name: what the user calls it.
        title: what tables and figures call it.
        shape: (C, H, W) of an image.
        classes: their names; the position is the label.
        splits: facts of the whole ``train`` and ``test``; the prepared splits are drawn from these.
    """

    name: Text
    title: Text
    shape: tuple[Size, Size, Size]
    classes: Annotated[tuple[Text, ...], Field(min_length=1)]
    splits: Mapping[str, SplitFacts]

    @field_validator("splits")
    @classmethod
    def _both(cls, splits: Mapping[str, SplitFacts]) -> Mapping[str, SplitFacts]:
        if set(splits) != {"train", "test"}:
            raise ValueError(f"must be of train and test, found {', '.join(splits) or 'none'}")
        return splits

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)


_SPEC = TypeAdapter(DatasetSpec)


def save_spec(spec: DatasetSpec, path: Path) -> None:
    """Write ``spec`` as JSON; the same facts give the same bytes."""
    path.write_text(json.dumps(asdict(spec), indent=1, sort_keys=True) + "\n", encoding="utf-8")


def load_spec(path: Path) -> DatasetSpec:
    """Read what :func:`save_spec` wrote.

    Raises:
        InputError: in one line: there is no such file, or it does not describe a data set.
    """
    try:
        content = path.read_bytes()
        found = _SPEC.validate_json(content)
        read_json(content)  # which refuses a key that stands twice
        return found
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = "".join(f"{part}: " for part in fault["loc"])
        problem = " ".join(f"{where}{fault['msg'].removeprefix('Value error, ')}".split())
        raise InputError(f"{path} does not describe a data set: {problem}") from error
    except ValueError as error:
        raise InputError(f"{path} does not describe a data set: {error}") from error
