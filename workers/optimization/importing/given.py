"""The samples that come with a model made elsewhere: an npz archive, read with limits."""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np
from fsspec.core import url_to_fs
from numpy.typing import NDArray

from schemas.job import JobCause
from schemas.signature import TensorSpec
from workers.errors import JobFailed
from workers.optimization.session import Array
from workers.task import Samples, Splits, Task

MAX_DATA_BYTES = 2 * 1024**3
"""Of the arrays, unpacked: they are held in memory."""
MAX_HEADER_BYTES = 64 * 1024
FEWEST_SAMPLES = 12
CALIBRATION_SHARE, VALIDATION_SHARE = 0.2, 0.4
"""Disjoint parts: to set ranges with, to decide by; the rest only reports."""


@dataclass(frozen=True, slots=True)
class Given:
    """x: inputs, (n, …) of the served dtype. y: class numbers, (n,)."""

    x: Array
    y: NDArray[np.int64]


def read_given(place: str, spec: TensorSpec) -> Given:
    """Read ``x`` and ``y``.

    Args:
        place: the archive's path or URL.
        spec: of the model's input.

    Raises:
        JobFailed: bad_data: it is no such archive, is too large, or does not fit the model.
    """
    try:
        fs, path = url_to_fs(place)
        with fs.open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            x, y = (_array(archive, name) for name in ("x", "y"))
    except Exception as error:  # archives and file systems raise what they like
        text = getattr(error, "strerror", None) or str(error)
        first = (text.strip().splitlines() or [type(error).__name__])[0][:300]
        detail = f"onnx.data: {place} cannot be read: {first}; give an npz with x and y"
        raise JobFailed(JobCause.BAD_DATA, detail) from error
    fault = _fault(x, y, spec)
    if fault is not None:
        raise JobFailed(JobCause.BAD_DATA, f"onnx.data: {place}: {fault}")
    return Given(x, y.astype(np.int64))


def _fault(x: Array, y: Array, spec: TensorSpec) -> str | None:
    """What keeps the arrays from being samples of the model's, if anything."""
    if y.ndim != 1 or y.dtype.kind not in "iu":
        return f"y is {y.dtype}{list(y.shape)}; one whole number each is needed"
    if x.ndim == 0 or len(x) != len(y) or len(y) < FEWEST_SAMPLES:
        n = len(x) if x.ndim else 0
        return f"{n} inputs and {len(y)} classes; as many of both, at least {FEWEST_SAMPLES}"
    fits = x.dtype == spec.dtype and len(x.shape) == len(spec.shape)
    if not fits or any(w not in {-1, g} for w, g in zip(spec.shape[1:], x.shape[1:], strict=True)):
        return (
            f"x is {x.dtype}{list(x.shape)}, "
            f"but the model takes {spec.dtype}{list(spec.shape)} as {spec.name!r}"
        )
    return None


def _array(archive: zipfile.ZipFile, name: str) -> Array:
    """An array, once its header and the archive agree on how large it is."""
    try:
        entry = archive.getinfo(f"{name}.npy")
    except KeyError:
        msg = f"it has no array {name!r}"
        raise ValueError(msg) from None
    with archive.open(entry) as file:
        shape, fortran, dtype = _header(file)
        needed = math.prod(shape) * dtype.itemsize
        if needed > MAX_DATA_BYTES:
            mib = needed / 1024**2
            msg = (
                f"{name} would need {mib:,.0f} MiB; at most {MAX_DATA_BYTES // 1024**2:,} are read"
            )
            raise ValueError(msg)
        if dtype.hasobject:
            msg = f"{name} holds objects, not numbers"
            raise ValueError(msg)
        if needed > entry.file_size:
            msg = f"{name} promises {needed:,} bytes and has {entry.file_size:,}"
            raise ValueError(msg)
        flat = np.frombuffer(file.read(needed), dtype)
    return flat.reshape(shape, order="F" if fortran else "C")


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, fortran, dtype = read(file, max_header_size=MAX_HEADER_BYTES)
    return shape, fortran, dtype


class GivenTask(Task):
    """Samples given beside a model, in three disjoint parts by chance.

    Args:
        given: the samples.
        spec: of the model's input.
        labels: of the classes, one for each score.
        seed: of the parts.
    """

    def __init__(self, given: Given, spec: TensorSpec, labels: tuple[str, ...], seed: int) -> None:
        super().__init__({}, seed)
        self.labels = labels
        self._given, self._spec = given, spec

    @property
    def input_spec(self) -> TensorSpec:
        """The model's input, of the size that the samples have."""
        shape = (-1, *self._given.x.shape[1:])
        return self._spec.model_copy(update={"shape": shape})

    def model(self) -> Any:
        """There is none to train."""
        msg = "a model made elsewhere cannot be trained here"
        raise NotImplementedError(msg)

    def splits(self) -> Splits:
        """Calibration, validation and test."""
        n = len(self._given.y)
        order = np.random.default_rng(self.seed).permutation(n)
        first = max(1, int(n * CALIBRATION_SHARE))
        second = first + max(1, int(n * VALIDATION_SHARE))
        parts = (np.sort(part) for part in np.split(order, [first, second]))
        train, validation, test = (_Rows(self._given, part) for part in parts)
        return Splits(train, validation, test)


@dataclass(frozen=True, slots=True)
class _Rows(Samples):
    given: Given
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int, /) -> tuple[Any, Any]:
        row = self.rows[index]
        return self.given.x[row], self.given.y[row]
