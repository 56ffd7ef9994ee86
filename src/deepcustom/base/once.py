"""Reads YAML and JSON in which every key stands once; by themselves both readers would take the last."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import yaml


class RepeatedKeyError(yaml.YAMLError):
    """A key stands twice in one mapping; the message is one line."""


class OnceLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """A safe loader that refuses a mapping with the same key twice."""

    def get_single_node(self) -> yaml.Node | None:
        """The whole document, as nodes.

        Raises:
            RepeatedKeyError: a key stands twice.
        """
        node: yaml.Node | None = super().get_single_node()
        for one in _mappings(node):
            _look(one)
        return node


def read_yaml(text: str | bytes) -> Any:
    """The content of a YAML file as plain data.

    Raises:
        yaml.YAMLError: it is not YAML, or a key stands twice.
    """
    loader = OnceLoader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def read_json(text: str | bytes) -> Any:
    """The content of a JSON file as plain data.

    Raises:
        ValueError: it is not JSON, or a key stands twice.
    """
    return json.loads(text, object_pairs_hook=_pairs)


def _mappings(top: yaml.Node | None) -> Iterator[yaml.MappingNode]:
    """Every mapping below a node, each once: an alias stands for the node that it names."""
    left, seen = [top], set()
    while left:
        node = left.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield node
            left += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            left += node.value


def _look(mapping: yaml.MappingNode) -> None:
    seen: dict[tuple[str, str], yaml.Node] = {}
    for key, _ in mapping.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        first = seen.setdefault((key.tag, key.value), key)
        if first is not key:
            lines = sorted({first.start_mark.line + 1, key.start_mark.line + 1})
            where = f"line {lines[0]}" if len(lines) == 1 else f"lines {lines[0]} and {lines[1]}"
            raise RepeatedKeyError(f"the key {key.value!r} stands twice, in {where}")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} stands twice")
        found[key] = value
    return found
