"""Samples in shards: files of which a worker reads those of its own share alone.

For a set that does not fit into each worker's memory. Random access works too, through
the few shards that are kept, for the export and the evaluation; in order it is cheap.
"""

from __future__ import annotations

import zipfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from schemas.job import JobCause
from workers.errors import JobFailed, UsageError
from workers.sampling import Indices

MAX_SHARDS = 1_000_000
Load = Callable[["Shard"], tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class Shard:
    """A part of a split. key: its path or name. length: its samples."""

    key: str
    length: int


class ShardedSamples:
    """A split in shards, as ``Samples`` and as what the loop deals out by shards.

    Args:
        shards: in the order of the split. Empty ones are left out.
        load: reads one: its inputs (length, …) and classes (length,), as arrays or tensors.
            It is called in the loading processes too, so it must be picklable there.
        labels: reads its classes alone, if that is cheaper.
        cached: shards kept in memory, per process.

    Raises:
        UsageError: there are no samples.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        load: Load,
        *,
        labels: Callable[[Shard], Any] | None = None,
        cached: int = 2,
    ) -> None:
        self.shards = tuple(shard for shard in shards if shard.length > 0)
        if not self.shards or len(self.shards) > MAX_SHARDS or cached < 1:
            msg = f"a sharded split of {len(self.shards)} shards with samples, {cached} cached"
            raise UsageError(msg, f"give it 1 to {MAX_SHARDS} shards, and cache one at least")
        self._load = load
        self._labels = labels
        self._cached = cached
        self._kept: OrderedDict[int, tuple[Tensor, Tensor]] = OrderedDict()
        self._ends = np.cumsum([shard.length for shard in self.shards])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int, /) -> tuple[Tensor, Tensor]:
        number, row = self._locate(index)
        x, y = self._shard(number)
        return x[row], y[row]

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        """Several samples at once: inputs (m, …) and classes, int64 (m,)."""
        numbers = np.searchsorted(self._ends, indices, side="right")
        order = np.argsort(numbers, kind="stable")
        xs, ys = [], []
        for number in np.unique(numbers).tolist():
            shard = self._shard(number)
            rows = indices[numbers == number] - self._first(number)
            chosen = torch.from_numpy(rows)
            xs.append(shard[0][chosen])
            ys.append(shard[1][chosen])
        back = torch.from_numpy(np.argsort(order, kind="stable"))
        return torch.cat(xs)[back], torch.cat(ys)[back]

    def labels(self, number: int) -> NDArray[np.int64]:
        """The classes of a shard, by its number; without its inputs where that can be had."""
        shard = self.shards[number]
        if self._labels is None:
            return self._shard(number)[1].numpy()
        found = np.asarray(self._labels(shard)).astype(np.int64)
        _check_length(shard, len(found))
        return found

    def describe(self, index: int) -> str:
        """A sample by its shard and row, for a person."""
        number, row = self._locate(index)
        return f"{Path(self.shards[number].key).name} row {row}"

    def __getstate__(self) -> dict[str, Any]:
        """Without the shards kept: each process keeps its own."""
        return {**self.__dict__, "_kept": OrderedDict()}

    def _locate(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            msg = f"sample {index} of {len(self)}"
            raise IndexError(msg)
        number = int(np.searchsorted(self._ends, index, side="right"))
        return number, index - self._first(number)

    def _first(self, number: int) -> int:
        return int(self._ends[number]) - self.shards[number].length

    def _shard(self, number: int) -> tuple[Tensor, Tensor]:
        kept = self._kept.get(number)
        if kept is None:
            while len(self._kept) >= self._cached:
                self._kept.popitem(last=False)  # before the load, or one more is in memory
            shard = self.shards[number]
            x, y = self._load(shard)
            kept = torch.as_tensor(x), torch.as_tensor(y).to(torch.int64)
            _check_length(shard, len(kept[0]))
            _check_length(shard, len(kept[1]))
            self._kept[number] = kept
        self._kept.move_to_end(number)
        return kept


def _check_length(shard: Shard, found: int) -> None:
    if found != shard.length:
        detail = f"shard {shard.key} holds {found} samples, not {shard.length}; write it again"
        raise JobFailed(JobCause.BAD_DATA, detail)


def npz_shards(folder: str | Path, *, pattern: str = "*.npz", cached: int = 2) -> ShardedSamples:
    """The npz files of a folder, by name; each has the arrays x (n, …) and y (n,).

    Only their headers are read here. Write samples of all classes into each file: rows
    are shuffled within a shard, and shards are read one after the other.

    Raises:
        JobFailed: bad_data: there is none, or one cannot be read, or they differ in the
            dtype or shape of x.
    """
    paths = sorted(Path(folder).glob(pattern))
    if not paths:
        detail = f"there is no {pattern} in {folder}; check dataset.path"
        raise JobFailed(JobCause.BAD_DATA, detail)
    shards, first = [], None
    for path in paths:
        x, y = _header(path, "x"), _header(path, "y")
        kind = (str(x[1]), x[0][1:])
        first = first or kind
        if kind != first or y[0] != x[0][:1]:
            detail = (
                f"shard {path}: x is {x[1]}{list(x[0])} and y {y[1]}{list(y[0])}, "
                f"where x must be {first[0]}[n, {', '.join(map(str, first[1]))}] and y [n]"
            )
            raise JobFailed(JobCause.BAD_DATA, detail)
        shards.append(Shard(str(path), x[0][0]))
    return ShardedSamples(shards, load_npz, labels=partial(_array, name="y"), cached=cached)


def load_npz(shard: Shard) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """The arrays x and y of an npz file.

    Raises:
        JobFailed: bad_data: it cannot be read.
    """
    return _array(shard, "x"), _array(shard, "y")


def _array(shard: Shard, name: str) -> NDArray[np.generic]:
    try:
        with np.load(shard.key, allow_pickle=False) as arrays:
            found: NDArray[np.generic] = arrays[name]
            return found
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise _unreadable(shard.key, error) from error


def _header(path: Path, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of an array, without its values."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as member:
            version = npy.read_magic(member)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, _, dtype = read(member)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise _unreadable(str(path), error) from error
    if not shape:
        raise _unreadable(str(path), ValueError(f"{name} has no rows"))
    return shape, dtype


def _unreadable(key: str, error: Exception) -> JobFailed:
    text = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
    detail = f"shard {key} cannot be read: {text}; write it again, with the arrays x and y"
    return JobFailed(JobCause.BAD_DATA, detail)
