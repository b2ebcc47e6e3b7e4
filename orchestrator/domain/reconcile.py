"""What a birth says, held against what the server believes of the device.

The device is the truth of where it stands and of what it serves; the server is the truth of
what it should. A birth carries the device's side (``schemas.device.Birth``), so whatever was
lost on the way, in either direction, shows in the next one. Pure: the facts in, what to do out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

from orchestrator.domain.execution import AT_WORK, IN_FLIGHT, TOO_LATE_TO_CANCEL, Found
from schemas.device import ActiveModel, ExecutionSeen
from schemas.errors import DeviceCause
from schemas.rollout import DEVICE_REPORTED, DEVICE_TERMINAL, SERVER_TERMINAL, ExecState

S = ExecState

QUIET = timedelta(seconds=15)
"""So long after the last change a heartbeat that does not know of it means that it was lost."""


MAX_ATTEMPTS = 50
"""A device that loses its journal at each start would else hold its wave up for ever."""


@dataclass(frozen=True, slots=True)
class Known:
    """The newest execution that a device was given, as the server has it.

    published: the broker has what tells the device of it. changed_at: when its state, or the
    device's progress, last changed.
    """

    execution: str
    attempt: int
    seq: int
    state: ExecState
    late: ExecState | None
    published: bool
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class Told:
    """What a birth tells of executions.

    connected: it is the first of its connection. started: it is the first of its boot, so
    what it tells is what the agent read from its journal. serves: the models that it has.
    """

    seen: ExecutionSeen | None
    connected: bool
    started: bool
    serves: frozenset[str]
    rolled_back: bool = False


@dataclass(frozen=True, slots=True)
class Tell:
    """Send the device again what it should have: the offer, or that it is over.

    To an offer that it ended before, a device answers with the report of the end.
    """


@dataclass(frozen=True, slots=True)
class Restart:
    """The device lost its journal in the middle: offer it as the next attempt."""


Act: TypeAlias = Tell | Restart | Found


def decide(known: Known | None, told: Told, now: datetime) -> tuple[Act, ...]:
    """What to do about a device's newest execution.

    Args:
        known: None if it was never given one.
        told: by a birth that is neither late nor a repeat by the broker.
        now: of the server.
    """
    if known is None:
        return ()
    seen = told.seen if _is(known, told.seen) else None
    if known.state in IN_FLIGHT:
        acts = _same(known, seen) if seen is not None else _strange(known, told, now)
    elif known.state in SERVER_TERMINAL:
        acts = _over(known, told, seen)
    elif known.state is S.SUCCEEDED:
        acts = _done(known, told, seen)
    else:
        acts = ()
    # What is on its way already need not be sent twice.
    return tuple(act for act in acts if known.published or not isinstance(act, Tell))


def _is(known: Known, seen: ExecutionSeen | None) -> bool:
    return seen is not None and (seen.execution, seen.attempt) == (known.execution, known.attempt)


def _same(known: Known, seen: ExecutionSeen) -> tuple[Act, ...]:
    """It works on what it should, or has ended it, and the report of it was lost."""
    state = _state(seen)
    if state is None:
        return ()
    if state in DEVICE_TERMINAL:
        return (Tell(),)
    if seen.seq > known.seq or known.state is S.UNKNOWN:
        return (Found(seen.attempt, seen.seq, state),)
    return ()


def _strange(known: Known, told: Told, now: datetime) -> tuple[Act, ...]:
    """It does not know what it should be working on."""
    if known.state in AT_WORK or known.state is S.UNKNOWN:
        # It took the offer up once. Only what a boot read from its journal proves the loss;
        # a later birth may have been overtaken by a report.
        if told.started:
            return (Restart(),) if known.attempt < MAX_ATTEMPTS else ()
        return (Tell(),) if told.connected else ()
    overdue = now - known.changed_at >= QUIET
    return (Tell(),) if told.connected or overdue else ()


def _over(known: Known, told: Told, seen: ExecutionSeen | None) -> tuple[Act, ...]:
    """The server ended it."""
    if seen is None:
        mine = told.seen is not None and told.seen.execution == known.execution
        works = mine and _state(told.seen) not in DEVICE_TERMINAL
        return (Tell(),) if works or (told.connected and told.seen is None) else ()
    state = _state(seen)
    if state in DEVICE_TERMINAL:
        return (Tell(),) if seen.seq > known.seq else ()
    if state in TOO_LATE_TO_CANCEL and known.state is not S.CANCELLED:
        # It will end by itself, and has heard of it if anybody told it in this connection.
        return (Tell(),) if told.connected else ()
    return (Tell(),)


def _done(known: Known, told: Told, seen: ExecutionSeen | None) -> tuple[Act, ...]:
    """It was put into service."""
    if seen is not None:
        undone = told.rolled_back and seen.state == S.ROLLED_BACK and known.late is None
        return (Found(seen.attempt, seen.seq, S.ROLLED_BACK),) if undone else ()
    return ()


def _state(seen: ExecutionSeen | None) -> ExecState | None:
    """The state that a device tells of; None for one that this version does not know."""
    names = {state.value: state for state in DEVICE_REPORTED}
    return None if seen is None else names.get(seen.state)


def above_floor(
    state: ExecState, cause: DeviceCause | None, sequence: int, now: datetime
) -> int | None:
    """The sequence for an offer that the device refused as older than what it had accepted.

    So it is after the database was restored from a backup. The time of day, in seconds, is
    above whatever was counted before; None when that is not the fault, or was tried.
    """
    if state is not S.REJECTED or cause is not DeviceCause.BELOW_FLOOR:
        return None
    higher = int(now.timestamp())
    # Whoever refuses also what was numbered by the clock is not helped by a later second.
    return higher if sequence < higher - 86400 else None


@dataclass(frozen=True, slots=True)
class Given:
    """A model that a device was given by an execution, or was found to have then.

    late: what it did after the end that ``state`` says.
    """

    execution: str
    model: ActiveModel
    state: ExecState
    late: ExecState | None = None


def strange(active: Iterable[ActiveModel], given: Iterable[Given]) -> tuple[ActiveModel, ...]:
    """What of it a device was never given: it may serve a file as the model that it is of only."""
    known = {(one.model.model, one.model.sha256) for one in given}
    return tuple(one for one in active if (one.model, one.sha256) not in known)


def is_drifted(active: Iterable[ActiveModel], given: Iterable[Given]) -> bool:
    """Whether a device serves anything that it was never given."""
    return bool(strange(active, given))


def serving_too(active: Iterable[ActiveModel], new: ActiveModel) -> tuple[ActiveModel, ...]:
    """What a device serves once it serves ``new``, by model."""
    others = [one for one in active if one.model != new.model]
    return tuple(sorted((*others, new), key=lambda one: one.model))


def desired_of(given: Iterable[Given]) -> tuple[ActiveModel, ...]:
    """What a device should serve, by model, from what it was given, newest first.

    Of each model the newest that is under way, or was put into service; what failed or was called
    off is not desired any more. One that was put back by hand still is.
    """
    return tuple(one.model for one in _wanted(given))


def lost(
    given: Iterable[Given], serves: Collection[str], *, before: str | None = None
) -> str | None:
    """An execution to be offered once more, for its model was put into service and is gone.

    Args:
        given: to a device that is at work on nothing, newest first.
        serves: the models that it has.
        before: the one that was offered once more last, if any.

    A device takes one at a time, and its success leads to the next, which is an older one: so it
    ends, whatever the device does.
    """
    gone = (
        one.execution
        for one in _wanted(given)
        if one.state is S.SUCCEEDED and one.late is None and one.model.model not in serves
    )
    return max((one for one in gone if before is None or one < before), default=None)


def _wanted(given: Iterable[Given]) -> list[Given]:
    kept = IN_FLIGHT | {S.SUCCEEDED, S.ALREADY_INSTALLED}
    newest: dict[str, Given] = {}
    for one in given:
        if one.state in kept or one.late is S.SUCCEEDED:
            newest.setdefault(one.model.model, one)
    return [newest[model] for model in sorted(newest)]
