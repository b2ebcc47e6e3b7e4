"""One device in one rollout: the server's side of its life, as one transition table.

The device is the truth of what it does: a report with a higher number moves the
record to whatever the device says, as long as the device's own machine could have
got there. The server adds the ends that a device cannot see for itself. Whatever a device
does after an end is kept beside it (``late``) and moves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from schemas.errors import DeviceCause
from schemas.rollout import DEVICE_TERMINAL, EXEC_TERMINAL, SERVER_TERMINAL, ExecState

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
_BEFORE_POINTER = (
    S.OFFERED,
    S.ACCEPTED,
    S.DEFERRED,
    S.DOWNLOADING,
    S.VERIFIED,
    S.STAGED,
    S.SHADOWING,
)


def _table() -> dict[ExecState, frozenset[ExecState]]:
    """Every state that a report may lead to, by the state it finds.

    Forward jumps are legal: reports in between may have been lost with a queue. Before
    the pointer moves a device may also start over, as after a damaged disk.
    """
    table: dict[ExecState, frozenset[ExecState]] = {}
    for rank, state in enumerate(_ORDER[:-1]):
        table[state] = frozenset(_ORDER[rank:]) - {S.OFFERED} | DEVICE_TERMINAL
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
RETRIED_BY_HAND = FAILURES | {S.REMOVED, S.NO_VARIANT}
"""Ends after which an operator may ask for another attempt."""
AT_WORK = IN_FLIGHT - {S.OFFERED, S.UNKNOWN}
"""The device has taken the offer up, and was heard of since."""


@dataclass(frozen=True, slots=True)
class Execution:
    """What the machine needs to know.

    seq: the highest report number of the attempt. offered: an assignment was signed, so
    the device may know of it whatever the state says. previous: what it was before the server
    ended it or lost sight of it. late: what the device did after the end. retryable: it failed
    by what may pass.
    """

    state: ExecState = S.SCHEDULED
    attempt: int = 1
    seq: int = -1
    offered: bool = False
    previous: ExecState | None = None
    late: ExecState | None = None
    cause: DeviceCause | None = None
    detail: str | None = None
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class Offered:
    """The desired state was sent to a device that is there."""


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The device vanished before it answered the offer."""


@dataclass(frozen=True, slots=True)
class Vanished:
    """The device vanished in the middle; the record holds its place until it is back."""


