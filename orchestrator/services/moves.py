"""Moving rollouts and executions: each move is saved, and watchers are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from orchestrator.domain import execution as executions
from orchestrator.domain import rollout as machine
from orchestrator.domain.rollout import Happened, RolloutEvent
from orchestrator.domain.timers import Timers, due_at, retry_at
from orchestrator.domain.waiting import WAITS, Wait
from orchestrator.domain.waiting import due_at as waiting_due_at
from orchestrator.errors import IllegalTransition, NotFound
from orchestrator.services.ports import Transaction
from orchestrator.services.records import Among, ExecutionRecord, Moved, RolloutRecord
from schemas.rollout import EXEC_TERMINAL, ExecState
from schemas.rollout import RolloutState as R

MAX_EVENTS = 1_000
"""Of a larger set that is moved at once, watchers are told by wave and not by device."""


def found(tx: Transaction, rollout_id: str, *, lock: bool = False) -> RolloutRecord:
    """A rollout's record.

    Raises:
        NotFound: there is none.
    """
    record = tx.rollouts.get(rollout_id, lock=lock)
    if record is None:
        msg = f"there is no rollout {rollout_id}"
        raise NotFound(msg, hint="`argosy rollout ls` lists them")
    return record


def unreadable(record: RolloutRecord) -> str | None:
    """Why nothing is done with a rollout whose plan cannot be read; None where it can."""
    if not record.unreadable:
        return None
    return f"this version of the server cannot read its plan: {'; '.join(record.unreadable)}"


def apply(
    tx: Transaction,
    record: RolloutRecord,
    event: Happened,
    now: datetime,
    *,
    because: str | None = None,
) -> RolloutRecord:
    """Move a rollout; a repeat changes nothing.

    Args:
        tx: in which it is saved.
        record: as it is.
        event: what happened.
        now: the time.
        because: why, in words, which stays with it until it goes on.

    Raises:
        IllegalTransition: its state does not allow the event.
    """
    rollout, actions = machine.step(record.machine(), event, now)
    for action in actions:
        if isinstance(action, machine.Refuse):
            raise IllegalTransition(action.detail)
    ended = now if rollout.state in machine.ROLLOUT_TERMINAL else None
    moved = replace(
        record,
        state=rollout.state,
        pause_reason=rollout.pause_reason,
        reason=because if actions else record.reason,
        revision=record.revision + (1 if actions else 0),
        started_at=record.started_at or (now if event.kind is RolloutEvent.START else None),
        ended_at=record.ended_at or ended,
        turned_at=record.turned_at or (now if rollout.state is R.ROLLING_BACK else None),
    )
    if actions:
        tx.rollouts.save(moved)
        announce(tx, moved, now)
    return moved


def end_executions(
    tx: Transaction, among: Among, state: ExecState, detail: str, now: datetime
) -> int:
    """End all of a set that has not ended; how many that were.

    A large set costs as many statements as a small one.
    """
    open_states = frozenset(ExecState) - EXEC_TERMINAL
    among = replace(among, states=among.states & open_states if among.states else open_states)
    by_wave = tx.executions.by_wave(among)
    total = sum(by_wave.values())
    if total <= MAX_EVENTS:
        moved = tx.executions.end(among, state, detail, now, limit=MAX_EVENTS)
        announce_moved(tx, moved, state, now, detail)
    else:
        tx.executions.end(among, state, detail, now)
        announce_waves(tx, among.rollout_id, by_wave, state, now)
    return total


def cancel_executions(tx: Transaction, record: RolloutRecord, why: str, now: datetime) -> None:
    """End what a rollout has not ended yet."""
    end_executions(tx, Among(rollout_id=record.id), ExecState.CANCELLED, why, now)


def move_execution(
    tx: Transaction,
    record: ExecutionRecord,
    event: executions.Event,
    now: datetime,
    timers: Timers | None = None,
) -> ExecutionRecord:
    """Apply an event to an execution, save and announce it.

    A server-side end of an execution that the device works on leaves the record
    unpublished: the control loop then withdraws the desired state and tells the device.
    Its timer begins anew with a change of state, and where ``record.updated_at`` is ``now``.

    Args:
        tx: what it is saved in.
        record: the execution as it is.
        event: what happened.
        now: the time.
        timers: of its rollout; looked up when they are left out.
    """
    moved, actions = moved_execution(tx, record, event, now, timers)
    if moved != record:
        tx.rollouts.save_execution(moved)
    if any(isinstance(action, executions.Announce) for action in actions):
        announce_execution(tx, moved, now)
    return moved


def moved_execution(
    tx: Transaction,
    record: ExecutionRecord,
    event: executions.Event,
    now: datetime,
    timers: Timers | None = None,
) -> tuple[ExecutionRecord, tuple[executions.Action, ...]]:
    """As ``move_execution``, but neither saved nor announced."""
    execution, actions = executions.step(record.machine(), event, now)
    moved = record.moved(execution)
    if (moved.state, moved.attempt) != (record.state, record.attempt):
        moved = replace(moved, updated_at=now)
    if moved.attempt != record.attempt:
        earlier = record.bytes_earlier + (record.bytes_fetched or 0)
        moved = replace(
            moved,
            bytes_done=None,
            bytes_total=None,
            bytes_fetched=None,
            bytes_earlier=earlier,
            waits_until=None,
            proceed=False,
        )
    if moved.state in EXEC_TERMINAL:
        moved = replace(moved, waits_until=None)
    if any(isinstance(a, executions.SendCancel | executions.ClearDesired) for a in actions):
        moved = replace(moved, published=False)
    if moved.proceed and moved.state in WAITS and moved.seq > record.seq:
        # It still waits, so the word that it should go on may have been lost.
        moved = replace(moved, published=False)
    if moved.updated_at == now:
        timers = timers or Timers.of(found(tx, record.rollout_id).spec)
        if moved.state is ExecState.SCHEDULED and event == executions.Retried():
            moved = replace(moved, due_at=retry_at(record.attempt, now, timers))
        else:
            moved = replace(moved, due_at=timer_of(moved, now, timers))
    return moved, actions


def timer_of(record: ExecutionRecord, since: datetime, timers: Timers) -> datetime | None:
    """When the timer of an execution runs out that begins anew now; None where it has none."""
    if record.state not in {ExecState.ACCEPTED, *WAITS}:
        return due_at(record.state, since, timers)
    offered = record.offered_at or since
    wait = Wait(offered, record.waits_until, record.proceed, record.published)
    return waiting_due_at(record.state, since, timers, wait)


def announce(tx: Transaction, record: RolloutRecord, now: datetime) -> None:
    """Tell watchers where a rollout stands."""
    data = {"state": record.state.value}
    if record.pause_reason is not None:
        data["pause_reason"] = record.pause_reason.value
    tx.events.add("rollout", record.id, data, now)


def announce_execution(tx: Transaction, record: ExecutionRecord, now: datetime) -> None:
    """Tell watchers where a device stands."""
    tx.events.add("execution", record.rollout_id, execution_data(record), now)


def execution_data(record: ExecutionRecord) -> Mapping[str, Any]:
    """What watchers are told of an execution."""
    data: dict[str, Any] = {
        "execution": record.id,
        "device": record.device_id,
        "wave": record.wave,
        "state": record.state.value,
    }
    optional = {
        "bytes_done": record.bytes_done,
        "bytes_total": record.bytes_total,
        "cause": record.cause and record.cause.value,
        "detail": record.detail,
    }
    return data | {key: value for key, value in optional.items() if value is not None}


def announce_moved(
    tx: Transaction,
    moved: Sequence[Moved],
    state: ExecState,
    now: datetime,
    detail: str | None = None,
) -> None:
    """Tell watchers of executions that a set moved to one state."""
    more = {} if detail is None else {"detail": detail}
    tx.events.add_all(
        "execution",
        (
            (
                one.rollout_id,
                {
                    "execution": one.id,
                    "device": one.device_id,
                    "wave": one.wave,
                    "state": state.value,
                    **more,
                },
            )
            for one in moved
        ),
        now,
    )


def announce_waves(
    tx: Transaction, rollout_id: str, moved: Mapping[int, int], state: ExecState, now: datetime
) -> None:
    """Tell watchers of a set that is too large to name each of it."""
    states = {wave.idx: wave.state for wave in tx.rollouts.waves(rollout_id)}
    tx.events.add_all(
        "wave",
        (
            (rollout_id, {"wave": wave, "state": states[wave].value, "moved": {state.value: n}})
            for wave, n in sorted(moved.items())
        ),
        now,
    )
