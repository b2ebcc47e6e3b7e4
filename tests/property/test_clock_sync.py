"""Whatever the device's clock does, windows carry the server's time once it was heard."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_client.clock_sync import DRIFT, MAX_ROUND_SECONDS, Plan, Sync, answered, date

SERVER = 1_800_000_000.0
delays = st.floats(0, MAX_ROUND_SECONDS / 2)
YEAR = 365 * 86_400.0


def ask(best, at, there, back, skew=0.0):
    """One exchange at ``at`` of a steady clock that the server's runs beside."""
    server = SERVER + (at + there) * (1 + skew)
    heard = at + there + back
    return answered(best, asked=at, heard=heard, server=server, now=heard)


@given(st.lists(st.tuples(delays, delays), min_size=1, max_size=8))
def test_the_error_is_never_more_than_what_is_said(exchanges):
    best, now = None, 0.0
    for there, back in exchanges:
        best = ask(best, now, there, back)
        now += there + back + 1
    assert best is not None
    assert abs(best.offset - SERVER) <= best.error + 1e-6
    quickest = min(there + back for there, back in exchanges) / 2
    assert best.error <= quickest + DRIFT * now + 1e-9


@given(delays, delays, st.floats(0, 30 * 86_400.0), st.floats(-DRIFT, DRIFT))
def test_what_was_heard_long_ago_grows_worse_as_fast_as_clocks_drift(there, back, age, skew):
    best = ask(None, 0.0, there, back, skew)
    then = SERVER + age * (1 + skew)
    # The server's own seconds differ from ours by the skew, also on the way.
    assert abs(age + best.offset - then) <= best.error_at(age) + 1e-5


def test_a_quick_answer_replaces_a_slow_one_and_an_old_one_in_time():
    slow = ask(None, 0.0, 2.0, 2.0)
    quick = ask(slow, 10.0, 0.01, 0.01)
    assert quick.error == 0.01 or abs(quick.error - 0.01) < 1e-9
    assert ask(quick, 20.0, 1.0, 1.0) == quick
    later = ask(quick, 2 * 86_400.0, 1.0, 1.0)
    assert later.at > 86_400.0, "after two days 8 s may have gone"


def test_a_server_whose_clock_was_wrong_is_believed_once_it_was_set():
    wrong = answered(None, asked=0.0, heard=0.002, server=SERVER - 6 * YEAR, now=0.002)
    right = ask(wrong, 60.0, 0.5, 0.5)
    assert abs(right.offset - SERVER) <= 0.5, "though the first answer was quicker"


def test_an_answer_out_of_time_says_nothing():
    known = Sync(offset=1.0, error=0.1, at=5.0)
    for asked, heard in ((10.0, 9.0), (0.0, MAX_ROUND_SECONDS + 0.1)):
        assert answered(known, asked=asked, heard=heard, server=SERVER, now=heard) == known


@given(st.floats(-60 * YEAR, 60 * YEAR), st.floats(0, 10 * YEAR))
def test_a_device_clock_that_is_years_off_does_not_matter_once_the_server_was_heard(off, steady):
    known = Sync(offset=SERVER, error=0.1, at=0.0)
    when = date(steady, known, SERVER + steady + off)
    assert when.synced
    assert abs(when.ms / 1000 - (SERVER + steady)) < 0.01
    alone = date(steady, None, SERVER + steady + off)
    assert not alone.synced
    assert alone.ms == min(max(0, round((SERVER + steady + off) * 1000)), 10**14)


def test_questions_come_in_rounds():
    plan, now, asked = Plan(), 0.0, []
    while now < 2000:
        if now >= plan.due:
            asked.append(now)
            plan = plan.asked(now)
        now += 0.5
    assert asked == [0, 1, 2, 3, 903, 904, 905, 906, 1806, 1807, 1808, 1809]
