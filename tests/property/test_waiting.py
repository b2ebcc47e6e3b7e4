"""Why an update waits on its device, over all urgencies, windows, moments and wishes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_client.waiting import (
    Timing,
    Why,
    before_download,
    before_swap,
    in_words,
    put_off_to,
    share,
)
from schemas.maintenance import for_download, look
from schemas.pace import MaintenanceWindow, Mode, Urgency, WindowCovers
from tests.property.test_edge_state_machine import offer_of

START = datetime(2026, 3, 28, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
windows = st.lists(
    st.builds(
        MaintenanceWindow,
        cron=st.sampled_from(["0 2 * * *", "30 2 * * 0", "59 */6 * * *", "*/20 * * * *"]),
        minutes=st.sampled_from([1, 10, 90, 1440]),
        timezone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]),
        covers=st.sampled_from(WindowCovers),
    ),
    max_size=3,
).map(tuple)
moments = st.integers(0, 3 * 86400).map(lambda seconds: START + timedelta(seconds=seconds))
modes = st.sampled_from(
    [
        Mode(),
        Mode(urgency=Urgency.SOFT),
        Mode(urgency=Urgency.TIME_FORCED, force_at=START + 6 * HOUR),
        Mode(urgency=Urgency.DOWNLOAD_ONLY),
    ]
)
timings = st.builds(
    Timing,
    accepted_at=st.none() | moments,
    put_off_until=st.none() | moments,
    proceed=st.booleans(),
)


def assign(**pace):
    return offer_of(1).assignment.model_copy(update=pace)


assignments = st.builds(
    assign,
    windows=windows,
    mode=modes,
    jitter_seconds=st.sampled_from([0.0, 0.0, 600.0, 86400.0]),
    max_deferral_seconds=st.sampled_from([0.0, 3600.0, 86400.0]),
)
stages = st.sampled_from(["download", "middle", "swap"])


def hold(stage, assignment, timing, now):
    if stage == "swap":
        return before_swap(assignment, timing, now)
    return before_download(assignment, timing, now, begun=stage == "middle")


@given(assignments, timings, stages, st.none() | moments)
def test_who_was_told_to_proceed_waits_for_nothing(assignment, timing, stage, now):
    assert hold(stage, assignment, replace(timing, proceed=True), now) is None


@given(modes, timings, st.none() | moments)
def test_without_windows_jitter_and_wishes_only_a_word_is_waited_for(mode, timing, now):
    timing = replace(timing, put_off_until=None, proceed=False)
    found = [hold(stage, assign(mode=mode), timing, now) for stage in ("download", "middle")]
    assert found == [None, None]
    swap = before_swap(assign(mode=mode), timing, now)
    assert (swap is not None) == (mode.urgency is Urgency.DOWNLOAD_ONLY)


@settings(max_examples=200, deadline=None)
@given(assignments, timings, stages, moments, st.floats(0, 1))
def test_a_wait_lasts_until_the_time_that_was_said_and_not_longer(
    assignment, timing, stage, now, part
):
    timing = replace(timing, accepted_at=timing.accepted_at or now)
    found = hold(stage, assignment, timing, now)
    if found is None:
        return
    assert in_words(found)
    if found.why is Why.WORD:
        assert found.until is None
        return
    assert found.until is not None
    assert found.until > now
    meanwhile = now + (found.until - now - timedelta(seconds=1)) * part
    if meanwhile >= now:
        later = hold(stage, assignment, timing, meanwhile)
        assert later is not None
        assert later.until == found.until
    assert hold(stage, assignment, timing, found.until) is None


@settings(max_examples=200, deadline=None)
@given(assignments, timings, moments)
def test_outside_of_its_windows_nothing_begins(assignment, timing, now):
    timing = replace(timing, proceed=False)
    if before_swap(assignment, timing, now) is None:
        assert look(assignment.windows, now).open
    for begun in (False, True):
        if before_download(assignment, timing, now, begun=begun) is None:
            assert look(for_download(assignment.windows), now).open


@given(assignments, timings, stages)
def test_who_does_not_know_the_time_waits_if_a_time_matters(assignment, timing, stage):
    found = hold(stage, assignment, timing, None)
    if timing.proceed:
        assert found is None
    elif stage == "swap" and assignment.mode.urgency is Urgency.DOWNLOAD_ONLY:
        assert found.why is Why.WORD
    else:
        waits = assignment.windows if stage == "swap" else for_download(assignment.windows)
        put_off = stage != "middle" and timing.put_off_until is not None
        jitter = stage == "download" and assignment.jitter_seconds > 0
        assert (found is not None) == bool(waits or put_off or jitter)
        assert found is None or (found.why, found.until) == (Why.NO_TIME, None)


@given(assignments, timings, moments, st.floats(1, 90 * 86400))
def test_nobody_puts_an_update_off_for_longer_than_its_rollout_allows(
    assignment, timing, now, seconds
):
    until = put_off_to(assignment, timing, seconds, now)
    urgency = assignment.mode.urgency
    if urgency in {Urgency.FORCED, Urgency.DOWNLOAD_ONLY}:
        assert isinstance(until, str)
        return
    latest = assignment.mode.force_at
    if urgency is Urgency.SOFT:
        accepted = timing.accepted_at or now
        latest = accepted + timedelta(seconds=assignment.max_deferral_seconds)
    if isinstance(until, str):
        assert latest <= now
        return
    assert now < until <= latest
    assert until == min(latest, now + timedelta(seconds=seconds))


def test_own_moments_are_spread_evenly_and_stay_through_restarts():
    shares = [
        share(assign(device=f"dev_{device:016d}", attempt=attempt))
        for device in range(1000)
        for attempt in (1, 2)
    ]
    assert len(set(shares)) == len(shares)
    tenths = [sum(int(one * 10) == tenth for one in shares) for tenth in range(10)]
    assert all(140 < n < 260 for n in tenths)  # 200 ± 4.5 standard deviations
    assignment = assign(jitter_seconds=600.0)
    first = before_download(assignment, Timing(accepted_at=START), START)
    later = START + timedelta(seconds=600 * share(assignment) / 2)
    assert before_download(assignment, Timing(accepted_at=START), later) == first
    assert first.until - START == timedelta(seconds=600 * share(assignment))
