"""Rows of a batch inference's input, a bounded piece at a time, in the form the model takes."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from fsspec.core import url_to_fs

from schemas.signature import TensorSpec
from workers.batch.plan import Header, Unit, member_of, read_header
from workers.errors import UsageError
from workers.optimization.session import Array

PIECE_BYTES = 32 * 1024**2
SKIP_BYTES = 1024**2


def pieces(unit: Unit, columns: Sequence[str] = ()) -> Iterator[Array]:
    """The rows of a unit in order, in arrays (n, …) of at most about ``PIECE_BYTES``.

    columns: of csv and parquet, in the order of the features; empty: all.

    Raises:
        UsageError: the file is damaged, or lacks a column.
    """
    fs, path = url_to_fs(unit.path)
    lower = path.lower()
    try:
        with fs.open(path, "rb") as file:
            if lower.endswith(".npy"):
                yield from _array(file, unit)
            elif lower.endswith(".npz"):
                with zipfile.ZipFile(file) as archive, archive.open(member_of(archive)) as member:
                    yield from _array(member, unit)
            elif lower.endswith(".csv"):
                yield from _csv(file, columns)
            else:
                yield from _parquet(file, unit, columns)
    except UsageError:
        raise
    except Exception as error:
        text = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        msg = f"{unit.name} cannot be read: {text}"
        raise UsageError(msg, "repair it or take it out of the input") from error


def _array(file: Any, unit: Unit) -> Iterator[Array]:
    header: Header = read_header(file)
    left = header.shape[0] - unit.start if unit.rows is None else unit.rows
    _skip(file, unit.start * header.row_bytes)
    step = max(1, PIECE_BYTES // max(1, header.row_bytes))
    while left > 0:
        rows = min(step, left)
        data = _exactly(file, rows * header.row_bytes)
        yield np.frombuffer(data, header.dtype).reshape(rows, *header.shape[1:])
        left -= rows


def _skip(file: Any, count: int) -> None:
    if getattr(file, "seekable", lambda: False)() and not isinstance(file, zipfile.ZipExtFile):
        file.seek(count, 1)
        return
    while count > 0:
        count -= len(_exactly(file, min(count, SKIP_BYTES)))


def _exactly(file: Any, count: int) -> bytes:
    parts, left = [], count
    while left > 0:
        part = file.read(left)
        if not part:
            msg = f"it ends {left} bytes too early"
            raise ValueError(msg)
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _csv(file: Any, columns: Sequence[str]) -> Iterator[Array]:
    import pandas as pd  # noqa: PLC0415 - only for such files

    width = pd.read_csv(file, nrows=0).shape[1]
    file.seek(0)
    for frame in pd.read_csv(file, chunksize=_rows_of(8 * width)):
        yield _numbers(frame, columns)


def _parquet(file: Any, unit: Unit, columns: Sequence[str]) -> Iterator[Array]:
    import pyarrow.parquet as pq  # noqa: PLC0415 - only for such files

    source = pq.ParquetFile(file)
    wanted = list(columns) or None
    groups = [source.metadata.row_group(group) for group in unit.groups]
    size = sum(group.total_byte_size for group in groups) // max(1, unit.rows or 1)
    rows = _rows_of(size)
    for batch in source.iter_batches(rows, row_groups=list(unit.groups), columns=wanted):
        yield _numbers(batch.to_pandas(), columns)


def _rows_of(row_bytes: int) -> int:
    """How many rows of a table make a piece."""
    return max(1, min(10_000, PIECE_BYTES // max(1, row_bytes)))


def _numbers(frame: Any, columns: Sequence[str]) -> Array:
    """A table as float64 (n, features); what is no number becomes a NaN."""
    import pandas as pd  # noqa: PLC0415 - see the callers

    missing = [name for name in columns if name not in frame.columns]
    if missing:
        there = ", ".join(map(str, frame.columns))
        msg = f"there is no column {', '.join(missing)}; there are {there}"
        raise ValueError(msg[:500])
    chosen = frame[list(columns)] if columns else frame
    if chosen.shape[1] == 1 and chosen.iloc[:, 0].dtype == object:
        cells = list(chosen.iloc[:, 0])
        if any(isinstance(cell, (list, np.ndarray)) for cell in cells):
            return _vectors(cells)
    if not all(pd.api.types.is_numeric_dtype(kind) for kind in chosen.dtypes):
        chosen = chosen.apply(pd.to_numeric, errors="coerce")
    numbers: Array = chosen.to_numpy(dtype=np.float64, na_value=np.nan)
    return numbers


def _vectors(cells: Sequence[Any]) -> Array:
    """A column of vectors as float64 (n, features); one of another length is all NaN."""
    found = [None if cell is None else np.asarray(cell, dtype=np.float64) for cell in cells]
    sizes = Counter(one.size for one in found if one is not None)
    width = sizes.most_common(1)[0][0]
    rows = np.full((len(found), width), np.nan)
    for row, one in zip(rows, found, strict=True):
        if one is not None and one.size == width:
            row[:] = one
    return rows


def conform(values: Array, spec: TensorSpec) -> tuple[Array, list[str | None]]:
    """Rows in the model's dtype and shape, and for each row what is wrong with it, or None.

    A wrong row is all zeros in the result. values: (n, …); the features may be flat.

    Raises:
        UsageError: no row can have the model's shape.
    """
    shape = tuple(spec.shape[1:])
    values = _shaped(values, shape, spec)
    flat = values.reshape(len(values), int(np.prod(values.shape[1:])))
    errors: list[str | None] = [None] * len(values)
    target = np.dtype(spec.dtype)
    bad = np.zeros(len(values), dtype=bool)

    def refuse(rows: Any, why: str) -> None:
        for row in np.flatnonzero(rows & ~bad):
            errors[row] = why
        bad[:] |= rows

    if flat.shape[1]:
        # A NaN or an infinity shows in one of these: the values are read through only twice.
        least, most = flat.min(axis=1), flat.max(axis=1)
        if flat.dtype.kind == "f":
            fine = np.isfinite(least) & np.isfinite(most)
            refuse(~fine, "it holds a NaN, an infinity or what is no number")
        if target.kind in "iu" and flat.dtype.kind == "f":
            fractions = (flat != np.rint(flat)).any(axis=1)
            refuse(fractions, f"it holds fractions, the model takes {target}")
        low, high = _bounds(spec, target)
        outside = (least.astype(np.float64) < low) | (most.astype(np.float64) > high)
        refuse(outside, f"it holds a value outside of {low:g}..{high:g}")
    safe = np.where(bad[:, None], 0, flat) if bad.any() else flat
    return safe.astype(target, copy=False).reshape(values.shape), errors


def _shaped(values: Array, shape: tuple[int, ...], spec: TensorSpec) -> Array:
    if len(values.shape) - 1 == len(shape) and all(
        want in (-1, have) for want, have in zip(shape, values.shape[1:], strict=True)
    ):
        return values
    if -1 not in shape and int(np.prod(values.shape[1:])) == int(np.prod(shape)):
        return values.reshape(len(values), *shape)
    msg = (
        f"rows have the shape {list(values.shape[1:])}, "
        f"the model's input {spec.name!r} takes {list(shape)}"
    )
    raise UsageError(msg, "convert the data, or name the columns")


def _bounds(spec: TensorSpec, target: np.dtype[Any]) -> tuple[float, float]:
    if spec.range is not None:
        low, high = spec.range
        # Compared as the dtype that is served: 0.1 is another number there.
        return float(target.type(low)), float(target.type(high))
    if target.kind in "iu":
        info = np.iinfo(target)
        return float(info.min), float(info.max)
    if target.kind == "f":
        largest = float(np.finfo(target).max)
        return -largest, largest
    return 0.0, 1.0
