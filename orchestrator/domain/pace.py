"""How many devices may be offered a version now, by rate, growth and how many are at work.

What is allowed follows from sums over what was done, as in a sliding-window log: no count of what
is left is kept anywhere, so a server that starts again, and a rollout that is resumed, neither make
up for what they missed nor wait for anything. An execution counts by its newest offer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from schemas.maintenance import look
from schemas.pace import MaintenanceWindow, Pace

MAX_PER_MINUTE = 1_000_000.0
_SPAN_SECONDS = 5.0
_MAX_OPENINGS = 50_000


@dataclass(frozen=True, slots=True)
class Quota:
    """At most so many offers in any span of so many seconds."""

    offers: int
    seconds: float


@dataclass(frozen=True, slots=True)
class PaceFacts:
    """What of a rollout its pace depends on.

    offered: within the span of the quota. at_work: devices that are working on it, or may be.
    succeeded: devices that serve the version by it.
    """

    offered: int = 0
    at_work: int = 0
    succeeded: int = 0


def rate(pace: Pace, succeeded: int) -> float | None:
    """Offers a minute, by how many devices have succeeded; None for as fast as they can be sent."""
    start, growth = pace.per_minute, pace.growth
    if start is None or growth is None:
        return start
    limit = min(growth.max_per_minute or MAX_PER_MINUTE, MAX_PER_MINUTE)
    if start >= limit:
        return limit
    steps = succeeded // growth.after
    if steps * math.log(growth.factor) >= math.log(limit / start):
        return limit
    return min(limit, start * growth.factor**steps)


def quota(per_minute: float) -> Quota:
    """What a rate is in whole offers: about five seconds' worth, or one in as long as it takes."""
    offers = max(1, math.floor(per_minute * _SPAN_SECONDS / 60))
    return Quota(offers, 60 * offers / per_minute)


def allowance(pace: Pace, facts: PaceFacts) -> int | None:
    """How many devices may be offered the version now; None for any number."""
    left = []
    per_minute = rate(pace, facts.succeeded)
    if per_minute is not None:
        left.append(quota(per_minute).offers - facts.offered)
    if pace.concurrent is not None:
        left.append(pace.concurrent - facts.at_work)
    return max(0, min(left)) if left else None


def open_seconds(
    windows: tuple[MaintenanceWindow, ...], since: datetime, until: datetime, enough: float
) -> float:
    """How long any of the windows was open.

    Args:
        windows: without any it is always open.
        since: with a zone, as ``until``.
        until: the end of the time that is looked at.
        enough: seconds after which no more are counted.
    """
    at, total = since, 0.0
    for _ in range(_MAX_OPENINGS):
        if at >= until or total > enough:
            break
        seen = look(windows, at)
        end = until if seen.until is None else min(seen.until, until)
        if seen.open:
            total += (end - at).total_seconds()
        at = end
    return total


def open_for(
    windows: tuple[MaintenanceWindow, ...], since: datetime, seconds: float, end: datetime
) -> datetime:
    """When windows will have been open for so long, any of them.

    Args:
        windows: without any it is always open.
        since: with a zone, as ``end``.
        seconds: how long.
        end: the latest answer.
    """
    at, left = since, timedelta(seconds=seconds)
    for _ in range(_MAX_OPENINGS):
        seen = look(windows, at)
        until = end if seen.until is None else min(seen.until, end)
        if seen.open and at + left <= until:
            return at + left
        if until >= end:
            break
        left -= until - at if seen.open else timedelta(0)
        at = until
    return end
