"""Another attempt by hand: for all devices where a rollout came to nothing, or for some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from orchestrator.domain.execution import RETRIED_BY_HAND
from orchestrator.domain.rollout import Refuse, WaveEvent, retried, step_wave
from orchestrator.errors import Conflict, IllegalTransition, NotFound
from orchestrator.services.moves import MAX_EVENTS, announce, announce_moved, announce_waves
from orchestrator.services.ports import Transaction
from orchestrator.services.records import Among, RolloutRecord, WaveRecord
from orchestrator.services.versions import usable
from schemas.rollout import ExecState, WaveState

_NEXT = "`argosy rollout devices` shows where each device stands"
_ENDED = "start another rollout of the version: devices that have it are left alone"


def retry(
    tx: Transaction, record: RolloutRecord, devices: Sequence[str], now: datetime
) -> tuple[RolloutRecord, int]:
    """Schedule the next attempt; those of waves that have passed join the stragglers.

    Args:
        tx: what it is saved in.
        record: the rollout.
        devices: only these; all where it came to nothing when there are none.
        now: the time.

    Returns:
        The rollout, which may be resumed if it was paused for its failures, and the number
        of devices.

    Raises:
        IllegalTransition, NotFound, Revoked, Conflict: see ``RolloutService.retry``.
    """
    rollout = retried(record.machine())
    if isinstance(rollout, Refuse):
        raise IllegalTransition(rollout.detail, hint=_ENDED)
    usable(tx, record.model, record.version)
    among = Among(rollout_id=record.id, states=RETRIED_BY_HAND, devices=tuple(devices))
    _check_named(tx, record, devices)
    by_wave = tx.executions.by_wave(among)
    total = sum(by_wave.values())
    if not total:
        msg = f"no device of {record.id} has failed: there is nothing to retry"
        raise Conflict(msg, hint=_NEXT)
    waves = {wave.idx: wave for wave in tx.rollouts.waves(record.id)}
    passed = [waves[index] for index in by_wave if waves[index].state is WaveState.PASSED]
    late = stragglers_wave(tx, record.id, now) if passed else None
    for index in sorted(by_wave):
        target = late.idx if late is not None and waves[index] in passed else None
        its = replace(among, wave=index)
        limit = MAX_EVENTS if total <= MAX_EVENTS else None
        moved = tx.executions.retry_by_hand(its, now, wave=target, limit=limit)
        announce_moved(tx, moved, ExecState.SCHEDULED, now)
        _reopen(tx, waves[index], now)
    if total > MAX_EVENTS:
        announce_waves(tx, record.id, by_wave, ExecState.SCHEDULED, now)
    tx.audit.add("rollout.retry", record.id, {"devices": total, "named": list(devices)[:100]})
    after = replace(record, pause_reason=rollout.pause_reason)
    if after != record:
        tx.rollouts.save(after)
        announce(tx, after, now)
    return after, total


def stragglers_wave(tx: Transaction, rollout_id: str, now: datetime) -> WaveRecord:
    """The last wave, of the devices that were not there; made where there is none yet."""
    waves = tx.rollouts.waves(rollout_id)
    late = next((w for w in waves if w.stragglers and w.state is not WaveState.PASSED), None)
    if late is None:
        late = WaveRecord(
            rollout_id=rollout_id,
            idx=len(waves),
            state=WaveState.PENDING,
            stragglers=True,
            entered_at=now,
        )
        tx.rollouts.save_wave(late)
        return late
    return _reopen(tx, late, now)


def _reopen(tx: Transaction, wave: WaveRecord, now: datetime) -> WaveRecord:
    """A wave that has settled runs again; a verdict that stopped it stands until it is resumed."""
    if wave.state not in {WaveState.SOAKING, WaveState.JUDGING}:
        return wave
    again = replace(wave, state=step_wave(wave.state, WaveEvent.REJUDGE), entered_at=now)
    tx.rollouts.save_wave(again)
    tx.events.add("wave", wave.rollout_id, {"wave": wave.idx, "state": again.state.value}, now)
    return again


def _check_named(tx: Transaction, record: RolloutRecord, devices: Sequence[str]) -> None:
    states = tx.executions.of_devices(record.id, devices) if devices else {}
    for device in devices:
        state = states.get(device)
        if state is None:
            msg = f"{device} is not in {record.id}"
            raise NotFound(msg, hint=_NEXT)
        if state not in RETRIED_BY_HAND:
            msg = f"{device} is {state}: only what came to nothing is retried"
            raise Conflict(msg, hint=_NEXT)
