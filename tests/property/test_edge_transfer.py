"""The windowed pull against a network that loses, damages, doubles and reorders."""

from __future__ import annotations

import hashlib
import random

from hypothesis import given
from hypothesis import strategies as st

from edge_client.pace import MIN_WINDOW
from edge_client.transfer import (
    MAX_BAD_PER_CHUNK,
    MAX_SILENT_TIMEOUTS,
    Bucket,
    Pull,
    Taken,
)
from schemas.transfer import CHUNK_BYTES, MAX_WINDOW, Chunk, tag_of

TAIL = 100


def file_of(chunks: int) -> tuple[str, list[bytes]]:
    """A file's hash and its chunks; the pattern stands for real bytes."""
    parts = [bytes([i % 251]) * 64 + i.to_bytes(4, "big") for i in range(chunks)]
    return hashlib.sha256(b"".join(parts)).hexdigest(), parts


def pull_of(chunks: int, **more) -> tuple[Pull, list[bytes]]:
    sha, parts = file_of(chunks)
    leaves = [hashlib.sha256(part).digest() for part in parts]
    size = (chunks - 1) * CHUNK_BYTES + TAIL
    return Pull(sha256=sha, size=size, leaves=leaves, **more), parts


def answers(need, parts) -> list[Chunk]:
    return [
        Chunk(need.batch, i, tag_of(need.sha256), parts[i])
        for first, last in need.ranges
        for i in range(first, last)
    ]


@given(
    chunks=st.integers(1, 150),
    loss=st.sampled_from([0.0, 0.05, 0.3]),
    damage=st.sampled_from([0.0, 0.05]),
    seed=st.integers(0, 2**32),
    have=st.sets(st.integers(0, 149), max_size=60),
)
def test_every_chunk_arrives_once_whatever_the_network_does(chunks, loss, damage, seed, have):
    have = {i for i in have if i < chunks}
    pull, parts = pull_of(chunks, have=have)
    rng = random.Random(seed)  # noqa: S311 - faults by seed
    now, wire, new = 0.0, [], []
    for _ in range(20_000):
        if pull.done:
            break
        while (need := pull.ask(now)) is not None:
            assert sum(b - a for a, b in need.ranges) <= MAX_WINDOW
            assert pull.outstanding <= MAX_WINDOW
            wire += [c for c in answers(need, parts) if rng.random() >= loss]
        if wire:
            chunk = wire.pop(0)
            if rng.random() < 0.02:
                wire.insert(rng.randrange(len(wire) + 1), chunk)  # doubled
            if rng.random() < damage:
                chunk = Chunk(chunk.batch, chunk.index, chunk.tag, b"?" + chunk.data)
            now += 0.001
            if pull.take(chunk, now) is Taken.NEW:
                new.append(chunk.index)
        else:
            now = max(now, pull.due(now))
            pull.tick(now)
        assert MIN_WINDOW <= pull.window <= MAX_WINDOW
        assert pull.failure is None or damage
        if pull.failure:
            return
    assert pull.done
    assert sorted(new) == sorted(set(range(chunks)) - have)


def test_a_gap_within_a_batch_is_asked_for_at_once():
    pull, parts = pull_of(40)
    first = pull.ask(0.0)
    chunks = answers(first, parts)
    for chunk in (chunks[0], chunks[1], chunks[3]):  # 2 is lost
        pull.take(chunk, 0.01)
    again = pull.ask(0.01)
    assert again is not None
    assert again.ranges[0] == (2, 3)
    assert pull.timeouts == 0


def test_a_lost_tail_waits_for_the_timer_and_no_longer():
    pull, parts = pull_of(4)
    need = pull.ask(0.0)
    for chunk in answers(need, parts)[:3]:
        pull.take(chunk, 0.01)
    pull.tick(1.9)
    assert pull.ask(1.9) is None
    assert pull.due(1.9) <= 2.1
    pull.tick(pull.due(1.9))
    assert pull.ask(2.1).ranges == ((3, 4),)


def test_asks_again_when_half_the_window_is_free():
    pull, parts = pull_of(100)
    chunks = answers(pull.ask(0.0), parts)
    for chunk in chunks[:7]:
        pull.take(chunk, 0.001)
        assert pull.ask(0.001) is None
    pull.take(chunks[7], 0.001)
    assert pull.ask(0.001) is not None


