"""A row put into a YAML file, or taken out of one, and every other byte left as it was.

PyYAML says where each key begins; the lines of a row are then cut out or put in. What comes out is read
again, and refused where it does not say what was wanted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import yaml

from deepcustom.base.errors import ParamsError

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

WIDTH = 120
"""Characters a line, within which a mapping is written on one."""


def with_row(
    text: str, section: str, name: str, row: Mapping[str, Any] | None, *, like: str | None = None
) -> str:
    """``text`` with one more row in a section.

    Args:
        text: a YAML mapping of sections, each a mapping of rows.
        section: one that is there.
        name: of the row, which is not there.
        row: what it holds; None: ``null``.
        like: the row that it is to follow, and to look like; None: the section's last one.

    Raises:
        ParamsError: the text is written in a way that this module does not know.
    """
    wanted = _read(text)
    plain = None if row is None else dict(row)
    wanted[section] = {**wanted[section], name: plain}
    place = _Section(text, section)
    if place.node.flow_style and place.names:
        at = place.values[-1].end_mark.index
        return _checked(f"{text[:at]}, {_one_line({name: plain})[1:-1]}{text[at:]}", wanted)
    flat = place.is_flat(like) if place.names else False
    lines = _row_lines(name, plain, place.indent, flat)
    if not place.names:  # section: {}
        begin, end = place.braces()
        text = text[:begin] + text[end:]
        at = _line_end(text, begin)
    else:
        at = place.end_of(like if like and like in place.names else place.names[-1])
    newline = "\r\n" if text[:at].endswith("\r\n") else "\n"
    added = "".join(f"{line}{newline}" for line in lines)
    if at and text[at - 1] != "\n":  # the file's last line has no end, and shall have none
        added = newline + added.removesuffix(newline)
    return _checked(text[:at] + added + text[at:], wanted)


def without_row(text: str, section: str, name: str) -> str:
    """``text`` without one row of a section; see :func:`without_rows`."""
    return without_rows(text, section, [name])


def without_rows(text: str, section: str, names: Collection[str]) -> str:
    """``text`` without some rows of a section; comments above a row stay.

    Raises:
        ParamsError: as :func:`with_row`.
    """
    wanted = _read(text)
    wanted[section] = {key: value for key, value in wanted[section].items() if key not in names}
    place = _Section(text, section)
    if place.node.flow_style:
        for name in names:
            begin, end = _Section(text, section).item(name)
            text = text[:begin] + text[end:]
        return _checked(text, wanted)
    for name in sorted(names, key=place.begin_of, reverse=True):
        begin, end = place.begin_of(name), place.end_of(name)
        if end == len(text) and not text.endswith("\n"):
            begin = len(text[:begin].removesuffix("\n").removesuffix("\r"))
        text = text[:begin] + text[end:]
    if not wanted[section]:
        at = place.colon()
        text = f"{text[:at]} {{}}{text[at:]}"
    return _checked(text, wanted)


class _Section:
    """A section of a YAML file: where its rows begin and end."""

    def __init__(self, text: str, name: str) -> None:
        self.text = text
        top = yaml.compose(text, Loader=yaml.SafeLoader)
        if not isinstance(top, yaml.MappingNode):
            raise _unknown()
        keys = [key.value for key, _ in top.value]
        place = keys.index(name)
        self.key, self.node = top.value[place]
        after = top.value[place + 1 :]
        self._limit = after[0][0].start_mark.index if after else len(text)
        if not isinstance(self.node, yaml.MappingNode) or self.key.end_mark.index > self._limit:
            raise _unknown(name)
        self.names = [key.value for key, _ in self.node.value]
        self._keys = [key for key, _ in self.node.value]
        self.values = [value for _, value in self.node.value]

    @property
    def indent(self) -> int:
        """Blanks before each row."""
        return int(self._keys[0].start_mark.column) if self._keys else 2

    def is_flat(self, name: str | None) -> bool:
        """Whether a row, by default the last one, stands on one line."""
        place = self.names.index(name) if name in self.names else -1
        return bool(getattr(self.values[place], "flow_style", False))

    def begin_of(self, name: str) -> int:
        """Where the line of a row begins."""
        key = self._keys[self.names.index(name)]
        return int(key.start_mark.index - key.start_mark.column)

    def end_of(self, name: str) -> int:
        """Where a row's last line ends: before blank lines, and comments that are not indented deeper."""
        place = self.names.index(name)
        begin = self.begin_of(name)
        after = self.names[place + 1 : place + 2]
        lines = self.text[begin : self.begin_of(after[0]) if after else self._limit].splitlines(
            True
        )
        while len(lines) > 1 and self._is_outside(lines[-1]):
            lines.pop()
        return begin + sum(map(len, lines))

    def _is_outside(self, line: str) -> bool:
        words = line.strip()
        deep = len(line) - len(line.lstrip()) > self.indent
        return not words or words in ("---", "...") or (words.startswith("#") and not deep)

    def braces(self) -> tuple[int, int]:
        """Where the blank before ``{}`` begins, and where that ends."""
        begin = self.node.start_mark.index
        return begin - (self.text[begin - 1] == " "), self.node.end_mark.index

    def colon(self) -> int:
        """Behind the colon of the section's name."""
        return self.text.index(":", self.key.end_mark.index) + 1

    def item(self, name: str) -> tuple[int, int]:
        """From where to where a row of a section on one line stands, with one of the commas beside it."""
        place = self.names.index(name)
        if place:
            return self.values[place - 1].end_mark.index, self.values[place].end_mark.index
        last = len(self.names) == 1
        end = self.values[0].end_mark.index if last else self._keys[1].start_mark.index
        return self._keys[0].start_mark.index, end


def _row_lines(name: str, row: Mapping[str, Any] | None, indent: int, flat: bool) -> list[str]:
    """A row as it is written: on one line where it is ``flat`` and fits, else a setting a line."""
    blanks = " " * indent
    line = f"{blanks}{_one_line({name: row})[1:-1]}"
    if (flat and len(line) <= WIDTH) or not row:
        return [line]
    lines = [f"{blanks}{_one_line(name)}:"]
    for key, value in row.items():
        if isinstance(value, Mapping):
            lines += _row_lines(str(key), value, indent + 2, flat=True)
        else:
            lines.append(f"{blanks}  {_one_line(key)}: {_one_line(value)}")
    return lines


def _one_line(value: Any) -> str:
    """YAML on one line."""
    text = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, width=float("inf"), allow_unicode=True
    )
    return str(text).removesuffix("\n").removesuffix("\n...")


def _line_end(text: str, at: int) -> int:
    """Behind the end of the line that ``at`` lies in."""
    found = text.find("\n", at)
    return len(text) if found < 0 else found + 1


def _read(text: str) -> dict[str, Any]:
    loader = _Loader(text)
    try:
        found: dict[str, Any] = loader.get_single_data()
    finally:
        loader.dispose()
    return found


def _checked(text: str, wanted: Mapping[str, Any]) -> str:
    """``text``, where it says what is wanted."""
    try:
        found = _read(text)
    except yaml.YAMLError:
        found = {}
    changed = [name for name in wanted if found.get(name) != wanted[name]]
    if changed or list(found) != list(wanted):
        raise _unknown(*changed)
    return text


def _unknown(*names: str) -> ParamsError:
    return ParamsError(
        f"params.yaml: {', '.join(names) or 'the file'} is written in a way that cannot be edited without "
        "changing more: edit it by hand"
    )
