"""Rollouts of one model on one device: who has it, and that this comes to an end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.overlap import ROLLBACK_PRIORITY, Rank, keeps

NOW = datetime(2026, 3, 1, tzinfo=UTC)

ranks = st.builds(
    Rank,
    priority=st.sampled_from([0, 50, 100, ROLLBACK_PRIORITY]),
    started_at=st.integers(0, 3).map(lambda n: NOW + timedelta(hours=n)),
    rollout=st.text("abc", min_size=1, max_size=3),
)


@given(ranks, ranks, st.booleans())
def test_of_two_rollouts_at_most_one_keeps_a_device_from_the_other(one, other, working):
    assert not (keeps(one, other, working=working) and keeps(other, one, working=working))
    if working and one != other:
        assert keeps(one, other, working=True) != keeps(other, one, working=True)


@given(ranks, ranks)
def test_a_lower_rollout_takes_nothing_from_a_higher_one_that_works(mine, other):
    assert keeps(other, mine, working=True) == (other > mine)


@given(ranks, ranks)
def test_what_is_over_stands_in_the_way_of_nothing_that_was_started_later(mine, other):
    if mine.started_at > other.started_at:
        assert not keeps(other, mine, working=False)


@dataclass
class Execution:
    """Of one rollout on the device. attempts: how many it has left."""

    rank: Rank
    attempts: int
    state: str = "scheduled"


events = st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["offer", "succeed", "fail"])))


@given(st.lists(ranks, min_size=1, max_size=5, unique_by=lambda r: r.rollout), st.data())
def test_rollouts_never_pass_a_device_to_and_fro(found, data):
    executions = [Execution(rank, data.draw(st.integers(1, 3))) for rank in found]
    budget = sum(one.attempts for one in executions)
    newest: Execution | None = None
    offers = 0
    for index, what in [
        *data.draw(events),
        *[(n, w) for _ in range(10) for n in range(5) for w in ("offer", "succeed")],
    ]:
        one = executions[index % len(executions)]
        if what == "offer" and one.state == "scheduled":
            held = newest is not None and newest is not one
            if held and keeps(newest.rank, one.rank, working=newest.state in _WORKING):
                one.state = "superseded"
                continue
            for other in executions:
                if other is not one and other.state == "offered":
                    other.state = "superseded"
            one.state, newest = "offered", one
            one.attempts -= 1
            offers += 1
        elif what == "fail" and one.state == "offered":
            one.state = "scheduled" if one.attempts else "failed"
        elif what == "succeed" and one.state == "offered":
            one.state = "succeeded"
    assert offers <= budget
    assert sum(one.state == "offered" for one in executions) == 0
    assert all(one.state not in _WORKING for one in executions)


_WORKING = {"scheduled", "offered"}
