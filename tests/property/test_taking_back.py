"""Acts and rollbacks, whatever happens: the table of acts, and where a rollback may lead."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain import acts, rollout, taking_back
from orchestrator.domain.acts import LEGAL, Act
from orchestrator.domain.rollout import (
    ROLLOUT_TABLE,
    ROLLOUT_TERMINAL,
    Happened,
    Refuse,
    Rollout,
    RolloutEvent,
)
from orchestrator.domain.taking_back import Facts, Standing
from schemas.rollout import ExecState, PauseReason, RolloutSpec, RolloutState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
versions = st.integers(1, 50)
EVENTS = {
    Act.PAUSE: RolloutEvent.PAUSE,
    Act.RESUME: RolloutEvent.RESUME,
    Act.APPROVE: RolloutEvent.START,
    Act.ABORT: RolloutEvent.ABORT,
    Act.ROLLBACK: RolloutEvent.ROLL_BACK,
}


@given(before=st.none() | versions, taken=versions, to=st.none() | versions)
def test_a_rollback_never_leads_to_a_newer_version_nor_to_the_same(before, taken, to):
    found = taking_back.goal(before, taken, to)
    assert found is None or found < taken
    assert found in {None, before, to}
    if to is not None and to < taken:
        assert found == to


@given(st.sampled_from(Act), st.sampled_from(RolloutState), st.booleans())
def test_every_act_is_answered_in_every_state(act, state, is_rollback):
    answer = acts.judge(act, state, is_rollback=is_rollback)
    if answer is True:
        assert state in LEGAL[act]
        assert state not in ROLLOUT_TERMINAL
        event = EVENTS.get(act)
        if event is not None:
            assert (state, event) in ROLLOUT_TABLE
    elif isinstance(answer, Refuse) and state not in ROLLOUT_TERMINAL and not is_rollback:
        legal = acts.legal_in(state)
        assert legal
        assert all(one.value in answer.detail for one in legal)


@given(st.sampled_from(RolloutState))
def test_what_the_answer_names_is_allowed(state):
    for is_rollback in (False, True):
        for act in acts.legal_in(state, is_rollback=is_rollback):
            assert acts.judge(act, state, is_rollback=is_rollback) is True


@given(st.sampled_from(RolloutState))
def test_a_rollout_turns_back_only_while_it_goes_and_then_only_ends(state):
    reason = PauseReason.OPERATOR if state is RolloutState.PAUSED else None
    after, _ = rollout.step(Rollout(state, reason), Happened(RolloutEvent.ROLL_BACK), NOW)
    going = state in {RolloutState.RUNNING, RolloutState.PAUSED}
    assert (after.state is RolloutState.ROLLING_BACK) == (
        going or state is RolloutState.ROLLING_BACK
    )
    reached = {to for (of, _), to in ROLLOUT_TABLE.items() if of is RolloutState.ROLLING_BACK}
    assert reached == {RolloutState.ROLLED_BACK, RolloutState.ABORTED}


facts = st.builds(
    Facts,
    own=st.integers(0, 5),
    missing=st.integers(0, 5),
    busy=st.integers(0, 5),
    since=st.just(NOW),
)


@given(facts, st.timedeltas(timedelta(0), timedelta(days=400)))
def test_it_is_over_once_nobody_can_be_led_back_and_waits_for_nobody_for_ever(at, later):
    done = taking_back.is_done(at, NOW + later)
    if at.own or at.missing:
        assert not done
    elif not at.busy or later > taking_back.PATIENCE:
        assert done
    if done:
        assert taking_back.is_done(at, NOW + later + timedelta(days=1))


@given(
    st.builds(
        Standing,
        state=st.none() | st.sampled_from(ExecState),
        online=st.booleans(),
        placeable=st.booleans(),
    )
)
def test_why_a_device_still_serves_it_can_always_be_said(standing):
    assert taking_back.why_left(standing)


@given(versions, versions)
def test_a_rollback_is_judged_by_nothing_that_the_bad_version_was_better_at(version, seconds):
    like = RolloutSpec(model="m", version=version, offer_seconds=seconds)
    spec = taking_back.spec_of("m", version, straggler_seconds=1.0, like=like)
    assert spec.probation.max_error_rate == 1.0
    assert spec.probation.max_latency_ratio is None
    assert spec.offer_seconds == seconds
    assert spec.shadow is None
    assert not spec.windows
