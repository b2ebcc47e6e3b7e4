"""Results of rows, in parts that are whole or not there, and what they are put together to."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

import numpy as np

from edge_client.batch_arrays import Bad
from edge_client.batch_parquet import need_pyarrow
from edge_client.errors import BatchRunError, UsageError
from edge_client.files import fsync_folder, write_atomic
from edge_client.inference import Array, Prediction
from edge_client.ops import Postprocessor

Format: TypeAlias = Literal["csv", "jsonl", "npz", "parquet"]
FORMATS: tuple[Format, ...] = ("csv", "jsonl", "npz", "parquet")
_COPY = 1024 * 1024


def format_of(out: Path) -> Format | None:
    """By the suffix of a file; None for a folder.

    Raises:
        UsageError: there is no such format.
    """
    if not out.suffix or out.is_dir():
        return None
    suffix = out.suffix.removeprefix(".").lower()
    for one in FORMATS:
        if one == suffix:
            return one
    msg = f"results cannot be written as {out.suffix}"
    raise UsageError(msg, hint=f"use one of .{', .'.join(FORMATS)}, or a folder")


@dataclass(slots=True)
class Part:
    """Answers and bad rows, gathered. columns: by name, a value or an array per row."""

    rows: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    columns: dict[str, list[Any]] = field(default_factory=dict)
    bad: list[Bad] = field(default_factory=list)
    bytes: int = 0

    def add(self, rows: Sequence[int], ids: Sequence[str], columns: dict[str, list[Any]]) -> None:
        """Add answers."""
        self.rows += rows
        self.ids += ids
        for name, values in columns.items():
            self.columns.setdefault(name, []).extend(values)
            first = values[0] if values else None
            wide = first.nbytes if isinstance(first, np.ndarray) else 64
            self.bytes += wide * len(values)


class Columns:
    """From a prediction to columns: class, label and confidence, or the outputs as they are."""

    def __init__(self, post: Postprocessor | None, *, raw: bool) -> None:
        self._post, self.raw = post, raw

    def of(self, prediction: Prediction) -> dict[str, list[Any]]:
        """A value per sample, by column."""
        if self.raw or prediction.scores is None:
            return {name: list(value) for name, value in prediction.outputs.items()}
        if self._post is not None:
            return self._found(prediction)
        classes, confidence = prediction.classes, prediction.confidence
        assert classes is not None  # noqa: S101 - there are scores
        assert confidence is not None  # noqa: S101 - likewise
        numbers, labels = classes.tolist(), prediction.labels
        found: dict[str, list[Any]] = {"class": numbers}
        if labels:
            found["label"] = [labels[i] if i < len(labels) else str(i) for i in numbers]
        return found | {"confidence": confidence.tolist()}

    def _found(self, prediction: Prediction) -> dict[str, list[Any]]:
        assert self._post is not None  # noqa: S101 - the caller looked
        findings = self._post.finish(prediction)
        found: dict[str, list[Any]] = {
            "class": [f.top[0].index if f.known else -1 for f in findings],
            "label": [f.label or "unknown" for f in findings],
            "confidence": [f.top[0].probability for f in findings],
        }
        for place in range(1, len(findings[0].top) if findings else 0):
            guesses = [f.top[place] for f in findings]
            found[f"class_{place + 1}"] = [g.index for g in guesses]
            found[f"label_{place + 1}"] = [g.label or str(g.index) for g in guesses]
            found[f"confidence_{place + 1}"] = [g.probability for g in guesses]
        return found


def encode(part: Part, kind: Format) -> bytes:
    """A part's answers as a file of its own.

    Raises:
        BatchRunError: the format cannot hold them.
    """
    try:
        return _ENCODERS[kind](part)
    except ValueError as error:  # by numpy and pyarrow, where rows differ in shape
        raise _odd(kind) from error


def encode_bad(bad: Sequence[Bad]) -> bytes:
    """Bad rows as CSV, without a heading."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows((one.row, one.id, one.reason) for one in bad)
    return text.getvalue().encode()


def _csv(part: Part) -> bytes:
    names, columns = ["row", "id"], [part.rows, part.ids]
    for name, values in part.columns.items():
        if isinstance(values[0], np.ndarray):
            flat = np.stack(values).reshape(len(values), -1)
            names += [f"{name}_{i}" for i in range(flat.shape[1])]
            columns += flat.T.tolist()
        else:
            names.append(name)
            columns.append([v.item() if isinstance(v, np.generic) else v for v in values])
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(names)
    writer.writerows(zip(*columns, strict=True))
    return text.getvalue().encode()


