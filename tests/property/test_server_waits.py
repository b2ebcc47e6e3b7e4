"""Timers of devices that wait: as long as they may, and no longer."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.domain.timers import Timers, after
from orchestrator.domain.waiting import WAITS, Wait, due_at, latest
from schemas.pace import MaintenanceWindow, Mode, Urgency, WindowCovers
from schemas.rollout import ExecState

S = ExecState
OFFERED = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
STEP = timedelta(seconds=300)
TIMERS = Timers(offer=120, step=300, straggler=600, deferral=86400.0)
NIGHT = MaintenanceWindow(cron="0 2 * * *", minutes=60, covers=WindowCovers.ALL)
SWAP = MaintenanceWindow(cron="0 2 * * *", minutes=60)

modes = st.sampled_from(
    [
        Mode(),
        Mode(urgency=Urgency.SOFT),
        Mode(urgency=Urgency.DOWNLOAD_ONLY),
        Mode(urgency=Urgency.TIME_FORCED, force_at=OFFERED + 3 * DAY),
    ]
)
timers = st.builds(
    Timers,
    offer=st.floats(0, 1e4),
    step=st.floats(0, 1e4),
    straggler=st.just(600.0),
    deferral=st.floats(0, 30 * 86400),
    jitter=st.floats(0, 86400),
    mode=modes,
    windows=st.sampled_from([(), (NIGHT,), (SWAP,), (NIGHT, SWAP)]),
)
moments = st.integers(0, 40 * 86400).map(lambda n: OFFERED + timedelta(seconds=n))
states = st.sampled_from(sorted(WAITS | {S.ACCEPTED}))


@settings(deadline=None)
@given(states, moments, timers, st.none() | moments)
def test_nobody_is_due_before_the_end_of_a_wait_that_is_allowed(state, since, its, until):
    due = due_at(state, since, its, Wait(OFFERED, until))
    end = latest(state, since, its, OFFERED)
    if due is None:
        assert state is S.STAGED
        assert its.mode.urgency is Urgency.DOWNLOAD_ONLY
        return
    assert due >= after(since, its.step)
    if until is not None and (end is None or until <= end):
        assert due >= until


@settings(deadline=None)
@given(states, moments, timers, moments)
def test_a_device_that_lies_about_its_wait_gains_nothing_beyond_what_is_allowed(
    state, since, its, until
):
    honest = latest(state, since, its, OFFERED)
    far = due_at(state, since, its, Wait(OFFERED, datetime(9999, 1, 1, tzinfo=UTC)))
    if far is not None:
        assert honest is not None
        assert far == after(max(since, honest), its.step)
        assert due_at(state, since, its, Wait(OFFERED, until)) <= far


@pytest.mark.parametrize("state", sorted(WAITS))
def test_who_is_told_to_go_on_has_the_time_of_a_step_from_when_the_broker_has_the_word(state):
    its = replace(TIMERS, mode=Mode(urgency=Urgency.DOWNLOAD_ONLY), windows=(SWAP,))
    wait = Wait(OFFERED, OFFERED + DAY, proceed=True)
    assert due_at(state, OFFERED, its, wait) is None
    assert due_at(state, OFFERED, its, replace(wait, told=True)) == OFFERED + STEP


def test_a_deferral_ends_where_the_rollout_says():
    soft = replace(TIMERS, mode=Mode(urgency=Urgency.SOFT), deferral=3600.0)
    allowed = Wait(OFFERED, OFFERED + HOUR / 2)
    assert due_at(S.DEFERRED, OFFERED, soft, allowed) == OFFERED + HOUR / 2 + STEP
    too_long = Wait(OFFERED, OFFERED + DAY)
    # From the offer, with the time that it may be unanswered.
    end = OFFERED + HOUR + timedelta(seconds=120)
    assert due_at(S.DEFERRED, OFFERED, soft, too_long) == end + STEP
    assert due_at(S.DEFERRED, OFFERED, TIMERS, too_long) == OFFERED + timedelta(seconds=420)


def test_a_wait_for_a_window_is_known_also_where_the_device_did_not_say_it():
    opening = OFFERED.replace(hour=2) + DAY
    its = replace(TIMERS, windows=(NIGHT,))
    for wait in (Wait(OFFERED), Wait(OFFERED, opening)):
        assert due_at(S.STAGED, OFFERED, its, wait) == opening + STEP
        assert due_at(S.DEFERRED, OFFERED, its, wait) == opening + STEP
    swap_only = replace(TIMERS, windows=(SWAP,))
    assert due_at(S.STAGED, OFFERED, swap_only, Wait(OFFERED)) == opening + STEP
    assert due_at(S.DEFERRED, OFFERED, swap_only, Wait(OFFERED)) == OFFERED + STEP


def test_a_deferral_that_ends_outside_of_the_window_waits_for_the_next_one():
    its = replace(TIMERS, mode=Mode(urgency=Urgency.SOFT), deferral=3600.0, windows=(NIGHT,))
    opening = OFFERED.replace(hour=2) + DAY
    assert latest(S.DEFERRED, OFFERED, its, OFFERED) == opening
    assert latest(S.STAGED, opening + timedelta(minutes=5), its, OFFERED) == opening + DAY


def test_what_is_only_downloaded_waits_for_its_word_without_a_timer():
    its = replace(TIMERS, mode=Mode(urgency=Urgency.DOWNLOAD_ONLY))
    assert due_at(S.STAGED, OFFERED, its, Wait(OFFERED)) is None
    assert due_at(S.ACCEPTED, OFFERED, its, Wait(OFFERED)) == OFFERED + STEP


def test_jitter_is_no_silence():
    its = replace(TIMERS, jitter=7200.0)
    assert due_at(S.ACCEPTED, OFFERED, its, Wait(OFFERED)) == OFFERED + 2 * HOUR + STEP
    until = OFFERED + 1.5 * HOUR
    assert due_at(S.DEFERRED, OFFERED, its, Wait(OFFERED, until)) == until + STEP