def test_a_chunk_that_stays_damaged_ends_the_transfer():
    pull, parts = pull_of(2)
    now = 0.0
    for _ in range(MAX_BAD_PER_CHUNK):
        assert pull.failure is None
        need = pull.ask(now)
        for chunk in answers(need, parts):
            bad = chunk if chunk.index else Chunk(chunk.batch, 0, chunk.tag, b"bad")
            now += 0.001
            pull.take(bad, now)
    assert "chunk 0" in pull.failure
    assert pull.ask(now) is None


def test_a_silent_server_is_not_waited_for_for_ever():
    pull, _ = pull_of(4)
    now = 0.0
    while pull.failure is None:
        assert pull.ask(now) is not None
        now = pull.due(now)
        pull.tick(now)
    assert pull.timeouts == MAX_SILENT_TIMEOUTS
    assert now < 600


def test_chunks_of_other_files_and_beyond_the_end_do_nothing():
    pull, parts = pull_of(3)
    need = pull.ask(0.0)
    other = Chunk(need.batch, 0, b"another!", parts[0])
    beyond = Chunk(need.batch, 3, tag_of(need.sha256), parts[0])
    assert [pull.take(c, 0.0) for c in (other, beyond)] == [Taken.FOREIGN] * 2
    assert pull.received_bytes == 0


def test_after_a_lost_connection_what_was_outstanding_is_asked_for_again():
    pull, parts = pull_of(10)
    chunks = answers(pull.ask(0.0), parts)
    pull.take(chunks[0], 0.01)
    pull.give_back()
    assert pull.outstanding == 0
    assert pull.ask(0.02).ranges == ((1, 10),)


@given(rate=st.integers(20_000, 10_000_000), steps=st.lists(st.floats(0, 3), max_size=30))
def test_the_bucket_never_lets_more_through_than_its_rate(rate, steps):
    bucket, now, spent = Bucket(rate=rate), 0.0, 0
    for pause in steps:
        now += pause
        chunks = bucket.chunks(now)
        bucket.spend(chunks)
        spent += chunks * CHUNK_BYTES
        assert spent <= now * rate + max(CHUNK_BYTES, rate / 4) + 1


def test_a_limited_rate_wakes_when_the_next_chunk_may_be_asked_for():
    pull, _ = pull_of(10, bucket=Bucket(rate=CHUNK_BYTES / 2))
    assert pull.ask(0.0).ranges == ((0, 1),)
    assert pull.ask(0.5) is None
    assert 1.9 <= pull.due(0.5) <= 2.0


def test_a_request_that_was_not_sent_leaves_no_trace():
    bucket = Bucket(rate=4 * 10 * CHUNK_BYTES, level=10 * CHUNK_BYTES)
    pull, parts = pull_of(30, bucket=bucket, first_batch=7)
    first = pull.ask(0.0)
    pull.unsent(first)
    assert (pull.outstanding, bucket.level) == (0, 10 * CHUNK_BYTES)
    assert pull.ask(0.0) == first
    for chunk in answers(first, parts):
        pull.take(chunk, 0.5)
    second = pull.ask(1.0)
    pull.unsent(second)
    assert pull.ask(1.0) == second


def test_an_unsent_request_leaves_the_earlier_ones_outstanding():
    pull, parts = pull_of(60)
    chunks = answers(pull.ask(0.0), parts)
    for chunk in chunks[:8]:
        pull.take(chunk, 0.01)
    left = pull.outstanding
    pull.unsent(pull.ask(0.01))
    assert pull.outstanding == left
    assert [pull.take(c, 0.02) for c in chunks[8:]] == [Taken.NEW] * 8


def test_a_full_window_waits_for_chunks_however_much_the_rate_allows():
    rate = 100 * CHUNK_BYTES
    bucket = Bucket(rate=rate, level=rate / 4)
    pull, _ = pull_of(100, bucket=bucket)
    assert pull.ask(0.0) is not None
    assert pull.ask(0.0) is None
    assert pull.due(0.0) == 2.0
