from __future__ import annotations

from collections import Counter

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DistributedSampler, TensorDataset

from tests.unit.workers.blobs import sharded
from workers.sampling import (
    consecutive,
    cut,
    interleaved,
    shuffled,
    shuffled_shards,
    strided,
)

lengths = st.lists(st.integers(1, 30), min_size=1, max_size=12)
worlds = st.integers(1, 7)
seeds = st.integers(0, 2**31 - 1)
epochs = st.integers(1, 1000)


def shares(sizes, world, seed, epoch):
    return [
        shuffled_shards(sizes, rank=r, world_size=world, seed=seed, epoch=epoch)
        for r in range(world)
    ]


def shards_of(sizes, indices) -> set[int]:
    return set(np.searchsorted(np.cumsum(sizes), indices, side="right").tolist())


@given(lengths, worlds, seeds, epochs)
def test_all_samples_are_seen_and_only_what_pads_twice(sizes, world, seed, epoch) -> None:
    found = shares(sizes, world, seed, epoch)
    n = sum(sizes)
    each = -(-n // world)
    assert {len(share) for share in found} == {each}, "every worker makes the same number of steps"
    seen = Counter(np.concatenate(found).tolist())
    assert set(seen) == set(range(n))
    assert sum(seen.values()) - n == each * world - n
    # One worker alone sees each once; more see again no more often than the padding needs.
    assert max(seen.values()) <= 1 + -(-(each * world - n) // n)


@given(lengths, worlds, seeds, epochs)
def test_a_worker_reads_a_run_of_shards_each_once(sizes, world, seed, epoch) -> None:
    found = shares(sizes, world, seed, epoch)
    pairs = 0
    for share in found:
        order = np.searchsorted(np.cumsum(sizes), share, side="right")
        changes = 1 + int((np.diff(order) != 0).sum())
        if len(share) <= sum(sizes) - max(sizes):  # no shard is met again from the other side
            assert changes == len(set(order.tolist())), "no shard is left and taken up again"
        pairs += len(shards_of(sizes, share))
    # Each cut, and the wrap at the end, splits at most one shard; padding adds what it repeats.
    padding = -(-sum(sizes) // world) * world - sum(sizes)
    assert pairs <= len(sizes) + world + padding


@given(lengths, worlds, seeds, epochs)
def test_the_order_follows_from_seed_and_epoch(sizes, world, seed, epoch) -> None:
    one, again = shares(sizes, world, seed, epoch), shares(sizes, world, seed, epoch)
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    if sum(sizes) >= 20:
        others = [shares(sizes, world, seed, epoch + 1), shares(sizes, world, seed + 1, epoch)]
        whole = np.concatenate(one)
        assert all(not np.array_equal(whole, np.concatenate(other)) for other in others)


@given(st.integers(1, 200), worlds, st.integers(0, 1000), st.integers(1, 50))
def test_a_plain_set_is_dealt_out_as_a_distributed_sampler_does(n, world, seed, epoch) -> None:
    for rank in range(world):
        sampler = DistributedSampler(
            TensorDataset(torch.zeros(n)), num_replicas=world, rank=rank, seed=seed
        )
        sampler.set_epoch(epoch)
        mine = shuffled(n, rank=rank, world_size=world, seed=seed, epoch=epoch)
        assert mine.tolist() == list(sampler)


@given(st.integers(0, 300), worlds)
def test_validation_counts_each_sample_once(n, world) -> None:
    for deal in (strided, consecutive):
        found = [deal(n, rank=r, world_size=world) for r in range(world)]
        assert sorted(np.concatenate(found).tolist()) == list(range(n))
        assert max(map(len, found)) - min(map(len, found)) <= 1


@given(st.integers(1, 100), st.integers(1, 9), st.integers(0, 6))
def test_each_loading_process_gets_consecutive_batches(n, size, loaders) -> None:
    batches = cut(np.arange(n, dtype=np.int64), size)
    found = interleaved(batches, loaders)
    assert sorted(b[0] for b in found) == [b[0] for b in batches]
    for process in range(max(1, loaders)):
        firsts = [int(b[0]) for b in found[process :: max(1, loaders)]]
        assert (
            firsts == list(range(firsts[0], firsts[0] + size * len(firsts), size))
            if firsts
            else True
        )


@settings(max_examples=40)
@given(lengths, worlds, seeds, st.integers(1, 3), st.integers(1, 16))
def test_loads_are_those_of_the_share_and_memory_that_of_the_cache(
    sizes, world, seed, cached, batch
) -> None:
    n = sum(sizes)
    x, y = np.arange(n, dtype=np.float32)[:, None], np.arange(n) % 3
    for share in shares(sizes, world, seed, 1):
        samples = sharded(x, y, sizes, cached=cached)
        for indices in cut(share, batch):
            got_x, got_y = samples.batch(indices)
            assert got_x[:, 0].tolist() == indices.tolist()
            assert got_y.tolist() == (indices % 3).tolist()
            assert len(samples._kept) <= cached
        if cached >= 2 and batch == 1 and len(share) <= n - max(sizes):
            assert len(samples._load.loads) == len(shards_of(sizes, share))
