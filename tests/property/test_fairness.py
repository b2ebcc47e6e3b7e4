"""Turns and budgets: nobody starves, nothing comes twice, no rate is exceeded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_client.transfer import Came, Pull
from orchestrator.domain.budget import Budget, burst
from orchestrator.domain.fairness import MAX_OF_DEVICE, Turns
from schemas.transfer import CHUNK_BYTES

FILE = "a" * 64
spans = st.tuples(st.integers(0, 1000), st.integers(1, 64)).map(lambda s: (s[0], s[0] + s[1]))
needs = st.lists(st.tuples(st.integers(0, 5), spans), max_size=60)


def drain(turns, most=4):
    taken = []
    while (portion := turns.next(most)) is not None:
        assert 1 <= len(portion) <= most
        taken.append(portion)
    assert (turns.chunks, turns.devices) == (0, 0)
    return taken


@given(needs, st.integers(1, 70))
def test_what_is_asked_for_last_is_sent_once_in_order_or_counted_as_dropped(asked, most):
    turns, dropped = Turns(), 0
    for batch, (device, span) in enumerate(asked):
        dropped += turns.add(f"dev_{device}", FILE, batch, [span])
    taken = drain(turns, most)
    for device in range(6):
        sent = [
            (p.batch, i)
            for p in taken
            if p.device == f"dev_{device}"
            for i in range(p.start, p.end)
        ]
        newest = {}
        for batch, (d, span) in enumerate(asked):
            if d == device:
                newest = {i: b for i, b in newest.items() if i not in range(*span)}
                newest |= dict.fromkeys(range(*span), batch)
        everything = [(b, i) for i, b in newest.items()]
        # What is dropped is the oldest.
        assert sent == everything[len(everything) - len(sent) :]
        dropped -= len(everything) - len(sent)
    assert dropped >= 0


def test_devices_that_ask_again_before_their_turn_cost_no_bytes():
    chunks, rate, now, sent = 40, 40.0, 0.0, 0
    pulls = {f"dev_{i}": Pull(sha256=FILE, size=chunks * CHUNK_BYTES) for i in range(60)}
    turns, free_at = Turns(), 0.0
    while not all(pull.done for pull in pulls.values()):
        now += 0.1
        assert now < 2 * len(pulls) * chunks / rate
        for device, pull in pulls.items():
            pull.tick(now)
            while (need := pull.ask(now)) is not None:
                turns.add(device, FILE, need.batch, need.ranges)
        while free_at <= now and (portion := turns.next(4)) is not None:
            free_at = max(free_at, now - 0.1) + len(portion) / rate
            sent += len(portion)
            for index in range(portion.start, portion.end):
                pulls[portion.device].take(
                    Came(index, CHUNK_BYTES, sound=True, at=now, batch=portion.batch)
                )
    assert sum(pull.timeouts for pull in pulls.values()) > len(pulls), "they did ask again"
    assert sent <= 1.1 * len(pulls) * chunks


@given(needs, st.integers(1, 100))
def test_a_flood_delays_another_by_one_portion_a_turn(asked, flood):
    turns = Turns()
    for number in range(flood):
        turns.add("flood", FILE, number, [(0, 64)])
    assert turns.chunks <= MAX_OF_DEVICE
    turns.add("honest", FILE, 0, [(0, 64)])
    order = [portion.device for portion in drain(turns)]
    last = max(i for i, device in enumerate(order) if device == "honest")
    assert order[: last + 1].count("flood") <= 16 + 1


@given(needs)
def test_who_is_dropped_gets_nothing_and_the_others_everything(asked):
    turns = Turns()
    for batch, (device, span) in enumerate(asked):
        turns.add(f"dev_{device}", FILE, batch, [span])
    turns.drop("dev_0")
    assert "dev_0" not in turns.waiting()
    assert all(portion.device != "dev_0" for portion in drain(turns))


def test_beyond_so_many_devices_nobody_else_finds_a_place():
    turns = Turns(max_devices=2)
    assert turns.add("a", FILE, 0, [(0, 3)]) == 0
    assert turns.add("b", FILE, 0, [(0, 3)]) == 0
    assert turns.add("c", FILE, 0, [(0, 3), (5, 6)]) == 4
    assert turns.add("a", FILE, 1, [(0, 3)]) == 0
    assert list(turns.waiting()) == ["a", "b"]


@given(
    st.floats(CHUNK_BYTES, 1e9),
    st.lists(st.tuples(st.floats(0, 2), st.integers(1, 20 * CHUNK_BYTES)), max_size=50),
)
def test_over_any_time_a_budget_gives_the_rate_and_a_burst(rate, wishes):
    budget, now = Budget(rate), 0.0
    budget.wait(now)
    sent = []
    for seconds, size in wishes:
        now += seconds
        now += budget.wait(now) * (1 + 1e-9) + 1e-9
        assert budget.wait(now) <= 1e-9
        budget.spend(size, now)
        sent.append((now, size))
    for position, (begin, _) in enumerate(sent):
        total = 0
        for at, size in sent[position:]:
            assert total <= (at - begin) * rate * (1 + 1e-6) + burst(rate) + 1
            total += size


@given(st.floats(CHUNK_BYTES, 1e8), st.floats(CHUNK_BYTES, 1e8))
def test_a_debt_outlasts_a_change_of_rate(before, after):
    budget = Budget(before)
    budget.wait(0.0)
    budget.spend(10 * before, 0.0)
    budget.change(after, 0.0)
    assert budget.wait(0.0) == 10 * before / after
    budget.change(None, 0.0)
    assert budget.wait(0.0) == 0.0
