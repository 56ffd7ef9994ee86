"""Images in parquet files, as the Hugging Face hub ships image sets."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from deepcustom.base.errors import InputError
from deepcustom.data.own.pixels import from_file
from deepcustom.data.own.source import Images, Item, Part

IMAGES = ("image", "img")
LABELS = ("label", "labels", "fine_label")
_HALVES: tuple[Part, ...] = ("train", "test")
_ROWS = 64  # of one read


def find_in_parquet(
    root: Path, path: str, classes: tuple[str, ...] | None, *, test_alone: bool = False
) -> Images:
    """The images in the ``.parquet`` file or folder at ``path`` below ``root``.

    A row has its image as bytes, or as the hub's struct of ``bytes`` and ``path``, and an integer label.
    With ``test_alone``, the files may be those of a test part alone.
    Names of classes come from ``classes``, else from what the hub wrote into the file's schema.

    Raises:
        InputError: a file cannot be read, or lacks a column. The message is one line that names it.
    """
    files = _files(root, path, test_alone)
    total, names = 0, classes
    for file, _ in files:
        with _reading(file), _opened(root / file) as table:
            _, label = _columns(file, table)
            total += table.metadata.num_rows
            names = names or _class_names(table, label)

    def items() -> Iterator[Item]:
        for file, part in files:
            yield from _items(root, file, part)

    return Images(path, items, names, total, files[0][1] != "all")


def _files(root: Path, path: str, test_alone: bool) -> list[tuple[str, Part]]:
    """The files in order, each with its part: by its name, else by that of its folder."""
    full = root / path
    if full.is_file():
        return [(path, "all")]
    found = sorted(file.relative_to(root).as_posix() for file in full.rglob("*.parquet"))
    if not found:
        raise InputError(f"{path}: neither a .parquet file nor a folder of them")
    parts = {file: _part(file) for file in found}
    if not any(parts.values()):
        return [(file, "all") for file in found]
    if unnamed := [file for file, part in parts.items() if part is None]:
        raise InputError(
            f"{unnamed[0]}: other files are called train and test, and this is neither: move it away"
        )
    if set(parts.values()) in ({"train"}, *([{"test"}] if test_alone else [])):
        return [(file, "all") for file in found]
    if set(parts.values()) == {"test"}:
        raise InputError(f"{path} has files of test and none of train")
    return [
        (file, part) for want in ("train", "test") for file, part in parts.items() if part == want
    ]


def _part(file: str) -> Part | None:
    path = Path(file)
    for name in (path.stem, path.parent.name):
        for part in _HALVES:
            if name == part or name.startswith(f"{part}-"):
                return part
    return None


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    import pyarrow.parquet

    # Mapped and unbuffered: otherwise a whole group of rows is read into memory.
    with pyarrow.parquet.ParquetFile(file, memory_map=True, pre_buffer=False) as table:
        yield table


@contextmanager
def _reading(file: str) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        why = " ".join(str(error).split())
        raise InputError(f"{file}: no readable parquet file ({why})") from None


def _columns(file: str, table: Any) -> tuple[str, str]:
    """The columns of images and of labels.

    Raises:
        InputError: there is none, or it has another type.
    """
    import pyarrow

    schema = table.schema_arrow
    found = []
    for kind, allowed in (("images", IMAGES), ("labels", LABELS)):
        name = next((name for name in allowed if name in schema.names), None)
        if name is None:
            has = ", ".join(schema.names)
            raise InputError(f"{file}: no column of {kind} ({' or '.join(allowed)}); it has: {has}")
        found.append(name)
    image, label = (schema.field(name).type for name in found)
    content = image.field("bytes").type if _is_struct(image) else image
    if not (pyarrow.types.is_binary(content) or pyarrow.types.is_large_binary(content)):
        raise InputError(
            f"{file}: column {found[0]} is {image}, expected bytes, or a struct that has bytes"
        )
    if not pyarrow.types.is_integer(label):
        raise InputError(f"{file}: column {found[1]} is {label}, expected integers")
    return found[0], found[1]


def _is_struct(kind: Any) -> bool:
    import pyarrow

    return pyarrow.types.is_struct(kind) and "bytes" in {field.name for field in kind}


def _class_names(table: Any, label: str) -> tuple[str, ...] | None:
    """The names that the hub wrote into the schema, if it did."""
    try:
        about = json.loads((table.schema_arrow.metadata or {})[b"huggingface"])
        names = about["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return tuple(map(str, names)) if isinstance(names, list) and names else None


def _items(root: Path, file: str, part: Part) -> Iterator[Item]:
    with _reading(file), _opened(root / file) as table:
        image, label = _columns(file, table)
        batches = table.iter_batches(_ROWS, columns=[image, label], use_threads=False)
        row = 0
        for batch in batches:
            images, labels = batch.column(image).to_pylist(), batch.column(label).to_pylist()
            for one, y in zip(images, labels, strict=True):
                name = f"{file}[{row}]"
                content = one.get("bytes") if isinstance(one, dict) else one
                if content is None or y is None:
                    lacks = "label" if y is None else "bytes of an image"
                    raise InputError(f"{name}: this row has no {lacks}")
                yield Item(name, part, y, partial(_decoded, content))
                row += 1


def _decoded(content: bytes, form: Any) -> Any:
    return from_file(io.BytesIO(content), form)
