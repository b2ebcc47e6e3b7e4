"""Runs rollouts: snapshot, decide, apply. ``publisher`` then tells the devices.

A round asks the database for sums and for what is due, and moves sets of executions: it takes
as many statements for a hundred thousand devices as for ten.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from orchestrator.domain import engine
from orchestrator.domain.engine import Snapshot, WaveFacts
from orchestrator.domain.rollout import Happened, step_wave
from orchestrator.domain.timers import Timers, after, before, due_at, retry_at, why
from orchestrator.services import moves, offers
from orchestrator.services.hearing import Hearing
from orchestrator.services.ports import Clock, Transaction, UnitOfWork
from orchestrator.services.records import Among, RolloutRecord, Waiting, WaveRecord
from orchestrator.services.retries import stragglers_wave
from schemas.rollout import ExecState, RolloutState, WaveState

log = logging.getLogger(__name__)

ROUND = 1_000
"""Executions that one action of a round moves at most, so that no writer holds others up."""

_SCHEDULED = frozenset({ExecState.SCHEDULED})
_LONG_SECONDS = 0.1
_REST = 3.0
"""After a look that took long and found nothing to do, so many times as long is rested."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What a round decides on. waiting: who may be offered now."""

    rollout: RolloutRecord
    waves: dict[int, WaveRecord]
    waiting: tuple[Waiting, ...]
    snapshot: Snapshot


class RolloutEngine:
    """Closes the difference between what rollouts want and what devices report.

    Args:
        uow: opens transactions.
        clock: the time, in UTC.
        monotonic: seconds, by which is rested.
        worked: seconds of this thread's work, by which a look is measured: that of others on
            a busy machine says nothing of it.
        hearing: whether the silence of devices says something.
    """

    def __init__(
        self,
        uow: UnitOfWork,
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
        worked: Callable[[], float] = time.thread_time,
        hearing: Hearing | None = None,
    ) -> None:
        self._uow = uow
        self._clock = clock
        self._monotonic = monotonic
        self._worked = worked
        self._hearing = hearing or Hearing(clock)
        self._resting: dict[str, float] = {}

    def tick(self) -> int:
        """One round over all running rollouts; how many actions were applied."""
        with self._uow.read() as tx:
            ids = tx.rollouts.running()
        self._resting = {i: until for i, until in self._resting.items() if i in set(ids)}
        applied, failed, deaf = 0, None, self._hearing.deaf()
        for rollout_id in ids:
            try:
                applied += self._advance(rollout_id, deaf=deaf)
            except Exception as error:
                # One rollout's fault must not stop the others.
                log.exception("%s could not be advanced", rollout_id)
                failed = error
        if failed is not None:
            raise failed
        return applied

    def _advance(self, rollout_id: str, *, deaf: bool) -> int:
        if self._monotonic() < self._resting.get(rollout_id, 0.0):
            return 0
        now, began = self._clock(), self._worked()
        with self._uow.read() as tx:  # most rounds find nothing to do, and hold no writer up
            look = _look(tx, tx.rollouts.get(rollout_id), now, deaf=deaf)
        if look is None or not engine.decide(look.snapshot, now):
            took = self._worked() - began
            if took > _LONG_SECONDS:
                self._resting[rollout_id] = self._monotonic() + _REST * took
            return 0
        with self._uow() as tx:
            look = _look(tx, tx.rollouts.get(rollout_id, lock=True), now, deaf=deaf)
            actions = engine.decide(look.snapshot, now) if look else ()
            for action in actions:
                because = engine.because(actions)
                if look is not None and not _apply(tx, look, action, now, because):
                    break
        return len(actions)


def _look(
    tx: Transaction, rollout: RolloutRecord | None, now: datetime, *, deaf: bool
) -> _Look | None:
    if rollout is None or rollout.state is not RolloutState.RUNNING:
        return None
    waves = {wave.idx: wave for wave in tx.rollouts.waves(rollout.id)}
    facts = [
        WaveFacts(index, wave.state, wave.entered_at, stragglers=wave.stragglers)
        for index, wave in sorted(waves.items())
    ]
    waiting: tuple[Waiting, ...] = ()
    current = engine.open_wave(tuple(facts))
    if current is not None:
        filled, waiting = _facts(tx, rollout, current, now)
        facts[facts.index(current)] = filled
    spec = rollout.spec
    snapshot = Snapshot(rollout.state, spec.gates, Timers.of(spec), tuple(facts), deaf)
    return _Look(rollout, waves, waiting, snapshot)