def _jsonl(part: Part) -> bytes:
    names = ["row", "id", *part.columns]
    columns = [part.rows, part.ids, *([_plain(v) for v in c] for c in part.columns.values())]
    lines = (
        json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False)
        for row in zip(*columns, strict=True)
    )
    return "".join(f"{line}\n" for line in lines).encode()


def _npz(part: Part) -> bytes:
    arrays = {"row": np.array(part.rows), "id": np.array(part.ids, dtype=np.str_)}
    arrays |= {name: np.array(values) for name, values in part.columns.items()}
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type] # its stubs take no mapping
    return file.getvalue()


def _parquet(part: Part) -> bytes:
    pa, parquet = need_pyarrow()
    plain = {name: [_plain(v) for v in values] for name, values in part.columns.items()}
    file = io.BytesIO()
    parquet.write_table(pa.table({"row": part.rows, "id": part.ids, **plain}), file)
    return file.getvalue()


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


_ENCODERS: dict[Format, Callable[[Part], bytes]] = {
    "csv": _csv,
    "jsonl": _jsonl,
    "npz": _npz,
    "parquet": _parquet,
}


def join(parts: Sequence[Path], out: Path, kind: Format) -> None:
    """Put parts together to one file, which is there whole or not at all. Holds a part at a time.

    Raises:
        BatchRunError: the parts are of different shapes.
        OSError: it cannot be written; the parts are as they were.
    """
    temp = out.with_name(f".{out.name}.joining")
    if not parts:
        write_atomic(out, encode(Part(), kind))
        return
    try:
        with temp.open("wb") as file:
            _JOINERS[kind](parts, file)
            file.flush()
            os.fsync(file.fileno())
        temp.replace(out)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temp.unlink()
        if isinstance(error, ValueError):
            raise _odd(kind) from error
        raise
    fsync_folder(out.parent)


def join_bad(parts: Sequence[Path], out: Path) -> None:
    """The errors of all parts in one file, under a heading; none where there are no errors."""
    if parts:
        write_atomic(out, b"row,id,reason\r\n" + b"".join(part.read_bytes() for part in parts))
    else:
        out.unlink(missing_ok=True)


def _odd(kind: Format) -> BatchRunError:
    msg = f"outputs of different shapes do not go into one {kind} file"
    return BatchRunError(msg, hint="write them to a .jsonl file")


def _join_lines(parts: Sequence[Path], file: IO[bytes], *, headed: bool) -> None:
    first = b""
    for part in parts:
        with part.open("rb") as one:
            if headed:
                heading = one.readline()
                if not first:
                    first = heading
                    file.write(heading)
                elif heading != first:
                    raise ValueError(heading)
            while data := one.read(_COPY):
                file.write(data)


def _join_npz(parts: Sequence[Path], file: IO[bytes]) -> None:
    shapes: dict[str, tuple[int, tuple[int, ...], np.dtype[Any]]] = {}
    for part in parts:
        with np.load(part) as arrays:
            for name in arrays.files:
                value: Array = arrays[name]
                n, shape, dtype = shapes.get(name, (0, value.shape[1:], value.dtype))
                if shape != value.shape[1:]:
                    raise ValueError(shape)
                wide = np.promote_types(dtype, value.dtype)
                shapes[name] = (n + len(value), shape, wide)
    with zipfile.ZipFile(file, "w") as archive:
        for name, (n, shape, dtype) in shapes.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                head = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False}
                np.lib.format.write_array_header_2_0(member, head | {"shape": (n, *shape)})
                for part in parts:
                    with np.load(part) as arrays:
                        member.write(arrays[name].astype(dtype).tobytes())


def _join_parquet(parts: Sequence[Path], file: IO[bytes]) -> None:
    _, parquet = need_pyarrow()
    schema = parquet.read_schema(parts[0])
    with parquet.ParquetWriter(file, schema) as writer:
        for part in parts:
            writer.write_table(parquet.read_table(part).cast(schema))


_JOINERS: dict[Format, Callable[[Sequence[Path], IO[bytes]], None]] = {
    "csv": lambda parts, file: _join_lines(parts, file, headed=True),
    "jsonl": lambda parts, file: _join_lines(parts, file, headed=False),
    "npz": _join_npz,
    "parquet": _join_parquet,
}
