"""Rows of npy and npz files, and of folders, read a few at a time: never a whole file."""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

import numpy as np

from edge_client.errors import BatchRunError, InputError, UsageError
from edge_client.files import read_limited
from edge_client.inference import Array, Loaded
from edge_client.ops import Preprocessor
from schemas.ops import Decode
from schemas.signature import Signature, TensorSpec

CHUNK_BYTES = 64 * 1024**2
"""Inputs that are read together, at most; a single row may be larger."""

MAX_FILE_BYTES = 256 * 1024**2
MAX_FILES = 5_000_000
IMAGES = frozenset({".png", ".jpg", ".jpeg"})
_EDGE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Bad:
    """A row without an answer, and why."""

    row: int
    id: str
    reason: str


@dataclass(slots=True)
class Chunk:
    """Rows that follow each other.

    stop: the row after the last one. rows, ids: of those that could be read. feed: inputs by
    name, [rows, …]. bad: those that could not be read.
    """

    stop: int
    rows: list[int]
    ids: list[str]
    feed: dict[str, Array]
    bad: list[Bad] = field(default_factory=list)


class Source(Protocol):
    """Where rows come from. rows: how many; None where that is known only at the end."""

    rows: int | None
    fingerprint: str

    def read(self, start: int, stop: int | None, size: int) -> Iterator[Chunk]:
        """Rows from ``start`` up to ``stop``, about ``size`` at a time."""


def row_shape(spec: TensorSpec, *, batched: bool) -> tuple[int, ...]:
    """What one row of an input looks like; -1 stands for any size."""
    return spec.shape[1:] if batched else spec.shape


def is_batched(signature: Signature) -> bool:
    """Whether each input has the same batch in front: of any size, or of a fixed one."""
    first = {spec.shape[:1] for spec in signature.inputs}
    return len(first) == 1 and first != {()}


def file_print(path: Path) -> str:
    """What tells a file from another: size, time of change, and both its ends."""
    about = path.stat()
    digest = hashlib.sha256(f"{about.st_size} {about.st_mtime_ns}".encode())
    with path.open("rb") as file:
        digest.update(file.read(_EDGE_BYTES))
        file.seek(max(0, about.st_size - _EDGE_BYTES))
        digest.update(file.read(_EDGE_BYTES))
    return digest.hexdigest()


class _Rows:
    """The rows of one array in npy's format (NumPy's NEP 1), from a file or an archive's member."""

    def __init__(self, file: IO[bytes], what: str) -> None:
        try:
            version = np.lib.format.read_magic(file)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, fortran, dtype = read(file)
        except (ValueError, KeyError, EOFError) as error:
            msg = f"{what} is no npy array: {error}"
            raise UsageError(msg) from error
        if dtype.hasobject or not shape or (fortran and len(shape) > 1):
            msg = f"{what} must be an array of rows of plain numbers in C order"
            raise UsageError(msg, hint="write it with numpy.save(…, numpy.ascontiguousarray(x))")
        self._file, self._what, self._at = file, what, file.tell()
        self.rows, self.shape, self.dtype = int(shape[0]), tuple(shape[1:]), dtype
        self.row_bytes = dtype.itemsize * math.prod(self.shape)

    def skip_to(self, row: int) -> None:
        self._file.seek(self._at + row * self.row_bytes)

    def read(self, n: int) -> Array:
        found = np.empty((n, *self.shape), self.dtype)
        rest = memoryview(found.reshape(-1).view(np.uint8).data)
        try:
            while rest and (got := self._file.readinto(rest)):  # type: ignore[attr-defined] # both have it
                rest = rest[got:]
        except (OSError, zipfile.BadZipFile, EOFError) as error:
            msg = f"{self._what} cannot be read on: {error}"
            raise BatchRunError(msg) from error
        if rest:
            msg = f"{self._what} is cut off: it has fewer rows than it says"
            raise BatchRunError(msg)
        return found.astype(self.dtype.newbyteorder("="), copy=False)


