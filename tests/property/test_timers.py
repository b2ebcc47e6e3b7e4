"""Timers of executions: what waits has one, what is over has none, and a wait has an end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.execution import IN_FLIGHT, RETRIED_BY_HAND, Execution, Retried, step
from orchestrator.domain.timers import MAX_RETRY_SECONDS, Timers, due_at, expired, retry_at
from schemas.rollout import EXEC_TERMINAL, ExecState, RolloutSpec

NOW = datetime(2026, 1, 1, tzinfo=UTC)
seconds = st.floats(0, 1e300)
timers = st.builds(Timers, offer=seconds, step=seconds, straggler=seconds, retry=st.floats(0, 600))
states = st.sampled_from(ExecState)


@given(states, timers)
def test_what_is_in_flight_has_a_timer_and_nothing_else_has(state, its):
    due = due_at(state, NOW, its)
    assert (due is not None) == (state in IN_FLIGHT)
    assert due is None or due >= NOW


@given(states, st.booleans())
def test_a_timer_that_runs_out_leads_on_and_ends_after_two_steps_at_most(state, online):
    becomes = expired(state, online=online)
    assert (becomes is not None) == (state in IN_FLIGHT)
    while becomes is not None and becomes in IN_FLIGHT:
        assert becomes is ExecState.UNKNOWN
        becomes = expired(becomes, online=online)
    assert becomes in {None, ExecState.SCHEDULED, ExecState.TIMED_OUT}


@given(states)
def test_only_a_device_that_is_there_can_fail_by_silence_at_once(state):
    if state is not ExecState.UNKNOWN:
        assert expired(state, online=False) is not ExecState.TIMED_OUT


@given(st.integers(1, 10_000), timers)
def test_the_wait_before_an_attempt_never_shrinks_and_has_a_limit(attempt, its):
    first, then = (retry_at(n, NOW, its) - NOW for n in (attempt, attempt + 1))
    assert timedelta(0) <= first <= then <= timedelta(seconds=MAX_RETRY_SECONDS)


def test_the_wait_doubles():
    its = Timers.of(RolloutSpec(model="digits", version=1, retry_seconds=10))
    waits = [(retry_at(n, NOW, its) - NOW).total_seconds() for n in range(1, 9)]
    assert waits == [10, 20, 40, 80, 160, 320, 600, 600]


@given(states, st.integers(1, 20), st.booleans())
def test_a_retry_by_hand_is_a_new_attempt_of_what_came_to_nothing(state, attempt, offered):
    before = Execution(state, attempt, seq=9, offered=offered)
    after, _ = step(before, Retried(by_hand=True), NOW)
    if state in RETRIED_BY_HAND:
        assert (after.state, after.attempt, after.seq) == (ExecState.SCHEDULED, attempt + 1, -1)
    else:
        assert after == before
    assert RETRIED_BY_HAND < EXEC_TERMINAL
