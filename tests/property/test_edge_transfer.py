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
    SLOWEST_TIMEOUT,
    Bucket,
    Came,
    Pull,
    Taken,
)
from schemas.transfer import CHUNK_BYTES, MAX_WINDOW

TAIL = 100
SHA = hashlib.sha256(b"a file").hexdigest()


def pull_of(chunks: int, **more) -> Pull:
    return Pull(sha256=SHA, size=(chunks - 1) * CHUNK_BYTES + TAIL, **more)


def answers(need) -> list[tuple[int, int]]:
    """(batch, chunk) of every chunk that is asked for."""
    return [(need.batch, i) for first, last in need.ranges for i in range(first, last)]


def take(pull: Pull, answer: tuple[int | None, int], now: float, *, sound: bool = True) -> Taken:
    batch, index = answer
    return pull.take(Came(index, 100, sound, now, batch))


class Wire:
    """What is on its way from one or two servers, with losses and doubles by seed."""

    def __init__(self, seed: int, loss: float, damage: float, shuffle: int) -> None:
        self.rng = random.Random(seed)  # noqa: S311 - faults by seed
        self.loss, self.damage, self.shuffle = loss, damage, shuffle
        self.way: list[tuple[int | None, int]] = []

    def send(self, answers: list[tuple[int | None, int]]) -> None:
        self.way += [one for one in answers if self.rng.random() >= self.loss]

    def next(self) -> tuple[tuple[int | None, int], bool]:
        """The next to arrive, and whether it is sound."""
        answer = self.way.pop(self.rng.randrange(min(len(self.way), self.shuffle)))
        if self.rng.random() < 0.02:
            self.way.insert(self.rng.randrange(len(self.way) + 1), answer)  # doubled
        return answer, self.rng.random() >= self.damage


@given(
    chunks=st.integers(1, 150),
    loss=st.sampled_from([0.0, 0.05, 0.3]),
    damage=st.sampled_from([0.0, 0.05]),
    shuffle=st.sampled_from([1, 1, 3]),
    seed=st.integers(0, 2**32),
    have=st.sets(st.integers(0, 149), max_size=60),
    held=st.one_of(st.none(), st.tuples(st.integers(0, 60), st.integers(0, 200))),
)
def test_every_chunk_arrives_once_whatever_the_network_does(
    chunks, loss, damage, shuffle, seed, have, held
):
    """held: in the middle, after so many chunks, so many come by broadcast instead."""
    have = {i for i in have if i < chunks}
    pull, wire = pull_of(chunks, have=have), Wire(seed, loss, damage, shuffle)
    now, new, steps = 0.0, [], 0
    while not pull.done:
        steps += 1
        assert steps < 20_000
        if held is not None and len(new) >= held[0]:
            pull.hold()
            wire.send([(None, i % chunks) for i in range(held[1])])
            held = None
        while (need := pull.ask(now)) is not None:
            assert sum(b - a for a, b in need.ranges) <= MAX_WINDOW
            assert pull.outstanding <= MAX_WINDOW
            wire.send(answers(need))
        if wire.way:
            answer, sound = wire.next()
            now += 0.001
            if take(pull, answer, now, sound=sound) is Taken.NEW:
                new.append(answer[1])
        else:
            pull.resume()  # the broadcast fell silent; else it changes nothing
            now = max(now, pull.due(now))
            pull.tick(now)
        assert MIN_WINDOW <= pull.window <= MAX_WINDOW
        assert pull.failure is None or damage
        if pull.failure:
            return
    assert sorted(new) == sorted(set(range(chunks)) - have)


def test_while_it_is_held_nothing_is_asked_for_and_nothing_times_out():
    pull = pull_of(100)
    first = answers(pull.ask(0.0))
    pull.hold()
    take(pull, first[0], 0.1)
    take(pull, (None, 50), 0.2)
    pull.tick(60.0)
    assert pull.ask(60.0) is None
    assert (pull.timeouts, pull.outstanding) == (0, len(first) - 1)
    pull.resume()
    assert pull.outstanding == 0
    asked = answers(pull.ask(60.0))
    assert asked[0][1] == 1
    assert 50 not in {index for _, index in asked}


def test_what_a_broadcast_brings_says_nothing_of_gaps_and_of_the_round_trip():
    pull = pull_of(100, first_batch=5)
    first = answers(pull.ask(0.0))
    take(pull, (None, 40), 0.01)
    assert pull.outstanding == len(first)
    take(pull, (None, first[3][1]), 0.02)
    assert pull.outstanding == len(first) - 1
    assert pull.ask(0.02) is None
    assert pull._pace.round_trip is None


