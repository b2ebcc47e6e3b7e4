"""One device in one rollout: the server's side of its life, as one transition table.

The device is the truth of what it does: a report with a higher number moves the
record to whatever the device says, as long as the device's own machine could have
got there. The server adds the ends that a device cannot see for itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from schemas.errors import DeviceCause
from schemas.rollout import EXEC_TERMINAL, SERVER_TERMINAL, ExecState

S = ExecState

_ORDER = (
    S.OFFERED,
    S.ACCEPTED,
    S.DOWNLOADING,
    S.VERIFIED,
    S.STAGED,
    S.SHADOWING,
    S.ACTIVATING,
    S.PROBATION,
    S.SUCCEEDED,
)
_ENDS = frozenset({S.SUCCEEDED, S.FAILED, S.REJECTED, S.ROLLED_BACK})
_BEFORE_POINTER = (S.OFFERED, S.ACCEPTED, S.DEFERRED, S.DOWNLOADING, S.VERIFIED, S.STAGED)


def _table() -> dict[ExecState, frozenset[ExecState]]:
    """Every state that a report may lead to, by the state it finds.

    Forward jumps are legal: reports in between may have been lost with a queue. Before
    the pointer moves a device may also start over, as after a damaged disk.
    """
    table: dict[ExecState, frozenset[ExecState]] = {}
    for rank, state in enumerate(_ORDER[:-1]):
        table[state] = frozenset(_ORDER[rank:]) - {S.OFFERED} | _ENDS
    for state in _BEFORE_POINTER:
        again = {S.ACCEPTED, S.DEFERRED, S.DOWNLOADING, S.VERIFIED, S.STAGED}
        table[state] = table.get(state, table[S.OFFERED]) | again
    # Withdrawn from a device that had vanished, which may have heard the offer all the same.
    table[S.SCHEDULED] = table[S.OFFERED]
    table[S.UNKNOWN] = table[S.OFFERED] | {S.DEFERRED}
    for state in EXEC_TERMINAL:
        table[state] = frozenset()
    return table


REPORTS = _table()
IN_FLIGHT = frozenset(S) - EXEC_TERMINAL - {S.SCHEDULED}
TOO_LATE_TO_CANCEL = frozenset({S.ACTIVATING, S.PROBATION})
FAILURES = frozenset({S.FAILED, S.ROLLED_BACK, S.REJECTED, S.TIMED_OUT})
"""Ends that count against the version."""


@dataclass(frozen=True, slots=True)
class Execution:
    """What the machine needs to know.

    seq: the highest report number of the attempt. offered: an assignment was signed, so
    the device may know of it whatever the state says. previous: what a cancelled record
    was, so that it can return there. late: an end that came after the server's own.
    """

    state: ExecState = S.SCHEDULED
    attempt: int = 1
    seq: int = -1
    offered: bool = False
    previous: ExecState | None = None
    late: ExecState | None = None
    cause: DeviceCause | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Offered:
    """The desired state was sent to a device that is there."""


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The device vanished before it answered the offer."""


@dataclass(frozen=True, slots=True)
class Reported:
    """The device says where it stands."""

    attempt: int
    seq: int
    state: ExecState
    cause: DeviceCause | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """The server ends it: a member of ``SERVER_TERMINAL``."""

    state: ExecState
    detail: str | None = None


Event = Offered | Withdrawn | Reported | Ended


@dataclass(frozen=True, slots=True)
class Announce:
    """The record changed in a way that watchers see."""


@dataclass(frozen=True, slots=True)
class SendCancel:
    """The device works on it: tell it to stop."""


@dataclass(frozen=True, slots=True)
class ClearDesired:
    """What was offered is not to be found by the device when it comes back."""


@dataclass(frozen=True, slots=True)
class Note:
    """The event did not fit; the words are for the log."""

    text: str


Action = Announce | SendCancel | ClearDesired | Note
Step = tuple[Execution, tuple[Action, ...]]


def step(execution: Execution, event: Event, now: datetime) -> Step:  # noqa: ARG001 - one shape for every machine
    """Apply one event."""
    match event:
        case Offered():
            if execution.state is not S.SCHEDULED:
                return execution, ()
            return replace(execution, state=S.OFFERED, offered=True), (Announce(),)
        case Withdrawn():
            if execution.state is not S.OFFERED:
                return execution, ()
            return replace(execution, state=S.SCHEDULED), (Announce(), ClearDesired())
        case Ended():
            return _end(execution, event)
        case Reported():
            return _report(execution, event)


def _end(execution: Execution, event: Ended) -> Step:
    if event.state not in SERVER_TERMINAL:
        return execution, (Note(f"{event.state} is the device's to report"),)
    if execution.state in EXEC_TERMINAL:
        return execution, ()
    ended = replace(
        execution, state=event.state, previous=execution.state, detail=event.detail, cause=None
    )
    stop: tuple[Action, ...] = (SendCancel(),) if execution.offered else ()
    return ended, (Announce(), *stop)


def _report(execution: Execution, event: Reported) -> Step:
    if event.attempt != execution.attempt or event.seq <= execution.seq:
        return execution, ()
    if not execution.offered:
        return execution, (Note(f"a report on what was never offered: {event.state}"),)
    heard = replace(execution, seq=event.seq)
    if execution.state in SERVER_TERMINAL:
        return _late_report(heard, event)
    if event.state not in REPORTS[execution.state]:
        return heard, (Note(f"{execution.state} does not lead to {event.state}"),)
    moved = replace(heard, state=event.state, cause=event.cause, detail=event.detail)
    return moved, (Announce(),)


def _late_report(execution: Execution, event: Reported) -> Step:
    """A device that had gone too far to be stopped returns to its record.

    After a time-out its end is kept as late: it corrects the inventory, never the
    figures of the wave.
    """
    if execution.state is S.CANCELLED:
        if event.state in TOO_LATE_TO_CANCEL or event.state in {S.SUCCEEDED, S.ROLLED_BACK}:
            back = replace(
                execution, state=event.state, previous=None, cause=event.cause, detail=event.detail
            )
            return back, (Announce(),)
        return execution, () if event.state in _ENDS else (SendCancel(),)
    if event.state in _ENDS:
        return replace(execution, late=event.state), (Announce(),)
    # It works on what was ended: the word that it should stop was lost.
    return execution, (SendCancel(),)
