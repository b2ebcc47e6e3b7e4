"""Rollout, wave and execution tables: total, terminal absorbs, duplicates do nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain import execution, rollout
from orchestrator.domain.execution import (
    IN_FLIGHT,
    REPORTS,
    ClearDesired,
    Ended,
    Execution,
    Forgotten,
    Found,
    Note,
    Offered,
    Reported,
    SendCancel,
    Vanished,
    Withdrawn,
)
from orchestrator.domain.rollout import (
    ENGINE_EVENTS,
    ROLLOUT_TABLE,
    ROLLOUT_TERMINAL,
    WAVE_TABLE,
    WAVE_TERMINAL,
    Happened,
    Refuse,
    Rollout,
    RolloutEvent,
    WaveEvent,
    step_wave,
)
from schemas.errors import DeviceCause
from schemas.rollout import (
    DEVICE_REPORTED,
    EXEC_TERMINAL,
    SERVER_TERMINAL,
    ExecState,
    PauseReason,
    RolloutState,
    WaveState,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)

exec_events = st.one_of(
    st.just(Offered()),
    st.just(Withdrawn()),
    st.just(Vanished()),
    st.just(Forgotten()),
    st.builds(
        Found,
        attempt=st.integers(1, 2),
        seq=st.integers(0, 12),
        state=st.sampled_from(sorted(DEVICE_REPORTED)),
    ),
    st.builds(
        Reported,
        attempt=st.integers(1, 2),
        seq=st.integers(0, 12),
        state=st.sampled_from(sorted(DEVICE_REPORTED)),
        cause=st.none() | st.sampled_from(DeviceCause),
    ),
    st.builds(Ended, state=st.sampled_from(ExecState)),
)


@given(st.sampled_from(RolloutState), st.sampled_from(RolloutEvent))
def test_every_rollout_event_is_answered_in_every_state(state, kind):
    before = Rollout(state, PauseReason.OPERATOR if state is RolloutState.PAUSED else None)
    after, actions = rollout.step(before, Happened(kind), NOW)
    assert (after != before) == ((state, kind) in ROLLOUT_TABLE)
    assert (after.pause_reason is not None) == (after.state is RolloutState.PAUSED)
    if state in ROLLOUT_TERMINAL:
        assert after == before
    if any(isinstance(action, Refuse) for action in actions):
        assert after == before


@given(st.sampled_from(RolloutState), st.sampled_from(RolloutEvent))
def test_the_same_operator_act_twice_is_no_fault(state, kind):
    once, first = rollout.step(Rollout(state), Happened(kind), NOW)
    if first and not isinstance(first[0], Refuse) and kind not in ENGINE_EVENTS:
        again, actions = rollout.step(once, Happened(kind), NOW)
        assert again == once
        assert kind is RolloutEvent.REQUEST_APPROVAL or actions == ()


def test_a_rollout_that_cannot_pass_any_more_is_not_resumed():
    paused = Rollout(RolloutState.PAUSED, PauseReason.ERROR_THRESHOLD)
    after, actions = rollout.step(paused, Happened(RolloutEvent.RESUME), NOW)
    assert after == paused
    assert isinstance(actions[0], Refuse)
    again = Happened(RolloutEvent.RESUME, may_pass=True)
    assert rollout.step(paused, again, NOW)[0] == Rollout(RolloutState.RUNNING)


def test_every_rollout_state_is_reached_and_every_open_one_can_be_left():
    reached = {RolloutState.DRAFT, *ROLLOUT_TABLE.values()}
    assert reached == set(RolloutState)
    assert {state for state, _ in ROLLOUT_TABLE} == set(RolloutState) - ROLLOUT_TERMINAL


@given(st.lists(st.sampled_from(WaveEvent), max_size=20))
def test_a_wave_passes_only_after_it_was_judged_and_then_stays(kinds):
    state, path = WaveState.PENDING, [WaveState.PENDING]
    for kind in kinds:
        state = step_wave(state, kind)
        path.append(state)
    for before, after in pairwise(path):
        if before in WAVE_TERMINAL:
            assert after is before
        if after is WaveState.PASSED and before is not after:
            assert before is WaveState.JUDGING
    assert {state for state, _ in WAVE_TABLE} == set(WaveState) - WAVE_TERMINAL


@given(st.lists(exec_events, max_size=30), exec_events)
def test_a_device_terminal_state_absorbs_everything(history, event):
    record = Execution()
    for item in history:
        record, _ = execution.step(record, item, NOW)
        if record.state in EXEC_TERMINAL - SERVER_TERMINAL:
            assert execution.step(record, event, NOW)[0].state is record.state


@given(st.lists(exec_events, max_size=30))
def test_duplicates_do_nothing(history):
    record = Execution()
    for item in history:
        record, _ = execution.step(record, item, NOW)
        again, actions = execution.step(record, item, NOW)
        if isinstance(item, Reported | Offered | Withdrawn):
            assert again == record
            assert all(isinstance(action, Note) for action in actions)


@given(st.lists(exec_events, max_size=30))
def test_an_execution_nobody_offered_is_never_in_flight(history):
    record = Execution()
    for item in history:
        if isinstance(item, Offered):
            return
        record, _ = execution.step(record, item, NOW)
        assert record.state not in IN_FLIGHT


@given(st.lists(exec_events, max_size=30))
def test_what_a_report_may_lead_to_is_in_the_table(history):
    record = Execution()
    for item in history:
        after, _ = execution.step(record, item, NOW)
        if isinstance(item, Reported) and record.state not in SERVER_TERMINAL:
            assert after.state is record.state or after.state in REPORTS[record.state]
        record = after


def test_the_table_knows_every_state():
    assert set(REPORTS) == set(ExecState)


@pytest.mark.parametrize("state", sorted(IN_FLIGHT))
def test_ending_what_a_device_works_on_tells_the_device(state):
    ended, actions = execution.step(Execution(state, offered=True), Ended(ExecState.CANCELLED), NOW)
    assert ended.state is ExecState.CANCELLED
    assert ended.previous is state
    assert any(isinstance(action, SendCancel) for action in actions)


def test_what_was_withdrawn_is_still_heard_and_still_ended_at_the_device():
    record, _ = execution.step(Execution(), Offered(), NOW)
    record, actions = execution.step(record, Withdrawn(), NOW)
    assert any(isinstance(action, ClearDesired) for action in actions)
    heard, _ = execution.step(record, Reported(1, 0, ExecState.REJECTED), NOW)
    assert heard.state is ExecState.REJECTED
    _, actions = execution.step(record, Ended(ExecState.CANCELLED), NOW)
    assert any(isinstance(action, SendCancel) for action in actions)


def test_a_device_that_goes_on_with_what_was_ended_is_told_again():
    record, _ = execution.step(
        Execution(ExecState.ACCEPTED, offered=True), Ended(ExecState.CANCELLED), NOW
    )
    record, actions = execution.step(record, Reported(1, 3, ExecState.DOWNLOADING), NOW)
    assert record.state is ExecState.CANCELLED
    assert actions == (SendCancel(),)


def test_a_device_that_went_too_far_returns_to_its_record():
    record, _ = execution.step(
        Execution(ExecState.ACTIVATING, seq=4, offered=True), Ended(ExecState.CANCELLED), NOW
    )
    late = Reported(1, 5, ExecState.PROBATION, DeviceCause.CANCEL_TOO_LATE)
    record, _ = execution.step(record, late, NOW)
    assert record.state is ExecState.PROBATION
    record, _ = execution.step(record, Reported(1, 6, ExecState.SUCCEEDED), NOW)
    assert record.state is ExecState.SUCCEEDED


def test_a_success_after_the_time_out_is_kept_as_late_and_counts_as_failed():
    record, _ = execution.step(
        Execution(ExecState.DOWNLOADING, seq=1, offered=True), Ended(ExecState.TIMED_OUT), NOW
    )
    record, _ = execution.step(record, Reported(1, 2, ExecState.SUCCEEDED), NOW)
    assert (record.state, record.late) == (ExecState.TIMED_OUT, ExecState.SUCCEEDED)


@pytest.mark.parametrize("state", [ExecState.SUPERSEDED, ExecState.REMOVED, ExecState.TIMED_OUT])
def test_that_a_device_stopped_as_told_hides_nothing_of_why(state):
    record, _ = execution.step(
        Execution(ExecState.STAGED, seq=1, offered=True), Ended(state, "superseded by rol_b"), NOW
    )
    record, actions = execution.step(
        record, Reported(1, 2, ExecState.FAILED, DeviceCause.CANCELLED), NOW
    )
    assert (record.state, record.seq, record.late, actions) == (state, 2, None, ())
    assert (record.cause, record.detail) == (None, "superseded by rol_b")


def test_what_a_device_did_after_its_end_leaves_the_reason_of_the_end():
    record, _ = execution.step(
        Execution(ExecState.PROBATION, seq=1, offered=True),
        Ended(ExecState.TIMED_OUT, "not heard in time"),
        NOW,
    )
    record, _ = execution.step(record, Reported(1, 2, ExecState.SUCCEEDED), NOW)
    assert (record.late, record.detail) == (ExecState.SUCCEEDED, "not heard in time")


def test_what_an_older_attempt_did_is_kept_where_no_other_follows():
    record, _ = execution.step(
        Execution(ExecState.OFFERED, attempt=2, offered=True), Ended(ExecState.CANCELLED), NOW
    )
    record, _ = execution.step(record, Reported(1, 9, ExecState.SUCCEEDED), NOW)
    assert (record.state, record.late, record.seq) == (
        ExecState.CANCELLED,
        ExecState.SUCCEEDED,
        -1,
    )


def test_a_rollback_by_hand_after_success_is_kept_as_late():
    record = Execution(ExecState.SUCCEEDED, seq=6, offered=True)
    found, _ = execution.step(record, Found(1, 7, ExecState.ROLLED_BACK), NOW)
    said, _ = execution.step(
        found, Reported(1, 7, ExecState.ROLLED_BACK, DeviceCause.OPERATOR), NOW
    )
    assert (found.state, found.late) == (ExecState.SUCCEEDED, ExecState.ROLLED_BACK)
    assert (said.late, said.cause, said.seq) == (ExecState.ROLLED_BACK, DeviceCause.OPERATOR, 7)


def test_a_device_that_cannot_stop_any_more_is_not_told_for_ever():
    record, _ = execution.step(
        Execution(ExecState.PROBATION, seq=4, offered=True), Ended(ExecState.TIMED_OUT), NOW
    )
    late = Reported(1, 5, ExecState.PROBATION, DeviceCause.CANCEL_TOO_LATE)
    record, actions = execution.step(record, late, NOW)
    assert (record.state, actions) == (ExecState.TIMED_OUT, ())


def test_a_lost_journal_is_another_attempt_that_numbers_anew():
    record = Execution(ExecState.UNKNOWN, seq=9, offered=True, previous=ExecState.STAGED)
    record, _ = execution.step(record, Forgotten(), NOW)
    assert (record.state, record.attempt, record.seq) == (ExecState.OFFERED, 2, -1)
    record, _ = execution.step(record, Reported(2, 0, ExecState.ACCEPTED), NOW)
    assert record.state is ExecState.ACCEPTED
