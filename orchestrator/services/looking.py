"""What the engine decides on: a rollout in sums, asked of the database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from orchestrator.domain.execution import FAILURES
from orchestrator.domain.snapshot import Snapshot, WaveFacts, open_wave
from orchestrator.domain.timers import Timers
from orchestrator.services import offers, pacing
from orchestrator.services.ports import Transaction
from orchestrator.services.records import Among, RolloutRecord, Waiting, WaveRecord
from schemas.errors import DeviceCause
from schemas.rollout import ExecState, RolloutState, WaveState

ROUND = 1_000
"""Executions that one action of a round moves at most, so that no writer holds others up."""

SCHEDULED = frozenset({ExecState.SCHEDULED})


_WORKED_ON = frozenset({WaveState.RUNNING, WaveState.SOAKING, WaveState.JUDGING})


@dataclass(frozen=True, slots=True)
class Look:
    """What a round decides on. waiting: who may be offered now."""

    rollout: RolloutRecord
    waves: dict[int, WaveRecord]
    waiting: tuple[Waiting, ...]
    snapshot: Snapshot


def look_at(
    tx: Transaction,
    rollout: RolloutRecord | None,
    now: datetime,
    *,
    deaf: bool,
    before: Look | None = None,
) -> Look | None:
    """What a round decides on; None where nothing is to be decided.

    Args:
        tx: in which it is asked.
        rollout: its record.
        now: the time.
        deaf: the silence of devices says nothing now.
        before: the same, as it was read without holding writers up. Of a wave that is being
            judged and still is as it was then, what its devices infer is not asked again.
    """
    if rollout is None or rollout.state is not RolloutState.RUNNING:
        return None
    if rollout.unreadable:
        spec = rollout.spec
        nothing = Snapshot(
            rollout.state, spec.gates, Timers.of(spec), unreadable=rollout.unreadable
        )
        return Look(rollout, {}, (), nothing)
    waves = {wave.idx: wave for wave in tx.rollouts.waves(rollout.id)}
    facts = [
        WaveFacts(
            index,
            wave.state,
            wave.entered_at,
            stragglers=wave.stragglers,
            joiners=wave.joiners,
            ungated=_ungated(rollout, wave),
            looks=wave.looks,
            looked_at=wave.looked_at,
        )
        for index, wave in sorted(waves.items())
    ]
    waiting: tuple[Waiting, ...] = ()
    current = open_wave(tuple(facts))
    if current is not None:
        filled, waiting = _facts(tx, rollout, current, now, before)
        facts[facts.index(current)] = filled
    spec = rollout.spec
    timers = Timers.of(spec)
    snapshot = Snapshot(
        rollout.state,
        spec.gates,
        timers,
        tuple(facts),
        deaf=deaf,
        dynamic=spec.dynamic,
        on_failure=spec.on_failure,
    )
    return Look(rollout, waves, waiting, snapshot)


def _ungated(rollout: RolloutRecord, wave: WaveRecord) -> bool:
    """Whether nothing is judged: somebody let it pass, or it leads back to what served before."""
    by_hand = wave.promoted_by is not None or rollout.promoted_by is not None
    return by_hand or rollout.takes_back is not None


def _facts(
    tx: Transaction, rollout: RolloutRecord, wave: WaveFacts, now: datetime, before: Look | None
) -> tuple[WaveFacts, tuple[Waiting, ...]]:
    """What is to be known of the wave that is worked on, by the state it is in."""
    look, its = tx.executions, Among(rollout_id=rollout.id, wave=wave.index)
    if wave.state not in _WORKED_ON:
        return wave, ()
    counted = pacing.counts(tx, rollout, wave.index)
    counts = counted.get(wave.index, {})
    wave = with_failures(tx, rollout, replace(wave, counts=counts))
    if wave.state is WaveState.JUDGING:
        return _with_evidence(tx, rollout, wave, before), ()
    if wave.state is WaveState.SOAKING:
        return wave, ()
    waiting: tuple[Waiting, ...] = ()
    later = retries = held = proceed = ahead = 0
    closed, paced = pacing.closed(rollout, now), False
    if counts.get(ExecState.FAILED):
        retries = look.count(replace(its, retryable_below=rollout.spec.max_attempts))
    if counts.get(ExecState.SCHEDULED):
        later = look.later(rollout.id, wave.index, now)
        room: int | None = 0
        if not closed:
            pace = pacing.standing(tx, rollout, counted, now)
            room, ahead = pace.room, pace.ahead
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
        ahead=ahead,
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


def with_failures(tx: Transaction, rollout: RolloutRecord, wave: WaveFacts) -> WaveFacts:
    """With what succeeded and was undone since, and with the causes of failures."""
    late: Mapping[ExecState, int] = {}
    causes: Mapping[DeviceCause, int] = {}
    if wave.counts.get(ExecState.SUCCEEDED):
        late = tx.executions.late(rollout.id, wave.index)
    if late or any(wave.counts.get(state) for state in FAILURES):
        causes = tx.executions.causes(rollout.id, wave.index)
    return replace(wave, late=late, causes=causes)


def _with_evidence(
    tx: Transaction, rollout: RolloutRecord, wave: WaveFacts, before: Look | None
) -> WaveFacts:
    """With what its devices infer, and what a look at it has shown, where nothing moved since."""
    if before is not None and before.rollout.spec == rollout.spec:
        for known in before.snapshot.waves:
            if known == replace(wave, served=known.served, looked=known.looked):
                return known
    return replace(wave, served=tx.executions.served(rollout, wave.index))
