"""When maintenance windows are open: the decision that devices and the server share.

An opening is a firing of the window's cron expression, as Debian's cron (cron(8), crontab(5)) has
them where clocks are set: one at a fixed time of day that a gap leaves out is at the gap's end, and
one that comes twice is at the first; one with a ``*`` for the minute or the hour follows the clock
on the wall, both times. From there a window is open for its minutes, of real time. All in UTC.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim

from schemas.pace import MaintenanceWindow, WindowCovers

HORIZON_DAYS = 41 * 366
"""So far ahead is looked for an opening: a fifth Monday of February comes once in 40 years."""

_DAY, _MINUTE = timedelta(days=1), timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Look:
    """Whether any of several windows is open.

    until: so it stays at least until then; None for ever: there are no windows, or none that opens.
    """

    open: bool
    until: datetime | None = None


def for_download(windows: Iterable[MaintenanceWindow]) -> tuple[MaintenanceWindow, ...]:
    """Those that a download waits for: the ones that cover all. None of them: it does not wait."""
    return tuple(window for window in windows if window.covers is WindowCovers.ALL)


def look(windows: tuple[MaintenanceWindow, ...], at: datetime) -> Look:
    """Look at windows, any of which will do.

    Args:
        windows: without any it is always open.
        at: with a zone.
    """
    if not windows:
        return Look(open=True)
    ends = [end for window in windows if (end := closes(window, at)) is not None]
    if ends:
        return Look(open=True, until=max(ends))
    starts = [start for window in windows if (start := opens(window, at)) is not None]
    return Look(open=False, until=min(starts, default=None))


def closes(window: MaintenanceWindow, at: datetime) -> datetime | None:
    """When a window that is open closes, by its last opening; None while it is closed."""
    length = timedelta(minutes=window.minutes)
    zone = ZoneInfo(window.timezone)
    day, last = _day(at, zone) + _DAY, _day(at - length, zone) - _DAY
    while day >= last:
        times = _openings(window.cron, window.timezone, day)
        index = bisect_right(times, at)
        if index:
            end = times[index - 1] + length
            return end if at < end else None
        day -= _DAY
    return None


def opens(window: MaintenanceWindow, after: datetime) -> datetime | None:
    """The next opening after a time; None if none comes in some forty years."""
    day: date | None = _day(after, ZoneInfo(window.timezone)) - _DAY
    while (day := _next_day(window.cron, window.timezone, day, HORIZON_DAYS)) is not None:
        times = _openings(window.cron, window.timezone, day)
        index = bisect_right(times, after)
        if index < len(times):
            return times[index]
        day += _DAY
    return None


def _day(at: datetime, zone: ZoneInfo) -> date:
    return at.astimezone(zone).date()


@lru_cache(maxsize=64)
def _parsed(cron: str) -> CronSim:
    """Its fields alone are used: what it yields where clocks are set back depends on the start."""
    return CronSim(cron, datetime(2026, 1, 1, tzinfo=UTC))


@lru_cache(maxsize=64)
def _fixed(cron: str) -> bool:
    minute, hour = cron.split()[:2]
    return not (minute.startswith("*") or hour.startswith("*"))


def _falls_on(cron: str, day: date) -> bool:
    fields = _parsed(cron)
    return day.month in fields.months and bool(fields.match_day(day))


@lru_cache(maxsize=256)
def _next_day(cron: str, timezone: str, day: date, horizon: int) -> date | None:
    """The first day, from one on, that has an opening; kept, as who waits asks every second."""
    days = (day + ahead * _DAY for ahead in range(horizon))
    return next((one for one in days if _openings_on(cron, timezone, one)), None)


def _openings_on(cron: str, timezone: str, day: date) -> bool:
    return _falls_on(cron, day) and bool(_openings(cron, timezone, day))


@lru_cache(maxsize=256)
def _openings(cron: str, timezone: str, day: date) -> tuple[datetime, ...]:
    """The openings of one local day, in order."""
    if not _falls_on(cron, day):
        return ()
    fields, zone = _parsed(cron), ZoneInfo(timezone)
    found: set[datetime] = set()
    for hour in fields.hours:
        for minute in fields.minutes:
            wall = datetime(day.year, day.month, day.day, hour, minute)  # noqa: DTZ001 - a wall's
            found.update(_fixed_time(wall, zone) if _fixed(cron) else _wall_times(wall, zone))
    return tuple(sorted(found))


def _wall_times(wall: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    """Each time that a clock on the wall shows it: once, twice, or never."""
    for fold in (0, 1):
        time = wall.replace(tzinfo=zone, fold=fold).astimezone(UTC)
        if time.astimezone(zone).replace(tzinfo=None) == wall:
            yield time


def _fixed_time(wall: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    """The first time that a clock on the wall shows it, or has passed it."""
    time = next(_wall_times(wall, zone), None)
    if time is None:
        # In a gap: by the offset before it that is after its end, by the one after it before.
        low = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
        time = low
        while time.astimezone(zone).replace(tzinfo=None) < wall:
            time += _MINUTE
    yield time
