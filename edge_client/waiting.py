"""Why an update waits before its download and before its swap, and until when: decisions only.

By the server's time: a device's own clock may say anything. One that never learned the server's
since the machine started begins nothing in which a time has a say.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass
from enum import StrEnum

from schemas.maintenance import for_download, look
from schemas.pace import MaintenanceWindow, Urgency
from schemas.rollout import Assignment


class Why(StrEnum):
    """What an update waits for.

    JITTER: its own moment, so that a fleet does not begin at once. WINDOW: a maintenance window.
    PUT_OFF: an operator of the device did not want it yet. WORD: it is to be downloaded only.
    NO_TIME: the server's time, without which none of these is known.
    """

    JITTER = "jitter"
    WINDOW = "window"
    PUT_OFF = "put_off"
    WORD = "word"
    NO_TIME = "no_time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Why an update waits. until: when it goes on by itself; None if nobody knows, or never."""

    why: Why
    until: dt.datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """What an update's waits depend on, besides its assignment.

    accepted_at: when it was accepted, or the first time known after. put_off_until: what an
    operator of the device asked for. proceed: somebody said that it is to go on, whatever holds it.
    """

    accepted_at: dt.datetime | None = None
    put_off_until: dt.datetime | None = None
    proceed: bool = False


UNTIMED = Timing()
"""Of an update of which nothing is known yet."""


def before_download(
    assignment: Assignment, timing: Timing, now: dt.datetime | None, *, begun: bool = False
) -> Hold | None:
    """Why its download waits.

    Args:
        assignment: what is offered, and how urgent it is.
        timing: of this update.
        now: the server's time; None while it is not known.
        begun: it is under way, so that only the end of a window that covers all stops it.
    """
    if timing.proceed:
        return None
    windows = for_download(assignment.windows)
    jittered = assignment.jitter_seconds > 0 and not begun
    put_off = None if begun else timing.put_off_until
    if not (windows or jittered or put_off):
        return None
    if now is None:
        return Hold(why=Why.NO_TIME)
    holds = [Hold(why=Why.PUT_OFF, until=put_off)] if put_off else []
    if jittered:
        holds.append(Hold(why=Why.JITTER, until=_own_moment(assignment, timing.accepted_at or now)))
    return _last(holds, windows, now)


def before_swap(assignment: Assignment, timing: Timing, now: dt.datetime | None) -> Hold | None:
    """Why the swap of a staged model waits. Arguments as in ``before_download``."""
    if timing.proceed:
        return None
    if assignment.mode.urgency is Urgency.DOWNLOAD_ONLY:
        return Hold(why=Why.WORD)
    put_off = timing.put_off_until
    if not (assignment.windows or put_off):
        return None
    if now is None:
        return Hold(why=Why.NO_TIME)
    holds = [Hold(why=Why.PUT_OFF, until=put_off)] if put_off else []
    return _last(holds, assignment.windows, now)


def _last(
    holds: list[Hold], windows: tuple[MaintenanceWindow, ...], now: dt.datetime
) -> Hold | None:
    """What lasts longest: a window has to be open once all else is over."""
    latest, at = None, now
    for hold in holds:
        if hold.until is not None and hold.until > at:
            latest, at = hold, hold.until
    seen = look(windows, at)
    return latest if seen.open else Hold(why=Why.WINDOW, until=seen.until)


def needs_beginning(assignment: Assignment) -> bool:
    """Whether it matters when an update was accepted."""
    return assignment.jitter_seconds > 0 or assignment.mode.urgency is Urgency.SOFT


def share(assignment: Assignment) -> float:
    """Of its jitter, 0 to 1: the same after a restart, another one for the next attempt."""
    text = f"{assignment.device}/{assignment.execution}/{assignment.attempt}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64


def _own_moment(assignment: Assignment, accepted_at: dt.datetime) -> dt.datetime:
    return accepted_at + dt.timedelta(seconds=assignment.jitter_seconds * share(assignment))


def put_off_to(
    assignment: Assignment, timing: Timing, seconds: float, now: dt.datetime
) -> dt.datetime | str:
    """Until when an operator of the device may put an update off who wants to for so long.

    Returns:
        That time, at most the latest that the rollout allows; or why it may not be put off.
    """
    match assignment.mode.urgency:
        case Urgency.FORCED:
            return "this update is forced: it may not be put off"
        case Urgency.DOWNLOAD_ONLY:
            return "this update waits for a word anyway, once it is there"
        case Urgency.TIME_FORCED:
            latest = assignment.mode.force_at or now
        case Urgency.SOFT:
            longest = dt.timedelta(seconds=assignment.max_deferral_seconds)
            latest = (timing.accepted_at or now) + longest
    if latest <= now:
        return f"this update may not be put off any longer: that ended at {date(latest)}"
    return min(now + dt.timedelta(seconds=seconds), latest)


def in_words(hold: Hold) -> str:
    """Why an update waits, as it is reported and shown."""
    until = "" if hold.until is None else f" until {date(hold.until)}"
    match hold.why:
        case Why.JITTER:
            return f"waits out its random part of the jitter{until}"
        case Why.WINDOW:
            never = "" if until else ", of which none will open"
            return f"waits for a maintenance window{until}{never}"
        case Why.PUT_OFF:
            return f"put off by hand, at the device{until}"
        case Why.WORD:
            return "was only to be downloaded, and waits for a word"
        case Why.NO_TIME:
            return "does not know the time: it waits until the server says it"


def date(moment: dt.datetime) -> str:
    """A time by the server's clock, as it is shown."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
