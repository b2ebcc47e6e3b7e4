"""Rounds of a broadcast: begun by enough who wait, each chunk once, never faster than allowed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.broadcast import Broadcasts, Rules
from schemas.transfer import CHUNK_BYTES

FILE, OTHER = "a" * 64, "b" * 64

rules = st.builds(
    Rules,
    start_from=st.integers(1, 6),
    device_rate=st.floats(CHUNK_BYTES, 100 * CHUNK_BYTES),
    total_rate=st.floats(CHUNK_BYTES, 200 * CHUNK_BYTES),
    delay=st.floats(0, 3),
    recent=st.floats(1, 100),
    least_chunks=st.integers(1, 4),
)
# (seconds since the step before, device, which file)
asking = st.lists(
    st.tuples(
        st.floats(0, 5), st.integers(0, 9).map("dev_{}".format), st.sampled_from([FILE, OTHER])
    ),
    max_size=40,
)


def play(rules, steps, chunks):
    """Run time through the questions, and on to the end of all rounds."""
    broadcasts, now = Broadcasts(rules), 0.0
    asked, offers, told, slots = [], [], [], []
    for seconds, device, sha256 in [*steps, (10_000.0, None, None)]:
        until = now + seconds
        while (wait := broadcasts.wait(now)) is not None and now + wait <= until:
            now += wait
            slot, announced = broadcasts.next(now)
            assert slot is not None
            slots.append((now, slot))
            told += [(now, one) for one in announced]
        now = until
        if device is not None:
            asked.append((now, device, sha256))
            offer, others = broadcasts.asked(device, sha256, chunks * CHUNK_BYTES - 7, now)
            offers += [(now, device, sha256, offer)] if offer is not None else []
            told += [(now, others)] if others is not None else []
    return asked, offers, told, slots


@given(rules, asking, st.integers(1, 30))
def test_every_round_sends_every_chunk_once_in_order(rules, steps, chunks):
    _, offers, told, slots = play(rules, steps, chunks)
    rounds: dict[tuple[str, int], list[int]] = {}
    for _, slot in slots:
        rounds.setdefault((slot.sha256, slot.batch), []).append(slot.index)
    assert all(indices == list(range(chunks)) for indices in rounds.values())
    promised = {(sha256, offer.batch) for _, _, sha256, offer in offers}
    promised |= {(one.sha256, one.offer.batch) for _, one in told}
    assert promised == set(rounds)


@given(rules, asking, st.integers(1, 30))
def test_a_round_needs_enough_devices_that_asked_lately(rules, steps, chunks):
    asked, offers, told, slots = play(rules, steps, chunks)
    if chunks < rules.least_chunks:
        assert not slots
    begun: dict[tuple[str, int], float] = {}
    for now, sha256, offer in [
        *((now, sha256, offer) for now, _, sha256, offer in offers),
        *((now, one.sha256, one.offer) for now, one in told),
    ]:
        key = sha256, offer.batch
        begun[key] = min(now, begun.get(key, now))
    for (sha256, _), now in begun.items():
        lately = {d for at, d, s in asked if s == sha256 and now - rules.recent <= at <= now}
        assert len(lately) >= rules.start_from


@given(rules, asking, st.integers(1, 30))
def test_no_device_and_not_all_together_are_sent_more_than_the_rules_allow(rules, steps, chunks):
    _, _, _, slots = play(rules, steps, chunks)
    late = 0.25
    for position, (begin, first) in enumerate(slots):
        one = total = 0
        for now, slot in slots[position:]:
            one += CHUNK_BYTES * (slot.sha256 == first.sha256)
            total += CHUNK_BYTES * slot.listeners
            seconds = now - begin + late
            assert one <= rules.device_rate * seconds + 2 * CHUNK_BYTES
        # Each of at most two rounds is one chunk ahead, to at most ten who listen.
        assert total <= rules.total_rate * (slots[-1][0] - begin + late) + 4 * 10 * CHUNK_BYTES


@given(rules, asking)
def test_who_is_told_waits_and_is_offered_the_round_that_begins(rules, steps):
    asked, _, told, slots = play(rules, steps, 8)
    for now, one in told:
        assert set(one.devices) <= {d for at, d, s in asked if s == one.sha256 and at <= now}
        assert len(set(one.devices)) == len(one.devices)
        assert one.offer.starts_in <= rules.delay + 1e-6
        first = min(at for at, slot in slots if slot.batch == one.offer.batch)
        assert first >= now + one.offer.starts_in - 1e-6


@given(rules, st.integers(1, 20))
def test_a_round_that_nobody_listens_to_any_more_ends(rules, devices):
    broadcasts = Broadcasts(rules)
    names = [f"dev_{i}" for i in range(devices)]
    for name in names:
        broadcasts.asked(name, FILE, 30 * CHUNK_BYTES, 0.0)
    assert bool(broadcasts.rounds) == (devices >= rules.start_from)
    for name in names:
        broadcasts.left(name)
    assert broadcasts.rounds == 0
    assert broadcasts.wait(0.0) is None
    assert broadcasts.next(10.0) == (None, [])


def test_who_asks_in_the_first_half_joins_and_who_asks_later_counts_for_the_next():
    broadcasts = Broadcasts(Rules(start_from=2, delay=1.0, least_chunks=1))
    size = 10 * CHUNK_BYTES
    assert broadcasts.asked("one", FILE, size, 0.0) == (None, None)
    assert broadcasts.asked("one", FILE, size, 0.1) == (None, None)
    offer, others = broadcasts.asked("two", FILE, size, 0.2)
    assert (others.devices, others.offer) == (("one",), offer)
    assert broadcasts.next(1.1) == (None, [])
    for _ in range(5):
        broadcasts.next(2.0 + broadcasts.wait(2.0))
    joined, _ = broadcasts.asked("three", FILE, size, 2.1)
    assert (joined.batch, joined.starts_in) == (offer.batch, 0.0)
    broadcasts.next(3.0)
    assert broadcasts.asked("four", FILE, size, 3.0) == (None, None)
    assert broadcasts.asked("five", FILE, size, 3.0) == (None, None)
    told = []
    while not told:
        _, told = broadcasts.next(4.0 + broadcasts.wait(4.0))
    assert told[0].devices == ("five", "four")
    assert told[0].offer.batch != offer.batch


def test_those_who_join_before_the_begin_slow_it_and_all_are_told():
    broadcasts = Broadcasts(Rules(start_from=2, delay=1.0, total_rate=8e6, device_rate=4e6))
    size = 100 * CHUNK_BYTES
    for i in range(8):
        offer, _ = broadcasts.asked(f"dev_{i}", FILE, size, 0.1 * i)
    assert offer.rate == 1e6
    _, told = broadcasts.next(1.2)
    assert [len(one.devices) for one in told] == [8]
    assert (told[0].offer.rate, told[0].offer.starts_in) == (1e6, 0.0)
    # Once it has begun it gets no slower than two thirds of that: four more may join.
    later = [broadcasts.asked(f"late_{i}", FILE, size, 2.0)[0] for i in range(20)]
    assert sum(one is not None for one in later) == 4
    assert broadcasts.asked("other", OTHER, size, 2.0) == (None, None)
    assert broadcasts.asked("another", OTHER, size, 2.0) == (None, None)


def test_nothing_is_broadcast_where_that_is_off():
    broadcasts = Broadcasts(Rules(start_from=0))
    for i in range(100):
        assert broadcasts.asked(f"dev_{i}", FILE, 2**25, 0.0) == (None, None)
    assert broadcasts.rounds == 0
