"""Another attempt by hand: for all devices where a rollout came to nothing, or for some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from orchestrator.domain.dynamic import Place, Standing, late_place
from orchestrator.domain.execution import RETRIED_BY_HAND
from orchestrator.domain.rollout import WaveEvent, no_retry, step_wave
from orchestrator.errors import Conflict, IllegalTransition, NotFound
from orchestrator.services.moves import MAX_EVENTS, announce_moved, announce_waves
from orchestrator.services.ports import Transaction
from orchestrator.services.records import Among, RolloutRecord, WaveRecord
from orchestrator.services.versions import usable
from schemas.rollout import EXEC_TERMINAL, ExecState, RolloutState, WaveState

_OPEN = frozenset(ExecState) - EXEC_TERMINAL
_NEXT = "`argosy rollout devices` shows where each device stands"
_ENDED = "start another rollout of the version: devices that have it are left alone"
_BEGINS = {RolloutState.DRAFT: "start", RolloutState.AWAITING_APPROVAL: "approve"}


def retry(tx: Transaction, record: RolloutRecord, devices: Sequence[str], now: datetime) -> int:
    """Schedule the next attempt; those of waves that have passed join the stragglers.

    Args:
        tx: what it is saved in.
        record: the rollout.
        devices: only these; all where it came to nothing when there are none.
        now: the time.

    Returns:
        The number of devices: 0 where what failed is being tried again already. A rollout that was
        paused for its failures may be resumed now (``is_tried_again``).

    Raises:
        IllegalTransition, NotFound, Revoked, Conflict: see ``RolloutService.retry``.
    """
    refused = no_retry(record.state)
    if refused is not None:
        raise IllegalTransition(refused.detail, hint=_instead(record))
    usable(tx, record.model, record.version)
    among = Among(rollout_id=record.id, states=RETRIED_BY_HAND, devices=tuple(devices))
    states = _named(tx, record, devices)
    by_wave = tx.executions.by_wave(among)
    total = sum(by_wave.values())
    if not total:
        if is_tried_again(tx, record, devices):
            return 0
        raise _nothing(record, states)
    waves = {wave.idx: wave for wave in tx.rollouts.waves(record.id)}
    late: WaveRecord | None = None
    if any(waves[index].state is WaveState.PASSED for index in by_wave):
        late = stragglers_wave(tx, record.id, now)
        by_wave = tx.executions.by_wave(among)  # waves may have been put together for it
    for index in sorted(by_wave):
        passed = waves[index].state is WaveState.PASSED
        target = late.idx if late is not None and passed else None
        its = replace(among, wave=index)
        limit = MAX_EVENTS if total <= MAX_EVENTS else None
        moved = tx.executions.retry_by_hand(its, now, wave=target, limit=limit)
        announce_moved(tx, moved, ExecState.SCHEDULED, now)
        _reopen(tx, waves[index], now)
    if total > MAX_EVENTS:
        announce_waves(tx, record.id, by_wave, ExecState.SCHEDULED, now)
    tx.audit.add("rollout.retry", record.id, {"devices": total, "named": list(devices)[:100]})
    return total


def is_tried_again(tx: Transaction, record: RolloutRecord, devices: Sequence[str] = ()) -> bool:
    """Whether some of a rollout's devices, or of these, are at another attempt, or wait for it."""
    again = Among(rollout_id=record.id, states=_OPEN, devices=tuple(devices), retried=True)
    return tx.executions.count(again) > 0


def _instead(record: RolloutRecord) -> str:
    """What to do with a rollout in which nothing is retried."""
    act = _BEGINS.get(record.state)
    return _ENDED if act is None else f"it has not begun: `argosy rollout {act} {record.id}`"


def stragglers_wave(tx: Transaction, rollout_id: str, now: datetime) -> WaveRecord:
    """The last wave, of the devices that were not there; made where there is none yet."""
    waves = {wave.idx: wave for wave in tx.rollouts.waves(rollout_id)}
    to = late_place([standing(wave) for wave in waves.values()])
    if not to.new:
        return _reopen(tx, waves[to.index], now)
    return make_wave(tx, rollout_id, to, now, stragglers=True)


def standing(wave: WaveRecord) -> Standing:
    """A wave, as far as it matters who is put into which."""
    return Standing(wave.idx, wave.state, stragglers=wave.stragglers, joiners=wave.joiners)


def make_wave(
    tx: Transaction,
    rollout_id: str,
    to: Place,
    now: datetime,
    *,
    stragglers: bool = False,
    joiners: bool = False,
) -> WaveRecord:
    """A new wave, in the place of one that is over where there are too many."""
    if to.folds is not None:
        tx.executions.put_in_wave(Among(rollout_id=rollout_id, wave=to.index), to.folds)
    wave = WaveRecord(
        rollout_id=rollout_id,
        idx=to.index,
        state=WaveState.PENDING,
        stragglers=stragglers,
        joiners=joiners,
        entered_at=now,
    )
    tx.rollouts.save_wave(wave)
    tx.events.add("wave", rollout_id, {"wave": to.index, "state": wave.state.value}, now)
    return wave


def _reopen(tx: Transaction, wave: WaveRecord, now: datetime) -> WaveRecord:
    """A wave that has settled runs again; a verdict that stopped it stands until it is resumed."""
    if wave.state not in {WaveState.SOAKING, WaveState.JUDGING}:
        return wave
    again = replace(wave, state=step_wave(wave.state, WaveEvent.REJUDGE), entered_at=now)
    tx.rollouts.save_wave(again)
    tx.events.add("wave", wave.rollout_id, {"wave": wave.idx, "state": again.state.value}, now)
    return again


def _named(
    tx: Transaction, record: RolloutRecord, devices: Sequence[str]
) -> Mapping[str, ExecState]:
    """Where the devices that are named stand."""
    states = tx.executions.of_devices(record.id, devices) if devices else {}
    for device in devices:
        if device not in states:
            msg = f"{device} is not in {record.id}"
            raise NotFound(msg, hint=_NEXT)
        if states[device] not in RETRIED_BY_HAND | _OPEN:
            raise _nothing(record, {device: states[device]})
    return states


def _nothing(record: RolloutRecord, states: Mapping[str, ExecState]) -> Conflict:
    for device, state in states.items():
        msg = f"{device} is {state}: only what came to nothing is retried"
        return Conflict(msg, hint=_NEXT)
    msg = f"no device of {record.id} has failed: there is nothing to retry"
    return Conflict(msg, hint=_NEXT)
