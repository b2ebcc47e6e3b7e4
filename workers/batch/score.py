"""One unit of a batch inference: read, infer with ONNX Runtime, write a parquet file."""

from __future__ import annotations

import contextlib
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

from schemas.job import JobCause
from schemas.signature import TensorSpec
from workers.batch.plan import Unit
from workers.batch.read import conform, pieces
from workers.errors import JobFailed, UsageError
from workers.optimization.session import Array, infer, open_session

UNFINISHED = ".tmp"
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


def unfinished_of(part: str) -> str:
    """How a part begins to be called while it is written; hidden from who reads the folder."""
    folder, name = posixpath.split(part)
    return posixpath.join(folder, f".{name}.")


def unwritable(output: str, error: OSError) -> JobFailed:
    """Results cannot be written."""
    detail = f"results cannot be written to {output}: {error.strerror or error}"
    return JobFailed(JobCause.USER_CODE, f"{detail}; every node must be able to write there")


def found(output: str, unit: Unit) -> Done | None:
    """The counts of a unit that was done before, or None."""
    fs, path = url_to_fs(part_of(output, unit))
    if not fs.exists(path):
        return None
    try:
        with fs.open(path, "rb") as file:
            facts = (pq.ParquetFile(file).metadata.metadata or {}).get(FACTS)
    except (pa.ArrowInvalid, OSError):  # a machine that lost its power may leave half of it
        return None
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
        temporary = f"{unfinished_of(path)}{secrets.token_hex(4)}{UNFINISHED}"
        try:
            fs.makedirs(posixpath.dirname(path), exist_ok=True)
            done = self._write(fs, temporary, unit)
            fs.mv(temporary, path)
        except UsageError as error:
            said = str(error)
            return Done(detail=said if said.startswith(unit.name) else f"{unit.name}: {said}")
        except OSError as error:  # what reading raises is a UsageError
            raise unwritable(self._output, error) from error
        finally:
            with contextlib.suppress(OSError):
                if fs.exists(temporary):
                    fs.rm(temporary)
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
        out = self._infer(unit, first, x) if len(x) else np.zeros((0, 1))
        flat = out.reshape(len(out), int(np.prod(out.shape[1:]))).astype(np.float32)
        fine = np.array([error is None for error in wrong], dtype=bool)
        named = len(self._labels) == flat.shape[1] and out.ndim == 2  # noqa: PLR2004 - (n, classes)
        told = fine if named else np.zeros(len(x), dtype=bool)
        classes = flat.argmax(axis=1) if named and len(x) else np.zeros(len(x), dtype=np.int64)
        index = pa.array(classes, pa.int64(), mask=~told)
        ends = np.arange(len(x) + 1, dtype=np.int32) * flat.shape[1]
        columns = {
            "source": pa.repeat(unit.name, len(x)),
            "row": np.arange(first, first + len(x)),
            "class": index,
            "label": pa.array(self._labels or ("",), pa.string()).take(index),
            "confidence": pa.array(flat.max(axis=1, initial=-np.inf), mask=~told),
            "output": pa.ListArray.from_arrays(
                pa.array(ends), pa.array(flat.ravel()), mask=pa.array(~fine)
            ),
            "error": pa.array(wrong, pa.string()),
        }
        return pa.table(columns, SCHEMA), int((~fine).sum())

    def _infer(self, unit: Unit, first: int, x: Array) -> Array:
        try:
            return infer(self._session, x, batch=self._batch)
        except MemoryError:
            raise
        except Exception as error:
            said = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            msg = f"{unit.name}: the model fails on rows {first} to {first + len(x) - 1}: {said}"
            raise UsageError(msg, "see what shapes it takes") from error