class ArraySource:
    """An npy file for a model with one input, or an npz with an array for each input."""

    def __init__(self, path: Path, signature: Signature) -> None:
        """Look at the headers.

        Raises:
            UsageError: an array is missing, or is not what an input takes.
        """
        self._path, self._specs = path, signature.inputs
        self._batched = is_batched(signature)
        self.fingerprint = file_print(path)
        with ExitStack() as stack:
            arrays = self._open(stack)
            rows = {name: array.rows for name, array in arrays.items()}
            for spec in self._specs:
                self._require_fit(spec, arrays[spec.name])
            self._row_bytes = sum(array.row_bytes for array in arrays.values())
        if len(set(rows.values())) > 1:
            msg = f"the arrays of {path.name} have different numbers of rows: {rows}"
            raise UsageError(msg)
        self.rows: int | None = next(iter(rows.values()))

    def read(self, start: int, stop: int | None, size: int) -> Iterator[Chunk]:
        """As ``Source.read``; no more than ``CHUNK_BYTES`` at once."""
        end = self.rows if stop is None else min(stop, self.rows or 0)
        size = max(1, min(size, CHUNK_BYTES // max(1, self._row_bytes)))
        with ExitStack() as stack:
            arrays = self._open(stack)
            for array in arrays.values():
                array.skip_to(start)
            for at in range(start, end or 0, size):
                n = min(size, (end or 0) - at)
                feed = {name: array.read(n) for name, array in arrays.items()}
                rows = list(range(at, at + n))
                yield Chunk(at + n, rows, [str(row) for row in rows], feed)

    def _open(self, stack: ExitStack) -> dict[str, _Rows]:
        names = [spec.name for spec in self._specs]
        if self._path.suffix == ".npy":
            if len(names) > 1:
                msg = f"the model has {len(names)} inputs, and an npy file has one array"
                raise UsageError(msg, hint=f"give an npz with {', '.join(names)}")
            return {names[0]: _Rows(stack.enter_context(self._path.open("rb")), self._path.name)}
        try:
            archive = stack.enter_context(zipfile.ZipFile(self._path))
            there = {info.filename.removesuffix(".npy") for info in archive.infolist()}
            if len(names) == 1 and names[0] not in there and len(there) == 1:
                members = {names[0]: next(iter(there))}
            else:
                members = {name: name for name in names}
            if missing := sorted(set(members.values()) - there):
                msg = f"{self._path.name} has no array {missing[0]!r}"
                raise UsageError(msg, hint=f"it has {', '.join(sorted(there)[:10]) or 'none'}")
            return {
                name: _Rows(stack.enter_context(archive.open(f"{member}.npy")), member)
                for name, member in members.items()
            }
        except zipfile.BadZipFile as error:
            msg = f"{self._path.name} is no npz archive: {error}"
            raise UsageError(msg) from error

    def _require_fit(self, spec: TensorSpec, array: _Rows) -> None:
        want = row_shape(spec, batched=self._batched)
        fits = len(want) == len(array.shape) and all(
            a in {-1, b} for a, b in zip(want, array.shape, strict=True)
        )
        if array.dtype.name != spec.dtype or not fits:
            msg = (
                f"a row for input {spec.name!r} must be {spec.dtype}{list(want)}, and those of"
                f" {self._path.name} are {array.dtype.name}{list(array.shape)}"
            )
            raise UsageError(msg, hint=f"convert it, as with x.astype({spec.dtype!r})")


class FolderSource:
    """A folder with a file per row: PNG, JPEG or npy; by name, folders inside it included."""

    def __init__(self, path: Path, loaded: Loaded) -> None:
        """List it.

        Raises:
            UsageError: it holds no such files, or too many.
            LoadError: the manifest's steps cannot be done here.
        """
        signature = loaded.manifest.signature
        if len(signature.inputs) > 1:
            msg = f"the model has {len(signature.inputs)} inputs; a folder has a file per row"
            raise UsageError(msg, hint="give an npz with an array for each input")
        self._path, self._model = path, loaded.model
        self._name, self._batched = signature.inputs[0].name, is_batched(signature)
        kinds = IMAGES | {".npy"}
        self._files = sorted(
            (p.relative_to(path).as_posix(), p)
            for p in path.rglob("*")
            if p.suffix.lower() in kinds and p.is_file()
        )
        if not 0 < len(self._files) <= MAX_FILES:
            msg = f"{path} holds {len(self._files)} PNG, JPEG or npy files; 1 to {MAX_FILES} may be"
            raise UsageError(msg)
        ops = loaded.manifest.preprocess
        arrays = any(name.lower().endswith(".npy") for name, _ in self._files)
        if not arrays and not any(isinstance(op, Decode) for op in ops):
            msg = "the model's manifest does not say how a picture becomes its input"
            raise UsageError(msg, hint="give npy files, or one npy or npz with a row of each")
        self._steps = Preprocessor(loaded.manifest) if ops else None
        self.rows: int | None = len(self._files)
        digest = hashlib.sha256()
        for name, file in self._files:
            about = file.stat()
            digest.update(f"{name}\0{about.st_size} {about.st_mtime_ns}\n".encode())
        self.fingerprint = digest.hexdigest()

    def read(self, start: int, stop: int | None, size: int) -> Iterator[Chunk]:
        """As ``Source.read``."""
        end = len(self._files) if stop is None else min(stop, len(self._files))
        chunk, samples = Chunk(start, [], [], {}), list[Array]()
        for row in range(start, end):
            name, file = self._files[row]
            try:
                sample = self._sample(file)
            except (InputError, UsageError, OSError, ValueError, EOFError, MemoryError) as error:
                chunk.bad.append(Bad(row, name, str(error) or "it takes too much memory"))
            else:
                if samples and not _together(samples, sample):
                    yield self._whole(chunk, samples)
                    chunk, samples = Chunk(row, [], [], {}), []
                samples.append(sample)
                chunk.rows.append(row)
                chunk.ids.append(name)
            chunk.stop = row + 1
            if len(chunk.rows) + len(chunk.bad) >= size:
                yield self._whole(chunk, samples)
                chunk, samples = Chunk(row + 1, [], [], {}), []
        if chunk.rows or chunk.bad:
            yield self._whole(chunk, samples)

    def _whole(self, chunk: Chunk, samples: Sequence[Array]) -> Chunk:
        if samples:
            chunk.feed = {self._name: np.stack(samples)}
        return chunk

    def _sample(self, file: Path) -> Array:
        data = read_limited(file, MAX_FILE_BYTES)
        if file.suffix.lower() == ".npy":
            value = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
            if self._steps is None:
                return np.asarray(value)
            made = self._steps.prepare([value])[self._name]
        elif self._steps is None:
            msg = "the model's manifest does not say how a picture becomes its input"
            raise InputError(msg)
        else:
            made = self._steps.prepare(data)[self._name]
        if len(made) != 1:
            msg = f"it makes {len(made)} samples, not one"
            raise InputError(msg)
        return np.asarray(made[0])


def _together(samples: Sequence[Array], one: Array) -> bool:
    """Whether one more goes with them: a row that is odd spoils no other, nor takes its type."""
    first = samples[0]
    alike = one.shape == first.shape and one.dtype == first.dtype
    return alike and (len(samples) + 1) * one.nbytes <= CHUNK_BYTES
