"""Whether a device went dark: after it switched, or while others did."""

from __future__ import annotations

from dataclasses import dataclass

LEAST_SECONDS = 180.0
"""In peace windows come every minute; three of them may be missed."""

MISSED = 3.0
"""So many windows in a row are waited for."""


@dataclass(frozen=True, slots=True)
class Signs:
    """What was heard of a device.

    since: from when on it is looked at; last: the end of its last window since then, None where
    none came. Both in seconds since 1970. online: whether it is there now. worked: it inferred
    before. cadence: seconds from one of its windows to the next, before.
    """

    since: float
    last: float | None
    online: bool
    worked: bool
    cadence: float = 60.0


def patience(cadence: float, soak_seconds: float) -> float:
    """Seconds of silence that say nothing yet."""
    return max(LEAST_SECONDS, soak_seconds, MISSED * cadence)


def is_silent(signs: Signs, soak_seconds: float, now: float) -> bool:
    """Whether its silence is to be held against the version.

    A device that worked before and has told of no inference since, or that was heard for a
    while at most and is gone. One that is there and that nobody asked before is idle, not silent.
    """
    waited = patience(signs.cadence, soak_seconds)
    if signs.last is None:
        return now - signs.since > waited and (signs.worked or not signs.online)
    soon = signs.last - signs.since <= waited
    return not signs.online and soon and now - signs.last > waited
