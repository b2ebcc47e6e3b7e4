"""What the engine decides on: a rollout in sums, asked of the database."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from orchestrator.domain.snapshot import Snapshot, WaveFacts, open_wave
from orchestrator.domain.timers import Timers
from orchestrator.services import offers, pacing
from orchestrator.services.ports import Transaction
from orchestrator.services.records import Among, RolloutRecord, Waiting, WaveRecord
from schemas.rollout import ExecState, RolloutState, WaveState

ROUND = 1_000
"""Executions that one action of a round moves at most, so that no writer holds others up."""

SCHEDULED = frozenset({ExecState.SCHEDULED})


@dataclass(frozen=True, slots=True)
class Look:
    """What a round decides on. waiting: who may be offered now."""

    rollout: RolloutRecord
    waves: dict[int, WaveRecord]
    waiting: tuple[Waiting, ...]
    snapshot: Snapshot


def look_at(
    tx: Transaction, rollout: RolloutRecord | None, now: datetime, *, deaf: bool
) -> Look | None:
    """What a round decides on; None where nothing is to be decided.

    Args:
        tx: in which it is asked.
        rollout: its record.
        now: the time.
        deaf: the silence of devices says nothing now.
    """
    if rollout is None or rollout.state is not RolloutState.RUNNING:
        return None
    waves = {wave.idx: wave for wave in tx.rollouts.waves(rollout.id)}
    facts = [
        WaveFacts(index, wave.state, wave.entered_at, stragglers=wave.stragglers)
        for index, wave in sorted(waves.items())
    ]
    waiting: tuple[Waiting, ...] = ()
    current = open_wave(tuple(facts))
    if current is not None:
        filled, waiting = _facts(tx, rollout, current, now)
        facts[facts.index(current)] = filled
    spec = rollout.spec
    timers = Timers.of(spec)
    snapshot = Snapshot(
        rollout.state, spec.gates, timers, tuple(facts), deaf=deaf, dynamic=spec.dynamic
    )
    return Look(rollout, waves, waiting, snapshot)


def _facts(
    tx: Transaction, rollout: RolloutRecord, wave: WaveFacts, now: datetime
) -> tuple[WaveFacts, tuple[Waiting, ...]]:
    """What is to be known of the wave that is worked on, by the state it is in."""
    look, its = tx.executions, Among(rollout_id=rollout.id, wave=wave.index)
    if wave.state not in {WaveState.RUNNING, WaveState.JUDGING}:
        return wave, ()
    counted = pacing.counts(tx, rollout, wave.index)
    counts = counted.get(wave.index, {})
    wave = replace(wave, counts=counts)
    if wave.state is WaveState.JUDGING:
        return replace(wave, served=look.served(rollout, wave.index)), ()
    waiting: tuple[Waiting, ...] = ()
    later = retries = held = proceed = 0
    closed, paced = pacing.closed(rollout, now), False
    if counts.get(ExecState.FAILED):
        retries = look.count(replace(its, retryable_below=rollout.spec.max_attempts))
    if counts.get(ExecState.SCHEDULED):
        later = look.later(rollout.id, wave.index, now)
        room = 0 if closed else pacing.room(tx, rollout, counted, now)
        if not closed:
            # One more than may be offered tells whether the pace holds anybody back.
            most = ROUND if room is None else min(ROUND, room + 1)
            waiting = tuple(look.waiting(rollout.id, wave.index, now, most))
        if room is not None:
            paced, waiting = len(waiting) > room, waiting[:room]
        if not (waiting or paced or closed or later or wave.in_flight):
            held = look.count(replace(its, states=SCHEDULED, held=True))
    if rollout.activated_at is not None and wave.in_flight:
        proceed = look.count(replace(its, waiting_since=rollout.activated_at))
    facts = replace(
        wave,
        paced=paced,
        closed=closed,
        proceed=proceed,
        barred=look.count(replace(its, states=offers.OPEN, usable=False)),
        retries=retries,
        due=look.due(rollout.id, wave.index, now) if wave.in_flight else {},
        ready=len(waiting),
        later=later,
        held=held,
    )
    return facts, waiting