def _facts(
    tx: Transaction, rollout: RolloutRecord, wave: WaveFacts, now: datetime
) -> tuple[WaveFacts, tuple[Waiting, ...]]:
    """What is to be known of the wave that is worked on, by the state it is in."""
    look, its = tx.executions, Among(rollout_id=rollout.id, wave=wave.index)
    if wave.state not in {WaveState.RUNNING, WaveState.JUDGING}:
        return wave, ()
    counts = look.counts(rollout.id, wave.index).get(wave.index, {})
    wave = replace(wave, counts=counts)
    if wave.state is WaveState.JUDGING:
        return replace(wave, served=look.served(rollout, wave.index)), ()
    waiting: tuple[Waiting, ...] = ()
    later = retries = held = 0
    if counts.get(ExecState.FAILED):
        retries = look.count(replace(its, retryable_below=rollout.spec.max_attempts))
    if counts.get(ExecState.SCHEDULED):
        later = look.later(rollout.id, wave.index, now)
        waiting = tuple(look.waiting(rollout.id, wave.index, now, ROUND))
        if not (waiting or later or wave.in_flight):
            held = look.count(replace(its, states=_SCHEDULED, held=True))
    facts = replace(
        wave,
        barred=look.count(replace(its, states=offers.OPEN, usable=False)),
        retries=retries,
        due=look.due(rollout.id, wave.index, now) if wave.in_flight else {},
        ready=len(waiting),
        later=later,
        held=held,
    )
    return facts, waiting


def _apply(
    tx: Transaction, look: _Look, action: engine.Action, now: datetime, because: str | None
) -> bool:
    """Apply an action; whether those after it may follow in this round."""
    match action:
        case engine.Extend():
            return _extend(tx, look, action, now) < ROUND
        case engine.MoveWave():
            _move_wave(tx, look.waves[action.index], action, now)
        case engine.MoveRollout():
            happened = Happened(action.event, action.reason)
            moves.apply(tx, look.rollout, happened, now, because=because)
        case engine.Offer():
            offers.offer(tx, look.rollout, look.waiting, now)
        case engine.Sift():
            offers.sift(tx, look.rollout, action.wave, now)
        case engine.Expire():
            _expire(tx, look, action, now)
        case _:
            _apply_to_set(tx, look, action, now)
    return True


def _extend(tx: Transaction, look: _Look, action: engine.Extend, now: datetime) -> int:
    """How many were extended; with as many as a round takes, there may be more that are due."""
    step = look.snapshot.timers.step
    since = before(now, step)
    windows = tx.executions.last_windows(look.rollout, action.wave, now, since, ROUND)
    tx.executions.extend({i: after(at, step) for i, at in windows.items()})
    return len(windows)


def _apply_to_set(
    tx: Transaction,
    look: _Look,
    action: engine.Bar | engine.Retry | engine.Straggle | engine.GiveUp,
    now: datetime,
) -> None:
    rollout, timers = look.rollout, look.snapshot.timers
    its = Among(rollout_id=rollout.id, wave=action.wave)
    waiting = replace(its, states=_SCHEDULED)
    match action:
        case engine.Bar():
            among, why_not = replace(its, usable=False), "the device may no longer take part"
            moved = tx.executions.end(among, ExecState.REMOVED, why_not, now, ROUND)
            moves.announce_moved(tx, moved, ExecState.REMOVED, now, why_not)
        case engine.Retry():
            due = {n: retry_at(n, now, timers) for n in range(1, timers.max_attempts)}
            failed = replace(its, retryable_below=timers.max_attempts)
            moved = tx.executions.retry(failed, due, now, ROUND)
            moves.announce_moved(tx, moved, ExecState.SCHEDULED, now)
        case engine.Straggle():
            late = stragglers_wave(tx, rollout.id, now)
            tx.executions.put_in_wave(waiting, late.idx)
        case engine.GiveUp():
            unseen = f"not seen in {timers.straggler:g} s"
            gone = replace(waiting, held=False)
            moves.end_executions(tx, gone, ExecState.REMOVED, unseen, now)


def _expire(tx: Transaction, look: _Look, action: engine.Expire, now: datetime) -> None:
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
            moved = tx.executions.withdraw(among, now, ROUND)
        case ExecState.UNKNOWN:
            due = due_at(ExecState.UNKNOWN, now, timers) or now
            moved = tx.executions.vanish(among, due, now, ROUND)
        case becomes:
            detail = why(state, timers)
            moved = tx.executions.end(among, becomes, detail, now, ROUND)
    moves.announce_moved(tx, moved, action.becomes, now, detail)


def _move_wave(tx: Transaction, wave: WaveRecord, action: engine.MoveWave, now: datetime) -> None:
    state = step_wave(wave.state, action.event)
    if state is wave.state:
        return
    evidence = action.evidence or wave.evidence
    tx.rollouts.save_wave(replace(wave, state=state, entered_at=now, evidence=evidence))
    data = {"wave": wave.idx, "state": state.value}
    tx.events.add("wave", wave.rollout_id, data, now)
