"""When a certificate is renewed, and by which way."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from edge_client.certificates import Life
from edge_client.mqtt_line import LAST_DELAY, REFUSED_DELAY, backoff
from edge_client.refusal import Refusal
from edge_client.renewal import (
    ANSWER_SECONDS,
    CUT_OFF_PAUSE,
    FIRST_PAUSE,
    LAST_PAUSE,
    Moment,
    Plan,
    Way,
    asked,
    clock_trouble,
    decide,
    failed,
    overdue,
    wanted,
)

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
WEEK = dt.timedelta(days=7)
PLAN = Plan(life=Life(START, START + WEEK), seed="ab12")
BEFORE, AFTER = PLAN.due - dt.timedelta(seconds=1), PLAN.due + dt.timedelta(seconds=1)


def moment(date=BEFORE, *, steady=100.0, connected=True, refusal=None) -> Moment:
    return Moment(date=date, steady=steady, connected=connected, refusal=refusal)


@given(st.text(), st.integers(60, 400 * 86400))
def test_the_moment_lies_late_in_the_life_and_follows_from_the_seed(seed, seconds):
    plan = Plan(life=Life(START, START + dt.timedelta(seconds=seconds)), seed=seed)
    share = (plan.due - START) / dt.timedelta(seconds=seconds)
    assert 0.699 <= share <= 0.901
    assert replace(plan, failures=3).due == plan.due


def test_a_fleet_does_not_ask_at_once():
    moments = sorted(replace(PLAN, seed=f"{n:x}").due for n in range(1000))
    hour = dt.timedelta(hours=1)
    most = max(sum(m <= d < m + hour for d in moments) for m in moments)
    assert most < 80  # 1000 over 33.6 hours


def test_what_is_due_is_asked_for_over_the_connection_there_is():
    assert decide(PLAN, moment(BEFORE)) is None
    assert decide(PLAN, moment(AFTER)) is Way.MQTT
    assert decide(PLAN, moment(AFTER, connected=False)) is None  # it may come back in time
    assert decide(PLAN, moment(PLAN.life.end, connected=False)) is Way.HTTPS
    assert decide(PLAN, moment(PLAN.life.end)) is Way.MQTT  # the session outlives it


def test_what_the_broker_says_counts_where_the_clock_may_be_wrong():
    past = START - dt.timedelta(days=2000)
    for refusal in (Refusal.EXPIRED, Refusal.UNTRUSTED):
        assert decide(PLAN, moment(past, connected=False, refusal=refusal)) is Way.HTTPS
    assert decide(PLAN, moment(past)) is None
    assert "set it" in str(clock_trouble(PLAN, past))
    assert clock_trouble(PLAN, START) is None


def test_a_revoked_device_asks_for_nothing():
    gone = moment(PLAN.life.end + WEEK, connected=False, refusal=Refusal.REVOKED)
    assert decide(PLAN, gone) is None


@given(st.floats(0, 7 * 86400), st.floats(0, 7 * 86400))
def test_the_servers_wish_is_followed_within_its_time(within, again):
    plan = wanted(PLAN, within, 100.0)
    assert plan.wanted_at is not None
    assert 100.0 <= plan.wanted_at <= 100.0 + within
    assert decide(plan, moment(steady=plan.wanted_at)) is Way.MQTT
    repeated = wanted(plan, again, 100.0)
    assert repeated.wanted_at is not None
    assert repeated.wanted_at <= plan.wanted_at  # a repeat never puts it off


def test_a_question_under_way_is_not_repeated_until_it_is_overdue():
    plan = asked(PLAN, Way.MQTT, 100.0)
    assert decide(plan, moment(AFTER, steady=100.0 + ANSWER_SECONDS - 1)) is None
    assert not overdue(plan, 100.0 + ANSWER_SECONDS - 1)
    assert overdue(plan, 100.0 + ANSWER_SECONDS)
    assert not overdue(asked(PLAN, Way.HTTPS, 100.0), 1e6)  # that way has its own limits


@given(st.integers(0, 60), st.booleans())
def test_tries_that_fail_become_rarer_and_never_cease(failures, connected):
    plan = replace(PLAN, failures=failures)
    at = moment(AFTER, connected=connected)
    pause = failed(plan, at).not_before - at.steady
    assert 0.75 * FIRST_PAUSE <= pause <= (LAST_PAUSE if connected else CUT_OFF_PAUSE)
    final = failed(plan, at, for_good=True).not_before - at.steady
    assert final >= 0.75 * LAST_PAUSE
    later = replace(at, steady=at.steady + LAST_PAUSE)
    assert decide(failed(plan, at, for_good=True), replace(later, connected=True)) is Way.MQTT


def test_a_clock_in_2090_does_not_make_it_spin():
    plan, at, asks = PLAN, moment(dt.datetime(2090, 1, 1, tzinfo=dt.UTC), steady=0.0), 0
    for second in range(86400):
        at = replace(at, steady=float(second))
        if decide(plan, at):
            asks += 1
            plan = failed(asked(plan, Way.MQTT, at.steady), at)
    assert asks < 40


def test_a_refused_device_knocks_less_often():
    assert backoff(20, 1.0) == LAST_DELAY
    assert backoff(20, 1.0, refused=True) == REFUSED_DELAY
    assert backoff(0, 1.0, refused=True) == backoff(0, 1.0)
