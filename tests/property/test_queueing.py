"""What a queue of requests must hold, whatever comes and whenever it is asked."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from edge_client.queueing import ALONE, BatchSettings, Queue, Request, refusal

KINDS = st.sampled_from([ALONE, "a", "b"])
SETTINGS = st.builds(
    BatchSettings,
    max_batch=st.integers(1, 8),
    max_delay=st.sampled_from([0.0, 0.5, 2.0]),
    age=st.sampled_from([0.0, 0.25, 1.0]),
)
PUSH = st.tuples(
    st.just("push"),
    KINDS,
    st.integers(1, 10),
    st.integers(0, 9),
    st.one_of(st.none(), st.floats(0.01, 5)),
)
STEPS = st.lists(
    st.one_of(PUSH, st.tuples(st.just("pass"), st.floats(0, 2)), st.tuples(st.just("next"))),
    max_size=60,
)


@dataclass
class History:
    """All that went in and came out, with the time of each."""

    settings: BatchSettings
    queue: Queue
    now: float = 0.0
    pushed: dict[int, Request] = field(default_factory=dict)
    left: dict[int, float] = field(default_factory=dict)
    batches: list[tuple[float, tuple[Request, ...]]] = field(default_factory=list)

    def do(self, step) -> None:
        match step:
            case ("push", kind, rows, priority, life):
                deadline = None if life is None else self.now + life
                ticket = len(self.pushed) + 1
                request = Request(ticket, kind, rows, rows * 3, self.now, priority, deadline)
                self.pushed[ticket] = request
                self.queue.push(request)
            case ("pass", seconds):
                self.now += seconds
            case _:
                self.next()

    def next(self):
        turn = self.queue.next(self.now)
        for request in (*turn.late, *turn.batch):
            assert request.ticket not in self.left, "answered twice"
            self.left[request.ticket] = self.now
        assert all(r.deadline is not None and r.deadline <= self.now for r in turn.late)
        assert all(r.deadline is None or r.deadline > self.now for r in turn.batch)
        if turn.batch:
            self.batches.append((self.now, turn.batch))
        return turn

    def finish(self) -> None:
        for _ in range(2 * len(self.pushed) + 1):
            turn = self.next()
            if not turn.batch:
                if turn.look_at is None:
                    return
                assert turn.look_at > self.now
                self.now = turn.look_at


def history(settings: BatchSettings, steps) -> History:
    found = History(settings, Queue(settings))
    for step in steps:
        found.do(step)
        waiting = [r for t, r in found.pushed.items() if t not in found.left]
        assert len(found.queue) == len(waiting)
        assert found.queue.size == sum(r.size for r in waiting)
    return found


@given(SETTINGS, STEPS)
def test_each_request_leaves_once_and_none_is_lost(settings, steps) -> None:
    found = history(settings, steps)
    found.finish()
    assert found.left.keys() == found.pushed.keys()
    assert len(found.queue) == 0
    assert found.queue.size == 0


@given(SETTINGS, STEPS)
def test_a_batch_is_of_one_kind_and_no_larger_than_it_may_be(settings, steps) -> None:
    found = history(settings, steps)
    found.finish()
    for _, batch in found.batches:
        assert len({request.kind for request in batch}) == 1
        if batch[0].kind is ALONE:
            assert len(batch) == 1
        rows = sum(request.rows for request in batch)
        assert rows <= settings.max_batch or len(batch) == 1


@given(SETTINGS, STEPS)
def test_within_a_kind_and_a_priority_the_first_goes_first(settings, steps) -> None:
    found = history(settings, steps)
    found.finish()
    order = [request for _, batch in found.batches for request in batch]
    for group in {(r.kind, r.priority) for r in order}:
        tickets = [r.ticket for r in order if (r.kind, r.priority) == group]
        assert tickets == sorted(tickets)


@given(SETTINGS, STEPS)
def test_nothing_overtakes_what_has_waited_longer_than_its_priority_is_worth(
    settings, steps
) -> None:
    found = history(settings, steps)
    found.finish()
    order = [request for _, batch in found.batches for request in batch]
    for i, late in enumerate(order):
        for early in order[:i]:
            if early.kind == late.kind and early.since > late.since:
                lead = settings.age * (early.priority - late.priority)
                assert early.since - late.since <= lead + 1e-9


@given(SETTINGS, STEPS)
def test_waiting_for_more_makes_nobody_late_and_ends_in_time(settings, steps) -> None:
    found = History(settings, Queue(settings))
    for step in steps:
        if step[0] == "pass":
            found.finish()  # an idle worker: it looks whenever it was told to
        else:
            found.do(step)
    found.finish()
    for now, batch in found.batches:
        assert now <= min(r.since for r in batch) + settings.max_delay + 1e-9
    assert sum(len(batch) for _, batch in found.batches) == len(found.pushed)


@given(st.lists(st.sampled_from([0, 9]), min_size=1, max_size=80))
def test_a_flood_of_the_highest_priority_starves_nobody(priorities) -> None:
    settings = BatchSettings(max_batch=1, age=0.1)
    queue, longest = Queue(settings), 0.0
    for i, priority in enumerate(priorities):
        queue.push(Request(2 * i, "a", 1, 1, i * 0.1, priority))
        (ran,) = queue.next(i * 0.1).batch
        longest = max(longest, i * 0.1 - ran.since)
    # The arrivals of nine levels' worth of ageing may go first, and no more.
    assert longest <= 9 * settings.age + 0.1 + 1e-9


@given(st.integers(0, 5), st.integers(0, 100), st.integers(0, 100))
def test_no_more_may_wait_than_the_settings_say(requests, waiting, size) -> None:
    settings = BatchSettings(max_requests=4, max_bytes=100)
    no = refusal(settings, requests=requests, size=size, waiting_bytes=waiting)
    assert (no is None) == (requests < 4 and waiting + size <= 100)


@given(st.lists(st.integers(1, 3), min_size=200, max_size=200))
def test_what_has_left_takes_no_room(rows) -> None:
    queue = Queue(BatchSettings(max_batch=1))
    for ticket, n in enumerate(rows):
        queue.push(Request(ticket, "a", n, n, 0.0, 0, 1e9))
        assert queue.next(0.0).batch
    assert len(queue._deadlines) < 100
