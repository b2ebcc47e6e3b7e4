"""Data sets as arrays: stacking and hashing."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.signature import TensorSpec
from workers.blame import user_code
from workers.errors import UsageError
from workers.sampling import cut
from workers.task import Samples, Task
from workers.training.feed import fetch

CHUNK = 1024


@dataclass(frozen=True, slots=True)
class Labelled:
    """Samples as arrays. x: (n, …) in the served dtype; y: int64 (n,)."""

    x: NDArray[np.generic]
    y: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.y)


def split_arrays(task: Task, split: str, *, limit: int | None = None) -> Labelled:
    """A split of a task, checked against its signature. limit: its first samples only.

    Raises:
        UsageError: there is no such split, or its samples do not fit ``input_spec``.
    """
    with user_code():
        samples = task.splits().get(split)
    return stack(samples, task.input_spec, split, len(task.labels), limit=limit)


def stack(
    samples: Samples, spec: TensorSpec, split: str, classes: int, *, limit: int | None = None
) -> Labelled:
    """Samples as arrays.

    Raises:
        UsageError: there are none, or a sample has another dtype, shape or class than said.
    """
    n = len(samples) if limit is None else min(limit, len(samples))
    if n == 0:
        msg = f"the {split} split is empty"
        raise UsageError(msg, "give it samples")
    x = np.empty((n, *spec.shape[1:]), dtype=spec.dtype)
    y = np.empty(n, dtype=np.int64)
    for rows in cut(np.arange(n, dtype=np.int64), CHUNK):
        with user_code():
            inputs, labels = (part.numpy() for part in fetch(samples, rows))
        _check(inputs, labels, spec, split, classes)
        x[rows], y[rows] = inputs, labels
    return Labelled(x, y)


def _check(
    x: NDArray[np.generic], y: NDArray[np.int64], spec: TensorSpec, split: str, classes: int
) -> None:
    if str(x.dtype) != spec.dtype or x.shape[1:] != spec.shape[1:]:
        msg = (
            f"the {split} split holds {x.dtype}{list(x.shape[1:])}, "
            f"but input_spec says {spec.dtype}{list(spec.shape[1:])}"
        )
        raise UsageError(msg, "make both the same")
    if y.min() < 0 or y.max() >= classes:
        msg = f"the {split} split holds class {y.min()}..{y.max()}, but there are {classes} labels"
        raise UsageError(msg, "number the classes from 0 in the order of the labels")


def set_sha256(data: Labelled) -> str:
    """The hash of a set: of its dtype, shape, inputs and classes, in order."""
    digest = hashlib.sha256(f"{data.x.dtype}{data.x.shape}".encode())
    digest.update(np.ascontiguousarray(data.x).tobytes())
    digest.update(data.y.tobytes())
    return digest.hexdigest()
