"""A split as a stream: its samples read once, in order, each checked, never all in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Never

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from schemas.job import JobCause
from schemas.signature import TensorSpec
from workers.blame import user_code
from workers.errors import JobFailed
from workers.task import Samples, Task

BLOCK_BYTES = 4 * 1024**2
BLOCK_SAMPLES = 1024

Array = NDArray[np.generic]
Classes = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Block:
    """Some consecutive samples. first: the index of the first; x: (m, …); y: (m,)."""

    first: int
    x: Array
    y: Classes

    def __len__(self) -> int:
        return len(self.y)


class Stream:
    """A split of a task, read in blocks.

    Every sample must be a pair of an input of ``input_spec``'s dtype and shape and a
    class that has a label.
    """

    def __init__(self, task: Task, samples: Samples, split: str) -> None:
        self.split = split
        self.spec = task.input_spec
        self._classes = len(task.labels)
        self._samples = samples
        with user_code():
            self._n = len(samples)
        if self._n == 0:
            _fault(f"the {split} split is empty; give it samples")

    def __len__(self) -> int:
        return self._n

    def blocks(self) -> Iterator[Block]:
        """All samples, in order.

        Raises:
            JobFailed: bad_data, naming the first sample that does not fit and why;
                user_code, if reading one raised.
        """
        size = self._block_size()
        for first in range(0, self._n, size):
            yield self._block(range(first, min(first + size, self._n)))

    def take(self, rows: Sequence[int]) -> Block:
        """The samples of ascending ``rows``, as one block; errors as in ``blocks``."""
        return self._block(rows)

    def head(self, n: int) -> Block:
        """The first ``n`` samples, or as many as there are."""
        return self._block(range(min(n, self._n)))

    def spaced(self, n: int) -> Block:
        """``n`` samples, evenly spaced over all: many sets are sorted by class."""
        return self._block(evenly_spaced(self._n, n))

    def _block_size(self) -> int:
        one = np.dtype(self.spec.dtype).itemsize * int(np.prod(self.spec.shape[1:], dtype=np.int64))
        return max(1, min(BLOCK_SAMPLES, BLOCK_BYTES // max(1, one)))

    def _block(self, rows: Sequence[int]) -> Block:
        pairs = [self._pair(row) for row in rows]
        x = np.stack([pair[0] for pair in pairs])
        y = np.array([pair[1] for pair in pairs], dtype=np.int64)
        return Block(rows[0], x, y)

    def _pair(self, row: int) -> tuple[Array, int]:
        try:
            with user_code():
                pair: Any = self._samples[row]
            return _checked(pair, self.spec, self._classes)
        except JobFailed as failure:
            detail = f"{failure.detail} (reading {self._where(row)})"
            raise JobFailed(failure.cause, detail) from failure
        except _MisfitError as misfit:
            _fault(f"{self._where(row)}: {misfit}")

    def _where(self, row: int) -> str:
        """A sample's index and, if the samples can tell, what a person finds it by."""
        describe = getattr(self._samples, "describe", None)
        told = f" ({describe(row)})" if callable(describe) else ""
        return f"sample {row} of {self.split}{told}"


def evenly_spaced(n: int, wanted: int) -> Sequence[int]:
    """``wanted`` of n indices (all, if there are no more), ascending, evenly spaced."""
    if wanted >= n:
        return range(n)
    return [i * n // wanted for i in range(wanted)]


class SetHash:
    """The hash of a set of ``n`` samples: of dtype, shape, inputs and classes, in order.

    Fed block by block, it gives what ``workers.training.data.set_sha256`` gives of the whole.
    """

    def __init__(self, n: int) -> None:
        self._n = n
        self._digest: Any = None
        self._classes: list[bytes] = []

    def update(self, block: Block) -> None:
        """Add the next samples."""
        if self._digest is None:
            head = f"{block.x.dtype}{(self._n, *block.x.shape[1:])}"
            self._digest = hashlib.sha256(head.encode())
        self._digest.update(np.ascontiguousarray(block.x))
        self._classes.append(block.y.tobytes())

    def hexdigest(self) -> str:
        """The hash; at the end."""
        digest = self._digest.copy()
        digest.update(b"".join(self._classes))
        return str(digest.hexdigest())


class _MisfitError(Exception):
    """What does not fit in a sample."""


def _checked(pair: Any, spec: TensorSpec, classes: int) -> tuple[Array, int]:
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:  # noqa: PLR2004 - a pair
        msg = f"is a {type(pair).__name__}, not a pair (input, class)"
        raise _MisfitError(msg)
    return _input(pair[0], spec), _class(pair[1], classes)


def _input(value: Any, spec: TensorSpec) -> Array:
    if not isinstance(value, Tensor):
        value = np.asarray(value)
    dtype, shape = str(value.dtype).removeprefix("torch."), tuple(value.shape)
    if dtype != spec.dtype or shape != spec.shape[1:]:
        msg = (
            f"its input is {dtype}{list(shape)}, but input_spec says "
            f"{spec.dtype}{list(spec.shape[1:])}; make both the same"
        )
        raise _MisfitError(msg)
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else value


def _class(value: Any, classes: int) -> int:
    whole = _whole(value)
    hint = "number the classes from 0 in the order of the labels"
    if whole is None:
        shown = f"of shape {list(value.shape)}" if getattr(value, "ndim", 0) else repr(value)[:60]
        msg = f"its class is {shown}, not a whole number; {hint}"
        raise _MisfitError(msg)
    if not 0 <= whole < classes:
        msg = f"its class is {whole}, but there are {classes} labels; {hint}"
        raise _MisfitError(msg)
    return whole


def _whole(value: Any) -> int | None:
    """The value as a whole number, if it is one: 3, 3.0, or a tensor of one of them."""
    try:
        number = value.item() if hasattr(value, "item") else value
        whole = int(number)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None
    return whole if not isinstance(number, str) and whole == number else None


def _fault(detail: str) -> Never:
    raise JobFailed(JobCause.BAD_DATA, detail)