def test_a_gap_within_a_batch_is_asked_for_at_once():
    pull = pull_of(40)
    first = pull.ask(0.0)
    chunks = answers(first)
    for chunk in (chunks[0], chunks[1], chunks[3]):  # 2 is lost
        take(pull, chunk, 0.01)
    again = pull.ask(0.01)
    assert again is not None
    assert again.ranges[0] == (2, 3)
    assert pull.timeouts == 0


def test_a_lost_tail_waits_for_the_timer_and_no_longer():
    pull = pull_of(4)
    need = pull.ask(0.0)
    for chunk in answers(need)[:3]:
        take(pull, chunk, 0.01)
    pull.tick(1.9)
    assert pull.ask(1.9) is None
    assert pull.due(1.9) <= 2.1
    pull.tick(pull.due(1.9))
    assert pull.ask(2.1).ranges == ((3, 4),)


def test_asks_again_when_half_the_window_is_free():
    pull = pull_of(100)
    chunks = answers(pull.ask(0.0))
    for chunk in chunks[:7]:
        take(pull, chunk, 0.001)
        assert pull.ask(0.001) is None
    take(pull, chunks[7], 0.001)
    assert pull.ask(0.001) is not None


def test_a_chunk_that_stays_damaged_ends_the_transfer():
    pull = pull_of(2)
    now = 0.0
    for _ in range(MAX_BAD_PER_CHUNK):
        assert pull.failure is None
        need = pull.ask(now)
        for chunk in answers(need):
            now += 0.001
            take(pull, chunk, now, sound=chunk[1] != 0)
    assert "chunk 0" in pull.failure
    assert pull.ask(now) is None


def test_what_does_not_fit_that_was_made_here_is_pulled_and_fails_nothing():
    pull = pull_of(4)
    for _ in range(50):  # as of a damaged base, by each way that reads it
        for index in range(4):
            assert pull.take(Came(index, 0, sound=False, at=0.0, batch=None)) is Taken.CORRUPT
    assert pull.failure is None
    assert pull.ask(0.0).ranges == ((0, 4),)


def test_who_hears_that_it_gave_up_too_soon_is_more_patient():
    pull, now = pull_of(40), 0.0
    for _ in range(6):
        late = answers(pull.ask(now))
        given_up = pull.timeouts
        while pull.timeouts == given_up:
            now = pull.due(now)
            pull.tick(now)
        asked = now
        take(pull, late[0], now)  # what was given up comes after all
    pull.ask(now)
    assert pull.due(asked) - asked == SLOWEST_TIMEOUT


def test_a_silent_server_is_not_waited_for_for_ever():
    pull = pull_of(4)
    now = 0.0
    while pull.failure is None:
        assert pull.ask(now) is not None
        now = pull.due(now)
        pull.tick(now)
    assert pull.timeouts == MAX_SILENT_TIMEOUTS
    assert now < 600


def test_after_a_lost_connection_what_was_outstanding_is_asked_for_again():
    pull = pull_of(10)
    chunks = answers(pull.ask(0.0))
    take(pull, chunks[0], 0.01)
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
    pull = pull_of(10, bucket=Bucket(rate=CHUNK_BYTES / 2))
    assert pull.ask(0.0).ranges == ((0, 1),)
    assert pull.ask(0.5) is None
    assert 1.9 <= pull.due(0.5) <= 2.0


def test_a_request_that_was_not_sent_leaves_no_trace():
    bucket = Bucket(rate=4 * 10 * CHUNK_BYTES, level=10 * CHUNK_BYTES)
    pull = pull_of(30, bucket=bucket, first_batch=7)
    first = pull.ask(0.0)
    pull.unsent(first)
    assert (pull.outstanding, bucket.level) == (0, 10 * CHUNK_BYTES)
    assert pull.ask(0.0) == first
    for chunk in answers(first):
        take(pull, chunk, 0.5)
    second = pull.ask(1.0)
    pull.unsent(second)
    assert pull.ask(1.0) == second


def test_an_unsent_request_leaves_the_earlier_ones_outstanding():
    pull = pull_of(60)
    chunks = answers(pull.ask(0.0))
    for chunk in chunks[:8]:
        take(pull, chunk, 0.01)
    left = pull.outstanding
    pull.unsent(pull.ask(0.01))
    assert pull.outstanding == left
    assert [take(pull, c, 0.02) for c in chunks[8:]] == [Taken.NEW] * 8


def test_a_full_window_waits_for_chunks_however_much_the_rate_allows():
    rate = 100 * CHUNK_BYTES
    bucket = Bucket(rate=rate, level=rate / 4)
    pull = pull_of(100, bucket=bucket)
    assert pull.ask(0.0) is not None
    assert pull.ask(0.0) is None
    assert pull.due(0.0) == 2.0