@dataclass(frozen=True, slots=True)
class Retried:
    """It failed by what may pass: the next attempt is to be offered.

    by_hand: an operator asks for it, whatever it ended by.
    """

    by_hand: bool = False


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The device is back and knows nothing of it: it lost its journal.

    It numbers its reports anew, so it is offered as another attempt.
    """


@dataclass(frozen=True, slots=True)
class Reported:
    """The device says where it stands."""

    attempt: int
    seq: int
    state: ExecState
    cause: DeviceCause | None = None
    detail: str | None = None
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """A birth says where the device stands by its journal; seq is of its last report."""

    attempt: int
    seq: int
    state: ExecState


@dataclass(frozen=True, slots=True)
class Ended:
    """The server ends it: a member of ``SERVER_TERMINAL``."""

    state: ExecState
    detail: str | None = None


Event = Offered | Withdrawn | Vanished | Retried | Forgotten | Reported | Found | Ended


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
        case Reported():
            return _report(execution, event)
        case Found():
            return _found(execution, event)
        case Ended():
            return _end(execution, event)
        case _:
            return _by_server(execution, event)


def _by_server(
    execution: Execution, event: Offered | Withdrawn | Vanished | Retried | Forgotten
) -> Step:
    """What the server does with an execution that is to go on."""
    state = execution.state
    match event:
        case Offered() if state is S.SCHEDULED:
            return replace(execution, state=S.OFFERED, offered=True), (Announce(),)
        case Withdrawn() if state is S.OFFERED:
            return replace(execution, state=S.SCHEDULED), (Announce(), ClearDesired())
        case Vanished() if state in AT_WORK:
            return replace(execution, state=S.UNKNOWN, previous=state), (Announce(),)
        case Retried() if _may_retry(execution, event):
            return _next_attempt(execution, S.SCHEDULED), (Announce(),)
        case Forgotten() if state in IN_FLIGHT:
            again = replace(execution, cause=None, detail="the device lost its journal")
            return _next_attempt(again, S.OFFERED), (Announce(),)
        case _:
            return execution, ()


def _may_retry(execution: Execution, event: Retried) -> bool:
    if event.by_hand:
        return execution.state in RETRIED_BY_HAND
    return execution.state is S.FAILED and execution.retryable


def _next_attempt(execution: Execution, state: ExecState) -> Execution:
    return replace(
        execution,
        state=state,
        attempt=execution.attempt + 1,
        seq=-1,
        previous=None,
        late=None,
        retryable=False,
    )


def _end(execution: Execution, event: Ended) -> Step:
    if event.state not in SERVER_TERMINAL:
        return execution, (Note(f"{event.state} is the device's to report"),)
    if execution.state in EXEC_TERMINAL:
        return execution, ()
    ended = replace(
        execution,
        state=event.state,
        previous=execution.state,
        detail=event.detail,
        cause=None,
        retryable=False,
    )
    stop: tuple[Action, ...] = (SendCancel(),) if execution.offered else ()
    return ended, (Announce(), *stop)


def _found(execution: Execution, event: Found) -> Step:
    """Go to where the device is, which its reports have not told yet.

    The report that the birth speaks of still counts when it comes, as it says more. So an end is
    not taken from a birth: it has a cause, and the device repeats it when it is offered again.
    But that a model was put back by hand is said by nothing else if its report was lost.
    """
    if event.attempt != execution.attempt or not execution.offered:
        return execution, ()
    if execution.state is S.SUCCEEDED and event.state is S.ROLLED_BACK:
        late = execution.late is None
        return replace(execution, late=S.ROLLED_BACK), (Announce(),) if late else ()
    if event.state in DEVICE_TERMINAL or execution.state in EXEC_TERMINAL:
        return execution, ()
    if event.seq <= execution.seq and execution.state is not S.UNKNOWN:
        return execution, ()
    if event.state not in REPORTS[execution.state]:
        return execution, (Note(f"{execution.state} does not lead to {event.state}"),)
    seq = max(execution.seq, event.seq - 1)
    moved = replace(execution, state=event.state, seq=seq, previous=None)
    return moved, (Announce(),) if event.state is not execution.state else ()


def _report(execution: Execution, event: Reported) -> Step:
    if event.attempt < execution.attempt:
        return _outdated(execution, event)
    if event.attempt > execution.attempt:
        return execution, (Note(f"a report on attempt {event.attempt}, which was never offered"),)
    if event.seq <= execution.seq:
        return execution, ()
    if not execution.offered:
        return execution, (Note(f"a report on what was never offered: {event.state}"),)
    heard = replace(execution, seq=event.seq)
    if execution.state in EXEC_TERMINAL:
        return _late_report(heard, event)
    if event.state not in REPORTS[execution.state]:
        return heard, (Note(f"{execution.state} does not lead to {event.state}"),)
    return _taken(heard, event), (Announce(),)


def _taken(execution: Execution, event: Reported) -> Execution:
    return replace(
        execution,
        state=event.state,
        previous=None,
        cause=event.cause,
        detail=event.detail,
        retryable=event.retryable and event.state is S.FAILED,
    )


def _outdated(execution: Execution, event: Reported) -> Step:
    """An attempt that was given up: the next one brings the device to the same place.

    Where there is no next one, what the device did is kept.
    """
    did = event.state in {S.SUCCEEDED, S.ROLLED_BACK}
    if not did or execution.state not in SERVER_TERMINAL or execution.late is not None:
        return execution, ()
    return replace(execution, late=event.state), (Announce(),)


def _late_report(execution: Execution, event: Reported) -> Step:
    """A report on what is over.

    A device that had gone too far to be cancelled returns to its record. After any other end
    what it did is kept as late: it corrects the inventory, never the figures of the wave.
    """
    if execution.state is S.CANCELLED:
        if event.state in TOO_LATE_TO_CANCEL or event.state in {S.SUCCEEDED, S.ROLLED_BACK}:
            return _taken(execution, event), (Announce(),)
    elif event.state in DEVICE_TERMINAL:
        stopped = execution.state in SERVER_TERMINAL and event.cause is DeviceCause.CANCELLED
        if event.state is execution.state or stopped:
            # It stopped as it was told to: why it was told is what counts.
            return execution, ()
        detail = event.detail or execution.detail
        late = replace(execution, late=event.state, cause=event.cause, detail=detail)
        return late, (Announce(),)
    if execution.state in DEVICE_TERMINAL or event.state in DEVICE_TERMINAL:
        return execution, ()
    if event.cause is DeviceCause.CANCEL_TOO_LATE:
        return execution, ()  # it heard that it should stop; its end follows
    # It works on what was ended: the word that it should stop was lost.
    return execution, (SendCancel(),)
