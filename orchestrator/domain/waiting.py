"""How long a device may wait in the middle of an update: put off, for its window, for a word.

A device that waits says until when. It is believed as far as the rollout lets it wait, so that a
clock that is wrong, or a device that lies, holds no wave up for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from orchestrator.domain.timers import Timers, after
from schemas.maintenance import for_download, look, opens
from schemas.pace import MaintenanceWindow, Urgency
from schemas.rollout import ExecState

WAITS = frozenset({ExecState.DEFERRED, ExecState.STAGED})
"""States in which a device may be told to go on."""


@dataclass(frozen=True, slots=True)
class Wait:
    """What is known of a device that may be waiting.

    until: as it said. offered_at: when it was offered the version. proceed: it is told to go on;
    told: and the broker has the word.
    """

    offered_at: datetime
    until: datetime | None = None
    proceed: bool = False
    told: bool = False


def due_at(state: ExecState, since: datetime, timers: Timers, wait: Wait) -> datetime | None:
    """When the timer of a device that may be waiting runs out; None where nothing is waited for.

    Args:
        state: ACCEPTED, DEFERRED or STAGED.
        since: its last report.
        timers: of its rollout.
        wait: what else is known.
    """
    if state in WAITS and wait.proceed:
        return after(since, timers.step) if wait.told else None
    if state is ExecState.STAGED and timers.mode.urgency is Urgency.DOWNLOAD_ONLY:
        return None
    windows = timers.windows if state is ExecState.STAGED else for_download(timers.windows)
    until = wait.until or _opening(windows, since)
    if until is None:
        jitter = timers.jitter if state is ExecState.ACCEPTED else 0.0
        return after(since, timers.step + jitter)
    last = latest(state, since, timers, wait.offered_at)
    return after(max(since, until if last is None else min(until, last)), timers.step)


def latest(
    state: ExecState, now: datetime, timers: Timers, offered_at: datetime
) -> datetime | None:
    """Until when a device may wait at most; None where its windows never open again."""
    windows = timers.windows if state is ExecState.STAGED else for_download(timers.windows)
    end = after(offered_at, timers.offer + timers.jitter)
    match timers.mode.urgency:
        case Urgency.SOFT | Urgency.DOWNLOAD_ONLY:
            end = after(end, timers.deferral)
        case Urgency.TIME_FORCED if timers.mode.force_at is not None:
            end = max(end, timers.mode.force_at)
        case _:
            pass
    if not windows or (end > now and look(windows, end).open):
        return end
    return _next(windows, max(end, now))


def _opening(windows: tuple[MaintenanceWindow, ...], at: datetime) -> datetime | None:
    """When closed windows open; None where they are open, or there are none."""
    seen = look(windows, at)
    return None if seen.open else seen.until


def _next(windows: tuple[MaintenanceWindow, ...], at: datetime) -> datetime | None:
    found = (opens(window, at) for window in windows)
    return min((one for one in found if one is not None), default=None)
