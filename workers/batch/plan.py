"""What a batch inference has to do: its inputs, cut into units that are each done once.

A unit is a span of rows of one file and gives one result file. Its key says which rows of
which state of the file, by which model: what is there under that key is never done again.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from fsspec.core import url_to_fs

from workers.errors import UsageError

UNIT_ROWS = 50_000
MAX_FILES = 1_000_000
SUFFIXES = (".npy", ".npz", ".csv", ".parquet")
ARRAY = "x"
"""The array of an npz file that is read, unless it has only one."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Rows ``start`` to ``start + rows`` of a file; rows None: all there are.

    name: of the file, below the input. groups: of a parquet file, the row groups.
    """

    path: str
    name: str
    key: str
    start: int = 0
    rows: int | None = None
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Header:
    """Where the rows of an array lie. shape: with the rows in front."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize


def plan(
    source: str, identity: str, *, output: str | None = None, unit_rows: int = UNIT_ROWS
) -> tuple[Unit, ...]:
    """The units of an input file or folder.

    Args:
        source: a path or URL.
        identity: of the model and of all that decides a result.
        output: where results go; what lies there is no input.
        unit_rows: the most rows of a unit.

    Raises:
        UsageError: it is not there, holds nothing that can be read, or a file is damaged; or
            the results would lie between the inputs.
    """
    fs, root = url_to_fs(source)
    units: list[Unit] = []
    for path in _files(fs, root, source, _within(fs, root, output)):
        name = path.removeprefix(root).lstrip("/") or path.rpartition("/")[2]
        info = fs.info(path)
        state = f"{name}\n{info.get('size')}\n{info.get('mtime') or info.get('ETag')}"
        seed = f"{identity}\n{state}"
        try:
            units += list(_units(fs, path, name, seed, unit_rows))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            msg = f"{name} cannot be read: {_first_line(error)}"
            raise UsageError(msg, "repair it or take it out of the input") from error
    return tuple(units)


def _within(fs: Any, root: str, output: str | None) -> str | None:
    """The folder of the results, if it lies in that of the inputs."""
    if output is None:
        return None
    other, place = url_to_fs(output)
    if type(other) is not type(fs):
        return None
    inner, outer = (_real(fs, path) for path in (place, root))
    if inner == outer:
        msg = f"the results would lie between the inputs, in {output}"
        raise UsageError(msg, "name another folder for them")
    below = inner.startswith(f"{outer}/")
    return posixpath.join(root, inner.removeprefix(f"{outer}/")) if below else None


def _real(fs: Any, path: str) -> str:
    local = "file" in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol)
    return (os.path.realpath(path) if local else path).rstrip("/")


def _files(fs: Any, root: str, source: str, results: str | None) -> list[str]:
    if not fs.exists(root):
        msg = f"there is no input {source}"
        raise UsageError(msg, "name a file or folder that every node of the cluster sees")
    found = sorted(fs.find(root)) if fs.isdir(root) else [root]
    if results is not None:
        found = [path for path in found if not path.startswith(f"{results}/")]
    readable = [path for path in found if path.lower().endswith(SUFFIXES)]
    if not readable:
        msg = f"{source} holds no {', '.join(SUFFIXES)} file"
        raise UsageError(msg, "convert the data to one of them")
    if len(readable) > MAX_FILES:
        msg = f"{source} holds {len(readable)} files, more than {MAX_FILES}"
        raise UsageError(msg, "put the rows into fewer files")
    return readable


def _units(fs: Any, path: str, name: str, seed: str, unit_rows: int) -> Iterator[Unit]:
    lower = path.lower()
    if lower.endswith(".csv"):
        yield Unit(path, name, _key(seed, 0))
    elif lower.endswith(".parquet"):
        yield from _row_groups(fs, path, name, seed, unit_rows)
    else:
        with fs.open(path, "rb") as file:
            total = array_header(file, npz=lower.endswith(".npz")).shape[0]
        for start in range(0, total, unit_rows):
            yield Unit(path, name, _key(seed, start), start, min(unit_rows, total - start))


def _row_groups(fs: Any, path: str, name: str, seed: str, unit_rows: int) -> Iterator[Unit]:
    import pyarrow.parquet as pq  # noqa: PLC0415 - only for such files

    with fs.open(path, "rb") as file:
        meta = pq.ParquetFile(file).metadata
    start, rows, groups = 0, 0, []
    for group in range(meta.num_row_groups):
        groups.append(group)
        rows += meta.row_group(group).num_rows
        if rows >= unit_rows or group == meta.num_row_groups - 1:
            yield Unit(path, name, _key(seed, start), start, rows, tuple(groups))
            start, rows, groups = start + rows, 0, []


def array_header(file: BinaryIO, *, npz: bool) -> Header:
    """The header of an npy file, or of the array of an npz file that is read.

    Raises:
        ValueError: it is damaged, or holds objects or columns first.
    """
    if npz:
        with zipfile.ZipFile(file) as archive, archive.open(member_of(archive)) as member:
            return read_header(member)
    return read_header(file)


def member_of(archive: zipfile.ZipFile) -> str:
    """The member that is read: ``x``, or the only one."""
    names = [name for name in archive.namelist() if name.endswith(".npy")]
    if f"{ARRAY}.npy" in names:
        return f"{ARRAY}.npy"
    if len(names) == 1:
        return names[0]
    msg = f"it holds {len(names)} arrays and none is called {ARRAY!r}"
    raise ValueError(msg)


def read_header(file: Any) -> Header:
    """Read an npy header; the file then stands at the first row."""
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        msg = f"npy version {version} is not known"
        raise ValueError(msg)
    shape, columns_first, dtype = read(file)
    if dtype.kind not in "buif" or (columns_first and len(shape) > 1) or not shape:
        msg = "it must hold plain numbers, row by row"
        raise ValueError(msg)
    return Header(tuple(shape), dtype)


def _key(seed: str, start: int) -> str:
    return hashlib.sha256(f"{seed}\n{start}".encode()).hexdigest()[:24]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
