"""Rows of Parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from edge_client.batch_arrays import CHUNK_BYTES, Bad, Chunk, file_print, is_batched, row_shape
from edge_client.batch_tables import Taken, match, typed
from edge_client.errors import BatchRunError, UsageError
from edge_client.inference import Array
from schemas.signature import Signature


class ParquetSource:
    """A Parquet file; needs the extra ``parquet``."""

    def __init__(
        self, path: Path, signature: Signature, *, columns: Sequence[str] = (), id_: str | None
    ) -> None:
        """Look at its schema.

        Raises:
            UsageError: pyarrow is missing, or the columns are not what the model takes.
        """
        arrow, parquet = need_pyarrow()
        self._path, self._open = path, parquet.ParquetFile
        self.fingerprint = file_print(path)
        self.rows: int | None
        try:
            with self._open(path) as file:
                schema, self.rows = file.schema_arrow, int(file.metadata.num_rows)
                groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        except (arrow.ArrowException, OSError) as error:
            msg = f"{path.name} cannot be read as Parquet: {error}"
            raise UsageError(msg) from error
        self._mask = arrow.array
        self._errors, self._groups = arrow.ArrowException, groups
        names = list(schema.names)
        if id_ is not None and id_ not in names:
            msg = f"{path.name} has no column {id_!r}"
            raise UsageError(msg, hint=f"it has {', '.join(names[:20])}")
        kinds = arrow.types
        numeric = [
            name != id_ and (kinds.is_integer(f.type) or kinds.is_floating(f.type))
            for name, f in zip(names, schema, strict=True)
        ]
        self._id, self._names = id_, names
        self._taken = self._lists(schema, signature, columns, kinds) or match(
            signature, names, numeric, columns
        )

    def read(self, start: int, stop: int | None, size: int) -> Iterator[Chunk]:
        """As ``Source.read``; row groups before ``start`` are not touched."""
        first, at = 0, 0
        while first < len(self._groups) and at + self._groups[first] <= start:
            at += self._groups[first]
            first += 1
        wanted = {self._names[i] for t in self._taken for i in t.columns}
        wanted |= {self._id} if self._id else set()
        end = self.rows if stop is None else min(stop, self.rows or 0)
        size = max(
            1, min(size, CHUNK_BYTES // (_VALUE_BYTES * sum(prod(t.shape) for t in self._taken)))
        )
        with self._open(self._path) as file:
            groups = range(first, len(self._groups))
            pieces = file.iter_batches(size, row_groups=list(groups), columns=sorted(wanted))
            while True:
                try:
                    piece = next(pieces, None)
                except self._caught() as error:
                    msg = f"{self._path.name} cannot be read on: {error}"
                    raise BatchRunError(msg) from error
                if piece is None or at >= (end or 0):
                    return
                low, high = max(0, start - at), min(piece.num_rows, (end or 0) - at)
                if low < high:
                    yield self._chunk(at + low, piece.slice(low, high - low))
                at += piece.num_rows

    def _caught(self) -> tuple[type[Exception], ...]:
        return (self._errors, OSError)

    def _lists(
        self, schema: Any, signature: Signature, chosen: Sequence[str], kinds: Any
    ) -> tuple[Taken, ...] | None:
        """An input for each column of lists that bears its name."""
        batched = is_batched(signature)
        taken = []
        for spec in signature.inputs:
            place = schema.get_field_index(spec.name)
            if chosen or place < 0 or not _is_list(schema.field(place).type, kinds):
                return None
            taken.append(Taken(spec, (place,), row_shape(spec, batched=batched)))
        return tuple(taken)

    def _chunk(self, at: int, piece: Any) -> Chunk:
        n = piece.num_rows
        chunk = Chunk(at + n, [], [], {})
        ids = [str(v) for v in piece.column(self._id).to_pylist()] if self._id else None
        columns = {
            name: piece.column(name)
            for name in {self._names[i] for t in self._taken for i in t.columns}
        }
        wrong = self._nulls(columns, n)
        for i in range(n):
            name = str(at + i) if ids is None else ids[i]
            if i in wrong:
                chunk.bad.append(Bad(at + i, name, wrong[i]))
            else:
                chunk.rows.append(at + i)
                chunk.ids.append(name)
        keep = np.array([i not in wrong for i in range(n)])
        for taken in self._taken if chunk.rows else ():
            values = [self._values(columns[self._names[i]], keep) for i in taken.columns]
            joined = values[0] if len(values) == 1 else np.stack(values, axis=1)
            chunk.feed[taken.spec.name] = joined.reshape(len(chunk.rows), *taken.shape)
        return typed(chunk, self._taken)

    def _values(self, column: Any, keep: Array) -> Array:
        # Nulls are left out before: a whole number beside one would pass through a float.
        column = column.filter(self._mask(keep))
        if hasattr(column, "flatten"):
            return np.array(column.to_pylist())
        return np.asarray(column.to_numpy(zero_copy_only=False))

    def _nulls(self, columns: Mapping[str, Any], n: int) -> dict[int, str]:
        wrong: dict[int, str] = {}
        sizes = {self._names[t.columns[0]]: prod(t.shape) for t in self._taken}
        for name, column in columns.items():
            if column.null_count:
                for i in np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False)).tolist():
                    wrong[i] = f"column {name!r} is null"
            if hasattr(column, "flatten"):
                for i, row in enumerate(column.to_pylist()[:n]):
                    if row is not None and (len(row) != sizes[name] or None in row):
                        wrong[i] = f"column {name!r} has not {sizes[name]} values"
        return wrong


_VALUE_BYTES = 64
"""Of a value as Python has it, about."""


def _is_list(kind: Any, kinds: Any) -> bool:
    return bool(kinds.is_list(kind) or kinds.is_fixed_size_list(kind) or kinds.is_large_list(kind))


def need_pyarrow() -> tuple[Any, Any]:
    """The library pyarrow, and its half for Parquet.

    Raises:
        UsageError: they are not installed.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra
        from pyarrow import parquet  # noqa: PLC0415 - likewise
    except ImportError as error:
        msg = "Parquet needs the extra parquet"
        raise UsageError(msg, hint="pip install 'argosy[parquet]'") from error
    return pa, parquet
