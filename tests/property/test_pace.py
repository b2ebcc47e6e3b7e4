"""Pace: never faster than asked for, never stuck, and nothing remembered between two looks."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.domain.pace import (
    MAX_PER_MINUTE,
    PaceFacts,
    allowance,
    open_for,
    open_seconds,
    quota,
    rate,
)
from orchestrator.domain.timers import Timers, due_at
from schemas.maintenance import look
from schemas.pace import Growth, MaintenanceWindow, Pace, WindowCovers
from schemas.rollout import ExecState

NOW = datetime(2026, 3, 1, tzinfo=UTC)

rates = st.floats(0.1, 10_000)
growths = st.builds(
    Growth,
    factor=st.floats(1.001, 10),
    after=st.integers(1, 50),
    max_per_minute=st.none() | st.floats(0.1, 100_000),
)
paces = st.builds(
    Pace, per_minute=rates, growth=st.none() | growths, concurrent=st.none() | st.integers(1, 40)
)


@given(paces, st.integers(0, 10**9), st.integers(0, 10**9))
def test_a_rate_grows_with_success_and_never_beyond_its_limit(pace, one, other):
    less, more = sorted((one, other))
    slow, fast = rate(pace, less), rate(pace, more)
    assert slow <= fast
    limit = (pace.growth.max_per_minute if pace.growth else None) or MAX_PER_MINUTE
    assert fast <= limit or pace.growth is None
    if pace.growth is None:
        assert fast == pace.per_minute
    elif more < pace.growth.after:
        assert fast == min(limit, pace.per_minute)


@given(rates)
def test_a_quota_is_the_rate_in_whole_offers(per_minute):
    its = quota(per_minute)
    assert its.offers >= 1
    assert its.offers / its.seconds * 60 == pytest.approx(per_minute)
    assert its.seconds <= 5 + 60 / per_minute


class Run:
    """Rounds of an engine that remembers nothing, over devices that take their time."""

    def __init__(self, pace: Pace, devices: int) -> None:
        self.pace, self.waiting = pace, devices
        self.at = 0.0
        self.offered: list[float] = []
        self.at_work: list[float] = []
        self.succeeded = 0
        self.most_at_work = 0

    def round(self, after: float, works: float, *, paused: bool = False) -> None:
        """Let so many seconds pass; then offer what is allowed, to devices that take so long."""
        self.at += after
        self.succeeded += sum(end <= self.at for end in self.at_work)
        self.at_work = [end for end in self.at_work if end > self.at]
        if paused:
            return
        per_minute = rate(self.pace, self.succeeded)
        since = self.at - quota(per_minute).seconds
        recent = sum(since < one <= self.at for one in self.offered)
        facts = PaceFacts(recent, len(self.at_work), self.succeeded)
        n = min(self.waiting, allowance(self.pace, facts))
        self.waiting -= n
        self.offered += [self.at] * n
        self.at_work += [self.at + works] * n
        self.most_at_work = max(self.most_at_work, len(self.at_work))


rounds = st.lists(
    st.tuples(st.floats(0.01, 30), st.floats(0.1, 60), st.booleans()), min_size=1, max_size=40
)


@settings(max_examples=60, deadline=None)
@given(paces, rounds)
def test_no_span_of_time_sees_more_offers_than_rate_times_time_and_one_burst(pace, steps):
    run = Run(pace, 5_000)
    for after, works, paused in steps:
        run.round(after, works, paused=paused)
    fastest = rate(pace, run.succeeded)
    burst = quota(fastest).offers
    for i, first in enumerate(run.offered):
        for last in run.offered[i : i + 1] + run.offered[-1:]:
            n = sum(first <= one <= last for one in run.offered)
            assert n <= fastest * (last - first) / 60 + burst + 1e-6
    assert run.most_at_work <= (pace.concurrent or len(run.offered))


@settings(max_examples=30, deadline=None)
@given(st.floats(30, 6_000), st.integers(1, 20), rounds)
def test_a_pause_changes_nothing_but_the_time(per_minute, concurrent, steps):
    pace = Pace(per_minute=per_minute, concurrent=concurrent)
    paused, straight = Run(pace, 30), Run(pace, 30)
    for after, works, stop in steps:
        paused.round(after, works, paused=stop)
    for run in (paused, straight):
        while run.waiting or run.at_work:
            run.round(1.0, 1.0)  # it ends: nothing is ever stuck
    assert paused.succeeded == straight.succeeded == 30


@given(paces, st.integers(0, 100))
def test_whoever_has_waited_for_a_span_may_go_on(pace, succeeded):
    idle = allowance(pace, PaceFacts(0, 0, succeeded))
    assert idle >= 1
    assert allowance(Pace(), PaceFacts(10**6, 10**6, 0)) is None


NIGHTS = (MaintenanceWindow(cron="0 2 * * *", minutes=120, covers=WindowCovers.ALL),)


def test_time_counts_while_a_window_is_open():
    day = timedelta(days=1)
    assert open_seconds((), NOW, NOW + day, 1e9) == 86_400
    assert open_seconds(NIGHTS, NOW, NOW + 3 * day, 1e9) == 3 * 7200
    assert open_seconds(NIGHTS, NOW + timedelta(hours=3), NOW + timedelta(hours=3.5), 1e9) == 1800
    assert open_seconds(NIGHTS, NOW + timedelta(hours=5), NOW + timedelta(hours=9), 1e9) == 0
    assert 10_000 < open_seconds(NIGHTS, NOW, NOW + 1000 * day, 10_000) <= 14_400


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 10_000), st.sampled_from(["UTC", "Europe/Berlin"]))
def test_open_time_adds_up_minute_by_minute(start, length, zone):
    windows = (NIGHTS[0].model_copy(update={"timezone": zone, "cron": "*/50 1,2 * * *"}),)
    since = NOW + timedelta(minutes=start + 27 * 1440)
    minutes = min(length, 400)
    until = since + timedelta(minutes=minutes)
    one_by_one = sum(60 for n in range(minutes) if look(windows, since + timedelta(minutes=n)).open)
    assert open_seconds(windows, since, until, 1e9) == one_by_one


def test_a_vanished_device_is_waited_for_while_windows_are_open():
    """By the clock, its patience was over with the first opening after a day."""
    timers = Timers(offer=60, step=60, straggler=3 * 3600, windows=NIGHTS)
    vanished = NOW + timedelta(hours=3)  # an hour before the window closes
    assert due_at(ExecState.UNKNOWN, vanished, timers) == NOW + timedelta(days=1, hours=4)
    rare = replace(timers, windows=(NIGHTS[0].model_copy(update={"cron": "0 0 29 2 *"}),))
    assert due_at(ExecState.UNKNOWN, NOW, rare) == datetime(2032, 2, 29, 1, tzinfo=UTC)
    at_once = replace(timers, windows=())
    assert due_at(ExecState.UNKNOWN, NOW, at_once) == NOW + timedelta(hours=3)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 5000), st.floats(0, 40_000))
def test_the_end_of_patience_is_when_so_much_time_was_open(start, seconds):
    since = NOW + timedelta(minutes=start)
    ends = open_for(NIGHTS, since, seconds, since + timedelta(days=90))
    assert open_seconds(NIGHTS, since, ends, 1e9) == pytest.approx(seconds, abs=1e-3)
