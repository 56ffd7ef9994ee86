"""What a row of ``prepare`` may say, by where the images come from: one frozen model for each source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from deepcustom.base.errors import ParamsError
from deepcustom.base.params import found_value
from deepcustom.base.settings import PrepareParams

LARGEST = 256
"""The most pixels that a side of a prepared image may have."""

Side = Annotated[int, Field(ge=1, le=LARGEST)]


class BuiltInParams(PrepareParams):
    """A data set that the package knows; its name is that of the row."""

    source: Literal["built_in"]


class ImagesParams(PrepareParams):
    """Images of the user's own; ``path``: where they lie, relative to the project.

    ``size``: the side of a square, or height and width;
    None: all images have one size already. ``channels``: 1 for grey, 3 for colour; None: all images have
    one number already. ``test_share``: the share of the images that is drawn as ``test``; None: the source
    has a test part.
    """

    size: Side | tuple[Side, Side] | None
    channels: Literal[1, 3] | None
    test_share: float | None = Field(gt=0, lt=1)

    @field_validator("size", mode="before")
    @classmethod
    def _a_side_or_two(cls, value: Any) -> Any:
        sides = value if isinstance(value, list | tuple) and len(value) == 2 else [value]
        whole = all(isinstance(side, int) and not isinstance(side, bool) for side in sides)
        if value is not None and not (whole and all(1 <= side <= LARGEST for side in sides)):
            raise ValueError(f"should be null, or 1 to {LARGEST}, or [height, width] of these")
        return value


class FolderParams(ImagesParams):
    """A folder with one sub-folder for each class, directly or in ``train`` and ``test``."""

    source: Literal["folder"]
    path: str = Field(min_length=1)


class NamedParams(ImagesParams):
    """A source that has labels as numbers. ``classes``: their names; None: the source's, or the numbers."""

    classes: tuple[Annotated[str, Field(min_length=1)], ...] | None = None

    @field_validator("classes")
    @classmethod
    def _each_once(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if names is not None and len(set(names)) < len(names):
            raise ValueError("should name each class once")
        return names


class ArraysParams(NamedParams):
    """Arrays: a folder of ``.npy`` files, or one ``.npz``."""

    source: Literal["arrays"]
    path: str = Field(min_length=1)


class ParquetParams(NamedParams):
    """A ``.parquet`` file, or a folder of them, as the Hugging Face hub ships image sets."""

    source: Literal["parquet"]
    path: str = Field(min_length=1)


class FunctionParams(NamedParams):
    """A function of the user's own. ``path``: what it reads, handed to it; None: it reads no file."""

    source: Literal["function"]
    function: str = Field(pattern=r"^own\.data(\.\w+)+:\w+$")
    path: str | None = Field(min_length=1)


OwnParams = FolderParams | ArraysParams | ParquetParams | FunctionParams

MODELS: dict[str, type[BuiltInParams | OwnParams]] = {
    "built_in": BuiltInParams,
    "folder": FolderParams,
    "arrays": ArraysParams,
    "parquet": ParquetParams,
    "function": FunctionParams,
}
"""Source → what a row with it may say."""


def prepare_model(settings: Mapping[str, Any], where: str) -> type[BuiltInParams | OwnParams]:
    """The model of a row's settings; ``where`` is the row's dotted place.

    Raises:
        ParamsError: the row has no source that is known.
    """
    found = settings.get("source")
    if not isinstance(found, str) or found not in MODELS:
        allowed = ", ".join(MODELS)
        raise ParamsError(
            f"params.yaml: {where}.source must be one of {allowed}{found_value(found)}"
        )
    return MODELS[found]
