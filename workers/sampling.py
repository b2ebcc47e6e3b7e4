"""Which samples each worker sees, and in which order: pure functions of (seed, epoch).

Indices are those of the whole split. Every worker gets equally many training samples, so
that all make the same number of steps: what is lacking is taken from the start again, as
``torch.utils.data.DistributedSampler`` does. Validation counts each sample once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def shuffled(n: int, *, rank: int, world_size: int, seed: int, epoch: int) -> Indices:
    """One worker's share of n samples, shuffled: the order of a ``DistributedSampler``."""
    generator = torch.Generator().manual_seed(seed + epoch)
    order = torch.randperm(n, generator=generator).numpy()
    each = -(-n // world_size)
    return np.resize(order, each * world_size)[rank::world_size]


def strided(n: int, *, rank: int, world_size: int) -> Indices:
    """One worker's share of n samples, each in one share alone."""
    return np.arange(rank, n, world_size, dtype=np.int64)


def shuffled_shards(
    lengths: Sequence[int], *, rank: int, world_size: int, seed: int, epoch: int
) -> Indices:
    """One worker's share of sharded samples: few shards, and one after the other.

    The shards are shuffled, and the rows within each; then the whole is cut into equal
    consecutive parts. A shard belongs to one worker, but for the one at each cut.

    Args:
        lengths: samples of each shard, in the order of the split.
        rank: of the worker.
        world_size: workers.
        seed: the job's.
        epoch: from 1.
    """
    order = np.random.default_rng([seed, epoch]).permutation(len(lengths))
    starts = _starts(lengths)
    n = int(starts[-1])
    each = -(-n // world_size)
    ends = np.cumsum([lengths[shard] for shard in order])
    parts: list[Indices] = []
    at, missing = rank * each, each
    while missing:
        at %= n
        place = int(np.searchsorted(ends, at, side="right"))
        shard = int(order[place])
        skipped = at - (int(ends[place]) - lengths[shard])
        rows = np.random.default_rng([seed, epoch, shard]).permutation(lengths[shard])
        part = rows[skipped : skipped + missing]
        parts.append(starts[shard] + part)
        at, missing = at + len(part), missing - len(part)
    return np.concatenate(parts)


def consecutive(n: int, *, rank: int, world_size: int) -> Indices:
    """One worker's share of n sharded samples, in order, each in one share alone."""
    return np.arange(n * rank // world_size, n * (rank + 1) // world_size, dtype=np.int64)


def cut(indices: Indices, size: int) -> list[Indices]:
    """Batches of ``size``; the last may be smaller."""
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def interleaved(batches: Sequence[Indices], loaders: int) -> list[Indices]:
    """The batches in an order in which each of so many loaders reads consecutive ones.

    A ``DataLoader`` hands batch i to its process i modulo ``num_workers``; left as they
    are, the batches would make every process read every shard.
    """
    n = len(batches)
    if loaders < 2:  # noqa: PLR2004 - one process reads all anyway
        return list(batches)
    counts = [n // loaders + (i < n % loaders) for i in range(loaders)]
    starts = _starts(counts)
    rounds = range(-(-n // loaders))
    return [
        batches[int(starts[i]) + turn]
        for turn in rounds
        for i in range(loaders)
        if turn < counts[i]
    ]


def _starts(lengths: Sequence[int]) -> Indices:
    """Where each part begins, and the end of the last."""
    return np.concatenate([[0], np.cumsum(np.asarray(lengths, dtype=np.int64))]).astype(np.int64)
