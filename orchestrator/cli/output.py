"""Results on stdout: a table for people, JSON, YAML or bare names for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from pydantic import BaseModel
from rich.cells import cell_len
from rich.text import Text

from orchestrator.cli import console

T = TypeVar("T", bound=BaseModel)
Cell = str | Text
Column = tuple[str, Callable[[T], Cell]]


class Shape(Generic[T]):
    """How one type of result is shown.

    Args:
        name: its name, for ``-o name``.
        columns: headings with the functions that make their cells.
    """

    def __init__(self, name: Callable[[T], str], *columns: Column[T]) -> None:
        self.name = name
        self.columns = columns


def emit_list(items: Sequence[T], form: str, shape: Shape[T], empty: str) -> None:
    """Print a listing. empty: said on stderr in place of a table without rows."""
    if form == "table":
        if not items:
            console.say(empty, style="dim")
            return
        rows = [[make(item) for _, make in shape.columns] for item in items]
        print_table([heading for heading, _ in shape.columns], rows)
    elif form == "name":
        _write("".join(f"{shape.name(item)}\n" for item in items))
    else:
        _structured([item.model_dump(mode="json") for item in items], form)


def emit_one(item: T, form: str, shape: Shape[T], detail: Callable[[T], None] | None) -> None:
    """Print one result. detail: prints it for people; None prints a table of one row."""
    if form == "table" and detail is not None:
        detail(item)
    elif form in {"table", "name"}:
        emit_list([item], form, shape, "")
    else:
        _structured(item.model_dump(mode="json"), form)


def emit_value(value: Any, form: str) -> None:
    """Print plain values as JSON or YAML."""
    _structured(value, form)


def print_table(headings: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    """Print aligned columns; the last is not padded, nothing is cut."""
    texts = [[_text(cell) for cell in row] for row in rows]
    widths = [
        max(cell_len(line.plain) for line in column)
        for column in zip([Text(h) for h in headings], *texts, strict=True)
    ]
    for index, row in enumerate([[Text(h, "dim") for h in headings], *texts]):
        cells = [_padded(cell, width) for cell, width in zip(row[:-1], widths, strict=False)]
        line = Text("  ").join([*cells, row[-1]])
        line.rstrip()
        console.out().print(line, soft_wrap=True, style="" if index else "dim")


def print_facts(facts: Sequence[tuple[str, Cell | None]]) -> None:
    """Print labels with their values, one a line; what is None or empty is left out."""
    known = [(label, value) for label, value in facts if value]
    width = max(len(label) for label, _ in known)
    for label, value in known:
        line = Text(f"{label:<{width}}  ", "dim").append_text(_text(value))
        console.out().print(line, soft_wrap=True)


def _text(cell: Cell) -> Text:
    return cell if isinstance(cell, Text) else Text(console.clean(cell).replace("\n", " "))


def _padded(cell: Text, width: int) -> Text:
    padded = cell.copy()
    padded.pad_right(width - cell_len(cell.plain))
    return padded


def _structured(value: Any, form: str) -> None:
    if form == "json":
        _write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
        return
    import yaml

    _write(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
