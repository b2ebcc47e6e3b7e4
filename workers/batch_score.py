"""One unit of a batch inference: read, infer with ONNX Runtime, write a parquet file."""

from __future__ import annotations

import json
import posixpath
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs

from schemas.model import TensorSpec
from workers.batch_plan import Unit
from workers.batch_read import conform, pieces
from workers.errors import WorkerError
from workers.session import Array, infer, open_session

FACTS = b"argosy"
"""The key of the counts in a result's metadata."""

SCHEMA = pa.schema(
    [
        pa.field("source", pa.string()),
        pa.field("row", pa.int64()),
        pa.field("class", pa.int64()),
        pa.field("label", pa.string()),
        pa.field("confidence", pa.float32()),
        pa.field("output", pa.list_(pa.float32())),
        pa.field("error", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Done:
    """A unit's counts. detail: why none of its rows could be read, if so."""

    rows: int = 0
    errors: int = 0
    detail: str | None = None


def part_of(output: str, unit: Unit) -> str:
    """Where a unit's result goes."""
    return posixpath.join(output.rstrip("/"), f"part-{unit.key}.parquet")


def found(output: str, unit: Unit) -> Done | None:
    """The counts of a unit that was done before, or None."""
    fs, path = url_to_fs(part_of(output, unit))
    if not fs.exists(path):
        return None
    with fs.open(path, "rb") as file:
        facts = (pq.ParquetFile(file).metadata.metadata or {}).get(FACTS)
    return None if facts is None else Done(**json.loads(facts))


class Scorer:
    """Infers units, one at a time; holds the model in memory.

    Args:
        model: the ONNX file's bytes.
        spec: of its input.
        labels: of its classes; empty if its output is none.
        output: the folder or URL of the results.
        columns: of csv and parquet.
        batch_size: rows per inference.
    """

    def __init__(
        self,
        model: bytes,
        spec: TensorSpec,
        labels: Sequence[str],
        output: str,
        *,
        columns: Sequence[str] = (),
        batch_size: int = 256,
    ) -> None:
        self._session = open_session(model)
        self._spec = spec
        self._labels = tuple(labels)
        self._output = output
        self._columns = tuple(columns)
        self._batch = batch_size

    def score(self, unit: Unit) -> Done:
        """Do a unit, unless it is done; the result appears whole or not at all."""
        before = found(self._output, unit)
        if before is not None:
            return before
        fs, path = url_to_fs(part_of(self._output, unit))
        fs.makedirs(posixpath.dirname(path), exist_ok=True)
        temporary = f"{path}.{secrets.token_hex(4)}.tmp"
        try:
            done = self._write(fs, temporary, unit)
            fs.mv(temporary, path)
        except WorkerError as error:
            fs.rm(temporary) if fs.exists(temporary) else None
            return Done(detail=str(error))
        except BaseException:
            fs.rm(temporary) if fs.exists(temporary) else None
            raise
        return done

    def _write(self, fs: Any, path: str, unit: Unit) -> Done:
        rows = errors = 0
        with fs.open(path, "wb") as file, pq.ParquetWriter(file, SCHEMA) as writer:
            for values in pieces(unit, self._columns):
                table, wrong = self._table(unit, unit.start + rows, values)
                writer.write_table(table)
                rows, errors = rows + len(values), errors + wrong
            writer.add_key_value_metadata({FACTS: json.dumps({"rows": rows, "errors": errors})})
        return Done(rows, errors)

    def _table(self, unit: Unit, first: int, values: Array) -> tuple[pa.Table, int]:
        x, wrong = conform(values, self._spec)
        out = infer(self._session, x, batch=self._batch) if len(x) else np.zeros((0, 1))
        flat = out.reshape(len(out), int(np.prod(out.shape[1:]))).astype(np.float32)
        fine = np.array([error is None for error in wrong], dtype=bool)
        classes = flat.argmax(axis=1) if len(flat) else np.zeros(0, dtype=np.int64)
        named = len(self._labels) == flat.shape[1] and out.ndim == 2  # noqa: PLR2004 - (n, classes)
        columns = {
            "source": [unit.name] * len(x),
            "row": np.arange(first, first + len(x)),
            "class": _where(fine, classes) if named else [None] * len(x),
            "label": _where(fine, [self._labels[c] for c in classes]) if named else [None] * len(x),
            "confidence": _where(fine, flat.max(axis=1, initial=-np.inf)) if named else None,
            "output": _where(fine, list(flat)),
            "error": wrong,
        }
        columns["confidence"] = columns["confidence"] or [None] * len(x)
        return pa.table(columns, SCHEMA), int((~fine).sum())


def _where(fine: Array, values: Any) -> list[Any]:
    return [value if ok else None for ok, value in zip(fine, values, strict=True)]
