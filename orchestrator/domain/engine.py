"""The rollout engine: what to do next, from a summary of one rollout.

``decide`` is level-triggered: it looks at what is, never at what it did before. Asked
twice about the same snapshot it answers the same, and asked about the outcome of its
own answer it moves on. What it answers is about sets of executions.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from orchestrator.domain.actions import (
    Action,
    Bar,
    Expire,
    Extend,
    GiveUp,
    MoveRollout,
    MoveWave,
    Offer,
    Proceed,
    Restamp,
    Retry,
    Sift,
    Straggle,
)
from orchestrator.domain.judge import hopeless
from orchestrator.domain.rollout import RolloutEvent, WaveEvent
from orchestrator.domain.snapshot import Snapshot, WaveFacts, open_wave
from orchestrator.domain.timers import MAX_SECONDS, expired
from orchestrator.domain.verdict import judged, stopped
from schemas.rollout import ExecState, PauseReason, RolloutState, WaveState


def decide(snapshot: Snapshot, now: datetime) -> tuple[Action, ...]:
    """What to do now; nothing unless the rollout is running."""
    if snapshot.state is not RolloutState.RUNNING:
        return ()
    if snapshot.unreadable:
        return (MoveRollout(RolloutEvent.PAUSE, PauseReason.UNREADABLE),)
    return _go_on(snapshot, now)


def _go_on(snapshot: Snapshot, now: datetime) -> tuple[Action, ...]:
    wave = open_wave(snapshot.waves)
    if wave is None:
        return () if snapshot.dynamic else (MoveRollout(RolloutEvent.FINISH),)
    match wave.state:
        case WaveState.PENDING:
            return (MoveWave(wave.index, WaveEvent.BEGIN), Sift(wave.index))
        case WaveState.RUNNING:
            return _run(wave, snapshot, now)
        case WaveState.SOAKING:
            return _soak(wave, snapshot, now)
        case WaveState.JUDGING if wave.ungated:
            return (MoveWave(wave.index, WaveEvent.PASS),)
        case WaveState.JUDGING:
            return judged(wave, snapshot, now)
        case _:
            # Failed or inconclusive while running: an operator resumed, so look again.
            return (MoveWave(wave.index, WaveEvent.REJUDGE),)


def _run(wave: WaveFacts, snapshot: Snapshot, now: datetime) -> tuple[Action, ...]:
    return (
        _fail(wave, snapshot) or _advance(wave, deaf=snapshot.deaf) or _settle(wave, snapshot, now)
    )


def _fail(wave: WaveFacts, snapshot: Snapshot) -> tuple[Action, ...]:
    """The end of a wave in which too many have failed; nothing where it may go on."""
    evidence = () if wave.ungated else hopeless(wave.ends, snapshot.gates)
    if not evidence:
        return ()
    move = MoveWave(wave.index, WaveEvent.FAIL, evidence)
    return (move, stopped(snapshot, PauseReason.ERROR_THRESHOLD))


def _advance(wave: WaveFacts, *, deaf: bool) -> tuple[Action, ...]:
    """What moves single executions, by sets."""
    actions: list[Action] = []
    if wave.barred:
        actions.append(Bar(wave.index))
    if wave.retries:
        actions.append(Retry(wave.index))
    due = [] if deaf else [one for one, n in wave.due.items() if n]
    if wave.closed:
        due = [one for one in due if one.state is not ExecState.UNKNOWN]
    if wave.proceed:
        actions.append(Proceed(wave.index))
    if any(one.state is ExecState.PROBATION for one in due):
        # A device judges for itself and reports the end; until then its telemetry is the sign
        # that it gets on. What this extends is not due any more when the next action comes.
        actions.append(Extend(wave.index))
    for one in sorted(due, key=lambda d: (d.state, d.online)):
        becomes = expired(one.state, online=one.online)
        if becomes is not None:
            actions.append(Expire(wave.index, one, becomes))
    if wave.ahead:
        actions.append(Restamp(wave.index))
    if wave.ready:
        actions.append(Offer(wave.index))
    return tuple(actions)


def _settle(wave: WaveFacts, snapshot: Snapshot, now: datetime) -> tuple[Action, ...]:
    if wave.in_flight:
        return ()
    waiting = wave.counts.get(ExecState.SCHEDULED, 0)
    if not waiting:
        return (MoveWave(wave.index, WaveEvent.SETTLED),)
    if wave.later:
        return ()  # its next attempt is near, whether anybody is there or not
    if wave.paced or wave.closed:
        return ()  # nobody is missed who could not have been asked
    if wave.stragglers:
        patience = min(snapshot.timers.straggler, MAX_SECONDS)
        over = snapshot.timers.waited(wave.entered_at, now, patience) > patience
        gone = waiting > wave.held
        return (GiveUp(wave.index),) if gone and over and not snapshot.deaf else ()
    if wave.held:
        return ()  # what its devices do for others has timers of its own
    if waiting == wave.size and not (wave.ungated or wave.joiners):
        return ()  # nobody was there yet: a wave without devices proves nothing
    return (Straggle(wave.index),)


def _soak(wave: WaveFacts, snapshot: Snapshot, now: datetime) -> tuple[Action, ...]:
    """Wait, unless what had succeeded is put back by so many that there is nothing to wait for."""
    if failed := _fail(wave, snapshot):
        return failed
    soaks = now - wave.entered_at < timedelta(seconds=snapshot.gates.soak_seconds)
    if soaks and not wave.ungated:
        return ()
    return (MoveWave(wave.index, WaveEvent.SOAKED),)
