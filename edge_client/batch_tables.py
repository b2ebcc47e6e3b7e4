"""Rows of CSV files, and how the columns of a table become inputs."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from edge_client.batch_arrays import CHUNK_BYTES, Bad, Chunk, file_print, is_batched, row_shape
from edge_client.errors import BatchRunError, UsageError
from schemas.signature import Signature, TensorSpec

MAX_COLUMNS = 100_000
_CELL_BYTES = 128
"""Of a cell as text and as a number, about."""


@dataclass(frozen=True, slots=True)
class Taken:
    """The columns of one input, by their places, and the shape of a row of it."""

    spec: TensorSpec
    columns: tuple[int, ...]
    shape: tuple[int, ...]


def match(
    signature: Signature, names: Sequence[str], numeric: Sequence[bool], chosen: Sequence[str]
) -> tuple[Taken, ...]:
    """Which columns go into which input.

    Columns with the names of the inputs, where each input is one number; else those chosen, or
    ``NAME_0``, ``NAME_1``, … , or all numeric ones, for the one input.

    Raises:
        UsageError: they cannot be matched.
    """
    batched = is_batched(signature)
    shapes = [row_shape(spec, batched=batched) for spec in signature.inputs]
    if any(-1 in shape for shape in shapes):
        msg = "the model takes rows of different sizes, and columns are always as many"
        raise UsageError(msg, hint="give an npz or a folder of npy files")
    places = {name: i for i, name in enumerate(names)}
    if not chosen and all(
        prod(shape) == 1 and spec.name in places
        for spec, shape in zip(signature.inputs, shapes, strict=True)
    ):
        return tuple(
            Taken(spec, (places[spec.name],), shape)
            for spec, shape in zip(signature.inputs, shapes, strict=True)
        )
    if len(signature.inputs) > 1:
        wanted = ", ".join(spec.name for spec in signature.inputs)
        msg = "the file has not a column for each input"
        raise UsageError(msg, hint=f"name columns after the inputs ({wanted}), or give an npz")
    spec, shape = signature.inputs[0], shapes[0]
    if missing := [name for name in chosen if name not in places]:
        msg = f"the file has no column {missing[0]!r}"
        raise UsageError(msg, hint=f"it has {', '.join(names[:20])}")
    numbered = [f"{spec.name}_{i}" for i in range(prod(shape))]
    if chosen:
        columns = [places[name] for name in chosen]
    elif all(name in places for name in numbered):
        columns = [places[name] for name in numbered]
    else:
        columns = [i for i, is_number in enumerate(numeric) if is_number]
    if len(columns) != prod(shape):
        msg = f"input {spec.name!r} takes {prod(shape)} values, and {len(columns)} columns fit"
        raise UsageError(msg, hint="name those that are meant with --columns A,B,…")
    return (Taken(spec, tuple(columns), shape),)


class CsvSource:
    """A CSV file (RFC 4180) in UTF-8, with names in its first line or without."""

    def __init__(
        self, path: Path, signature: Signature, *, columns: Sequence[str] = (), id_: str | None
    ) -> None:
        """Look at its first two lines.

        Raises:
            UsageError: its columns are not what the model takes.
        """
        self._path = path
        self.rows: int | None = None
        self.fingerprint = file_print(path)
        with self._lines() as lines:
            first, second = next(lines, []), next(lines, [])
        if not first or len(first) > MAX_COLUMNS:
            msg = f"{path.name} holds no table"
            raise UsageError(msg)
        self._headed = not all(_is_number(cell) for cell in first)
        names = first if self._headed else [str(i) for i in range(len(first))]
        sample = second if self._headed else first
        numeric = [i < len(sample) and _is_number(sample[i]) for i in range(len(names))]
        if id_ is not None and id_ not in names:
            msg = f"{path.name} has no column {id_!r}"
            raise UsageError(msg, hint=f"it has {', '.join(names[:20])}")
        self._id = None if id_ is None else names.index(id_)
        if self._id is not None:
            numeric[self._id] = False
        self._names = names
        self._taken = match(signature, names, numeric, columns)

    def read(self, start: int, stop: int | None, size: int) -> Iterator[Chunk]:
        """As ``Source.read``."""
        size = max(1, min(size, CHUNK_BYTES // (_CELL_BYTES * len(self._names))))
        with self._lines() as lines:
            if self._headed:
                next(lines, None)
            at = 0
            for _ in islice(lines, start):
                at += 1
            while stop is None or at < stop:
                n = size if stop is None else min(size, stop - at)
                cells = list(islice(lines, n))
                if not cells:
                    return
                yield self._chunk(at, cells)
                at += len(cells)

    @contextmanager
    def _lines(self) -> Iterator[Iterator[list[str]]]:
        try:
            with self._path.open(encoding="utf-8-sig", newline="") as file:
                yield (row for row in csv.reader(file) if row)
        except (csv.Error, UnicodeDecodeError) as error:
            msg = f"{self._path.name} cannot be read as CSV: {error}"
            raise BatchRunError(msg) from error

    def _chunk(self, at: int, cells: list[list[str]]) -> Chunk:
        chunk = Chunk(at + len(cells), [], [], {})
        good: list[list[list[Any]]] = []
        for row, line in enumerate(cells, at):
            name = str(row) if self._id is None or self._id >= len(line) else line[self._id]
            try:
                if len(line) != len(self._names):  # by one comma too many, columns are shifted
                    raise IndexError  # noqa: TRY301 - said by _wrong, as what follows
                values = [[_CASTS[t.spec.dtype](line[i]) for i in t.columns] for t in self._taken]
            except (ValueError, IndexError):
                chunk.bad.append(Bad(row, name, self._wrong(line)))
                continue
            good.append(values)
            chunk.rows.append(row)
            chunk.ids.append(name)
        for i, taken in enumerate(self._taken if good else ()):
            chunk.feed[taken.spec.name] = np.array([row[i] for row in good]).reshape(
                len(good), *taken.shape
            )
        return typed(chunk, self._taken)

    def _wrong(self, line: list[str]) -> str:
        """What is wrong with a line."""
        if len(line) != len(self._names):
            return f"it has {len(line)} cells, the first line has {len(self._names)}"
        for taken in self._taken:
            for i in taken.columns:
                try:
                    _CASTS[taken.spec.dtype](line[i])
                except ValueError:
                    cell = line[i][:40]
                    return f"column {self._names[i]!r} holds {cell!r}, no {taken.spec.dtype}"
        return "it cannot be read"


def typed(chunk: Chunk, taken: Sequence[Taken]) -> Chunk:
    """Inputs in the signature's types; whole numbers that do not fit theirs are bad rows."""
    for one in taken:
        value = chunk.feed.get(one.spec.name)
        if value is None or value.dtype.name == one.spec.dtype:
            continue
        want = np.dtype(one.spec.dtype)
        if want.kind in "iu":
            info = np.iinfo(want)
            flat = value.reshape(len(value), -1)
            odd = ((flat < info.min) | (flat > info.max) | (flat != np.floor(flat))).any(axis=1)
            if odd.any():
                _drop(chunk, np.flatnonzero(odd).tolist(), f"a value is no {one.spec.dtype}")
                value = chunk.feed[one.spec.name]
        with np.errstate(over="ignore"):  # what becomes infinite is refused as such
            chunk.feed[one.spec.name] = value.astype(want)
    return chunk


def _drop(chunk: Chunk, places: Sequence[int], reason: str) -> None:
    gone = set(places)
    chunk.bad += [Bad(chunk.rows[i], chunk.ids[i], reason) for i in places]
    kept = [i for i in range(len(chunk.rows)) if i not in gone]
    chunk.rows, chunk.ids = [chunk.rows[i] for i in kept], [chunk.ids[i] for i in kept]
    chunk.feed = {name: value[kept] for name, value in chunk.feed.items()}


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _whole(dtype: str) -> Callable[[str], int]:
    info = np.iinfo(dtype)

    def cast(cell: str) -> int:
        value = int(cell)
        if not info.min <= value <= info.max:
            raise ValueError(cell)
        return value

    return cast


def _truth(cell: str) -> bool:
    try:
        return {"0": False, "1": True, "false": False, "true": True}[cell.strip().lower()]
    except KeyError:
        raise ValueError(cell) from None


_CASTS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("float16", "float32", "float64"), float),
    **{name: _whole(name) for name in ("uint8", "int8", "int32", "int64")},
    "bool": _truth,
}
