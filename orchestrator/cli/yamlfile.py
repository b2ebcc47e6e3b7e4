"""YAML with places: plain values, and the line on which each of them stands."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from orchestrator.errors import Invalid
from schemas.yamltext import Loader

MAX_BYTES = 256 * 1024
MAX_NODES = 20_000
MAX_DEPTH = 32

Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A file's values, with the line (from 1) of every key and item by its path."""

    name: str
    value: dict[str, Any]
    lines: dict[Place, int]

    def line(self, place: Place) -> int:
        """The line of a path, or of the nearest thing around it."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def where(self, place: Place) -> str:
        """The same as ``file:line``."""
        return f"{self.name}:{self.line(place)}"


def load(path: Path) -> Document:
    """Read a file that holds one mapping.

    Raises:
        Invalid: it cannot be read, is too large, or is not such a file; the message
            names the file and the line.
    """
    name = str(path)
    text = _text(path, name)
    try:
        loader = Loader(text)
        node = loader.get_single_node()
        if not isinstance(node, MappingNode):
            line = 1 if node is None else node.start_mark.line + 1
            detail = f"{name}:{line}: not a mapping of keys to values"
            raise Invalid(detail, hint="each line is as in `name: digits`")
        reader = _Reader(name, loader)
        value = reader.read(node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        detail = f"{name}:{mark.line + 1 if mark else 1}: not YAML: {error.problem}"
        raise Invalid(detail, hint="check the indentation, colons and quotes there") from None
    except yaml.YAMLError as error:
        detail = f"{name}: not YAML: {str(error).splitlines()[0]}"
        raise Invalid(detail) from None
    except RecursionError:
        detail = f"{name}: more than {MAX_DEPTH} levels"
        raise Invalid(detail) from None
    return Document(name, value, reader.lines)


def value_of(text: str, name: str) -> Any:
    """Read one value, as it could stand behind a key of a file; nothing is None.

    Args:
        text: the value, as in ``0.1`` or ``[1, 2]``.
        name: of the value, for the message.

    Raises:
        Invalid: it is not YAML, or too large.
    """
    try:
        loader = Loader(text[: MAX_BYTES + 1])
        node = loader.get_single_node()
        if node is None:
            return None
        return _Reader(name, loader).read(node, ())
    except (yaml.YAMLError, RecursionError):
        detail = f"{name}: {text[:80]!r} is not a value in YAML"
        raise Invalid(detail, hint="put quotes around text with colons, brackets or #") from None


def _text(path: Path, name: str) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        detail = f"{name} cannot be read: {(error.strerror or str(error)).lower()}"
        raise Invalid(detail, hint="give the path of a file in YAML") from error
    if len(raw) > MAX_BYTES:
        detail = f"{name} is larger than {MAX_BYTES // 1024} KiB"
        raise Invalid(detail, hint="what is asked for is a page of YAML; is this one?")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        detail = f"{name}:{line}: not UTF-8 text"
        raise Invalid(detail) from error


class _Reader:
    """Turns nodes into values, bounded, and notes their lines."""

    def __init__(self, name: str, loader: Loader) -> None:
        self.name = name
        self.lines: dict[Place, int] = {}
        self._loader = loader
        self._nodes = 0

    def read(self, node: Node, place: Place) -> Any:
        self._nodes += 1
        # Aliases are followed as often as they are used, so a small file can be huge.
        if self._nodes > MAX_NODES or len(place) > MAX_DEPTH:
            raise self._fault(node, f"more than {MAX_NODES} values or {MAX_DEPTH} levels")
        self.lines.setdefault(place, node.start_mark.line + 1)
        if isinstance(node, MappingNode):
            return dict(self._pairs(node, place))
        if isinstance(node, SequenceNode):
            return [self.read(item, (*place, i)) for i, item in enumerate(node.value)]
        return self._scalar(node)

    def _pairs(self, node: MappingNode, place: Place) -> Iterator[tuple[str, Any]]:
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key_node, ScalarNode):
                raise self._fault(key_node, "a key must be a word")
            if key in seen:
                raise self._fault(key_node, f"{key!r} is already set on line {seen[key]}")
            seen[key] = key_node.start_mark.line + 1
            self.lines[(*place, key)] = seen[key]
            yield key, self.read(value_node, (*place, key))

    def _scalar(self, node: Node) -> Any:
        known = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null")}
        if node.tag not in known:
            raise self._fault(node, f"{node.tag} is not allowed here")
        try:
            value = self._loader.construct_object(node)
        except ValueError as error:
            raise self._fault(node, f"{node.value!r} is not a number") from error
        if isinstance(value, float) and not math.isfinite(value):
            raise self._fault(node, f"{node.value} is not a finite number")
        return value

    def _fault(self, node: Node, what: str) -> Invalid:
        return Invalid(f"{self.name}:{node.start_mark.line + 1}: {what}")
