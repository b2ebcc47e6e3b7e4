"""Does what the engine decided: to sets of executions, to a wave, to the rollout."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from orchestrator.domain.actions import (
    Action,
    Bar,
    Expire,
    Extend,
    GiveUp,
    KeepLook,
    MoveRollout,
    MoveWave,
    Offer,
    Proceed,
    Restamp,
    Retry,
    Sift,
    Straggle,
    TakeLook,
)
from orchestrator.domain.rollout import Happened, WaveEvent, step_wave
from orchestrator.domain.timers import after, before, due_at, retry_at, why
from orchestrator.services import judging, looking, moves, offers
from orchestrator.services.looking import SCHEDULED, Look
from orchestrator.services.ports import Transaction
from orchestrator.services.records import Among, WaveRecord
from orchestrator.services.retries import stragglers_wave
from schemas.rollout import ExecState


def apply(tx: Transaction, look: Look, action: Action, now: datetime, because: str | None) -> bool:
    """Apply an action; whether those after it may follow in this round."""
    match action:
        case Extend():
            return _extend(tx, look, action, now) < looking.ROUND
        case MoveWave():
            _move_wave(tx, look.waves[action.index], action, now)
        case KeepLook():
            judging.keep(tx, look.waves[action.wave], action, now)
        case TakeLook():
            pass  # what it was taken of is not as it was then: the next round takes it
        case MoveRollout():
            happened = Happened(action.event, action.reason)
            moves.apply(tx, look.rollout, happened, now, because=because)
        case Offer():
            offers.offer(tx, look.rollout, look.waiting, now)
        case Proceed():
            waiting = _waiting(look, action.wave)
            moved = tx.executions.proceed(waiting, now, looking.ROUND)
            return len(moved) < looking.ROUND
        case Sift():
            offers.sift(tx, look.rollout, action.wave, now)
        case Expire():
            _expire(tx, look, action, now)
        case _:
            _apply_to_set(tx, look, action, now)
    return True


def _waiting(look: Look, wave: int) -> Among:
    return Among(rollout_id=look.rollout.id, wave=wave, waiting_since=look.rollout.activated_at)


def _extend(tx: Transaction, look: Look, action: Extend, now: datetime) -> int:
    """How many were extended; with as many as a round takes, there may be more that are due."""
    step = look.snapshot.timers.step
    since = before(now, step)
    windows = tx.executions.last_windows(look.rollout, action.wave, now, since, looking.ROUND)
    tx.executions.extend({i: after(at, step) for i, at in windows.items()})
    return len(windows)


def _apply_to_set(
    tx: Transaction,
    look: Look,
    action: Bar | Restamp | Retry | Straggle | GiveUp,
    now: datetime,
) -> None:
    rollout, timers = look.rollout, look.snapshot.timers
    its = Among(rollout_id=rollout.id, wave=action.wave)
    waiting = replace(its, states=SCHEDULED)
    match action:
        case Bar():
            among, why_not = replace(its, usable=False), "the device may no longer take part"
            moved = tx.executions.end(among, ExecState.REMOVED, why_not, now, looking.ROUND)
            moves.announce_moved(tx, moved, ExecState.REMOVED, now, why_not)
        case Retry():
            due = {n: retry_at(n, now, timers) for n in range(1, timers.max_attempts)}
            failed = replace(its, retryable_below=timers.max_attempts)
            moved = tx.executions.retry(failed, due, now, looking.ROUND)
            moves.announce_moved(tx, moved, ExecState.SCHEDULED, now)
        case Straggle():
            late = stragglers_wave(tx, rollout.id, now)
            tx.executions.put_in_wave(waiting, late.idx)
        case Restamp():
            tx.executions.restamp(rollout.id, now)
        case GiveUp():
            unseen = f"not seen in {timers.straggler:g} s"
            gone = replace(waiting, held=False)
            moves.end_executions(tx, gone, ExecState.REMOVED, unseen, now)


def _expire(tx: Transaction, look: Look, action: Expire, now: datetime) -> None:
    timers, state = look.snapshot.timers, action.due.state
    among = Among(
        rollout_id=look.rollout.id,
        wave=action.wave,
        states=frozenset({state}),
        due_by=now,
        online=None if state is ExecState.UNKNOWN else action.due.online,
    )
    detail = None
    match action.becomes:
        case ExecState.SCHEDULED:
            moved = tx.executions.withdraw(among, now, looking.ROUND)
        case ExecState.UNKNOWN:
            due = due_at(ExecState.UNKNOWN, now, timers) or now
            moved = tx.executions.vanish(among, due, now, looking.ROUND)
        case becomes:
            detail = why(state, timers)
            moved = tx.executions.end(among, becomes, detail, now, looking.ROUND)
    moves.announce_moved(tx, moved, action.becomes, now, detail)


def _move_wave(tx: Transaction, wave: WaveRecord, action: MoveWave, now: datetime) -> None:
    state = step_wave(wave.state, action.event)
    if state is wave.state:
        return
    moved = replace(wave, state=state, entered_at=now, evidence=action.evidence or wave.evidence)
    if action.look is not None:
        moved = replace(moved, looks=action.look, looked_at=now)
    if action.event is WaveEvent.REJUDGE:
        # A person has decided to go on: the looks, and what they may spend, begin anew.
        moved = replace(moved, looks=0, looked_at=None)
    tx.rollouts.save_wave(moved)
    data = {"wave": wave.idx, "state": state.value}
    tx.events.add("wave", wave.rollout_id, data, now)
