"""When windows are open, held against minutes looked at one by one, and against cronsim itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.maintenance import Look, closes, for_download, look, opens
from schemas.pace import MaintenanceWindow, WindowCovers

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata")
CHANGES = [
    datetime(2026, 3, 8, 7, tzinfo=UTC),  # New York, forward
    datetime(2026, 3, 29, 1, tzinfo=UTC),  # Berlin, forward
    datetime(2026, 4, 4, 15, tzinfo=UTC),  # Lord Howe, back by half an hour
    datetime(2026, 10, 3, 15, 30, tzinfo=UTC),  # Lord Howe, forward
    datetime(2026, 10, 25, 1, tzinfo=UTC),  # Berlin, back
    datetime(2026, 11, 1, 6, tzinfo=UTC),  # New York, back
    datetime(2026, 12, 31, 23, tzinfo=UTC),
]
sets_of = {
    "minute": st.none() | st.sets(st.sampled_from([0, 1, 15, 29, 30, 31, 59]), min_size=1),
    "hour": st.none() | st.sets(st.sampled_from([0, 1, 2, 3, 12, 23]), min_size=1),
    "weekday": st.none() | st.sets(st.integers(0, 6), min_size=1),
}
fields = st.tuples(*sets_of.values())
times = st.builds(
    lambda change, minutes: change + minutes * MINUTE,
    st.sampled_from(CHANGES),
    st.integers(-1500, 1500),
)


def text(one: set[int] | None) -> str:
    return "*" if one is None else ",".join(map(str, sorted(one)))


def window(fields, minutes: int, zone: str, **more) -> MaintenanceWindow:
    minute, hour, weekday = map(text, fields)
    cron = f"{minute} {hour} * * {weekday}"
    return MaintenanceWindow(cron=cron, minutes=minutes, timezone=zone, **more)


def fires(fields, zone: ZoneInfo, at: datetime) -> bool:
    """Whether cron fires at that minute, by the clocks on the wall in it and before it."""

    def fits(wall: datetime) -> bool:
        shown = (wall.minute, wall.hour, wall.isoweekday() % 7)
        return all(
            field is None or value in field for field, value in zip(fields, shown, strict=True)
        )

    now = at.astimezone(zone)
    wall = now.replace(tzinfo=None)
    if fields[0] is None or fields[1] is None:
        return fits(wall)
    if fits(wall) and now.fold == 0:
        return True
    skipped = (at - MINUTE).astimezone(zone).replace(tzinfo=None, fold=0) + MINUTE
    while skipped < wall:
        if fits(skipped):
            return True
        skipped += MINUTE
    return False


@settings(max_examples=150, deadline=None)
@given(fields, st.sampled_from([1, 5, 59, 60, 61, 200, 1440]), st.sampled_from(ZONES), times)
def test_a_window_is_open_as_the_minutes_before_say(fields, minutes, zone, at):
    one, place = window(fields, minutes, zone), ZoneInfo(zone)
    before = [at - i * MINUTE for i in range(minutes)]
    fired = next((time for time in before if fires(fields, place, time)), None)
    end = closes(one, at + timedelta(seconds=59))
    assert end == (None if fired is None else fired + minutes * MINUTE)


@settings(max_examples=100, deadline=None)
@given(fields, st.sampled_from(ZONES), times)
def test_the_next_opening_is_the_first_minute_at_which_cron_fires(fields, zone, at):
    start, place = opens(window(fields, 1, zone), at), ZoneInfo(zone)
    assert start is not None
    assert start > at
    assert fires(fields, place, start)
    end = min(start, at + 2 * DAY)
    later = at + MINUTE
    while later < end:
        assert not fires(fields, place, later)
        later += MINUTE


@settings(max_examples=100, deadline=None)
@given(fields, st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]), times)
def test_openings_are_those_of_cronsim(fields, zone, at):
    one = window(fields, 1, zone)
    simulated = CronSim(one.cron, (at - DAY).astimezone(ZoneInfo(zone)))
    found, theirs = at - DAY, set()
    while (told := next(simulated).astimezone(UTC)) < at + DAY:
        theirs.add(told)
    ours = set()
    while (found := opens(one, found)) < at + DAY:
        ours.add(found)
    # It starts by the wall, so that what comes twice may be missed or repeated around the start.
    edge = at - DAY + timedelta(hours=2)
    assert {one for one in ours if one > edge} == {one for one in theirs if one > edge}


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(fields, st.integers(1, 300), st.sampled_from(ZONES)), max_size=4),
    times,
    st.integers(0, 59),
)
def test_of_several_windows_any_will_do_and_what_is_said_holds_until_then(several, at, seconds):
    windows = tuple(window(*one) for one in several)
    now = at + timedelta(seconds=seconds)
    seen = look(windows, now)
    if not windows:
        assert seen == Look(open=True)
        return
    assert seen.open == any(closes(one, now) for one in windows)
    assert seen.until is not None
    assert seen.until > now
    last = min(seen.until, now + 12 * timedelta(hours=1)) - timedelta(seconds=1)
    for later in {last, now + (last - now) / 2, now + (last - now) / 3}:
        assert look(windows, later).open == seen.open
    if not seen.open:
        assert look(windows, seen.until).open


def test_windows_that_overlap_go_over_into_each_other():
    one = MaintenanceWindow(cron="0 2 * * *", minutes=90)
    other = MaintenanceWindow(cron="59 2 * * *", minutes=60)
    at = datetime(2026, 6, 1, 2, tzinfo=UTC)
    looks = [look((one, other), at + i * MINUTE).open for i in range(-1, 121)]
    assert looks == [False] + [True] * 119 + [False] * 2


@pytest.mark.parametrize(
    ("zone", "begins", "ends"),
    [
        # 2026-03-29 has no 02:30 in Berlin, and 2026-10-25 has it twice.
        ("Europe/Berlin", "2026-03-29 01:00", "2026-03-29 02:00"),
        ("Europe/Berlin", "2026-10-25 00:30", "2026-10-25 01:30"),
        ("America/New_York", "2026-03-08 07:00", "2026-03-08 08:00"),
        ("America/New_York", "2026-11-01 05:30", "2026-11-01 06:30"),
    ],
)
def test_a_fixed_time_comes_once_a_day_whatever_is_done_to_the_clocks(zone, begins, ends):
    one = MaintenanceWindow(cron="30 2 * * *" if "Berlin" in zone else "30 2,1 * * *",
                            minutes=60, timezone=zone)  # fmt: skip
    start, end = (datetime.fromisoformat(f"{text}Z") for text in (begins, ends))
    assert closes(one, start) == end
    days = [start - DAY]
    for _ in range(3):
        days.append(opens(MaintenanceWindow(cron="30 2 * * *", minutes=1, timezone=zone), days[-1]))
    assert all(timedelta(hours=20) < b - a < timedelta(hours=28) for a, b in pairwise(days[1:]))


def test_a_window_that_never_opens_again_is_closed_without_an_end(monkeypatch):
    monkeypatch.setattr("schemas.maintenance.HORIZON_DAYS", 366)
    leap = MaintenanceWindow(cron="0 0 29 2 *", minutes=60)
    assert look((leap,), datetime(2026, 1, 1, tzinfo=UTC)) == Look(open=False)
    monkeypatch.undo()
    assert opens(leap, datetime(2026, 1, 1, tzinfo=UTC)) == datetime(2028, 2, 29, tzinfo=UTC)


def test_only_windows_that_cover_all_hold_a_download():
    night = MaintenanceWindow(cron="0 2 * * *", minutes=60)
    day = MaintenanceWindow(cron="0 12 * * *", minutes=60, covers=WindowCovers.ALL)
    assert for_download((night, day)) == (day,)
    assert for_download((night,)) == ()


@pytest.mark.parametrize("cron", ["* * * * * *", "0 0 31 2 *", "every day"])
def test_what_is_no_cron_expression_of_five_fields_is_refused(cron):
    with pytest.raises(ValidationError, match="minute, hour, day"):
        MaintenanceWindow(cron=cron, minutes=1)
