"""Runs rollouts: snapshot, decide, apply. ``publisher`` then tells the devices."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from orchestrator.domain import engine
from orchestrator.domain import execution as machine
from orchestrator.domain.engine import ExecutionFacts, Snapshot, WaveFacts
from orchestrator.domain.resolve import Choice, installed
from orchestrator.domain.rollout import Happened, step_wave
from orchestrator.services import rollouts
from orchestrator.services.ports import Clock, Transaction, UnitOfWork
from orchestrator.services.records import (
    DeviceRecord,
    DeviceTotals,
    ExecutionRecord,
    RolloutRecord,
    WaveRecord,
)
from orchestrator.services.resolution import Resolver
from orchestrator.services.versions import found as found_version
from schemas.device import DeviceState, Presence
from schemas.model import Manifest
from schemas.rollout import (
    ExecState,
    RolloutState,
    WaveState,
)

log = logging.getLogger(__name__)

_DESIRED_DAYS = 30
_PUBLISH_LIMIT = 200


@dataclass(frozen=True, slots=True)
class _Loaded:
    rollout: RolloutRecord
    manifest: Manifest
    resolver: Resolver
    waves: Mapping[int, WaveRecord]
    executions: Mapping[str, ExecutionRecord]
    devices: Mapping[str, DeviceRecord]


class RolloutEngine:
    """Closes the difference between what rollouts want and what devices report."""

    def __init__(self, uow: UnitOfWork, clock: Clock) -> None:
        self._uow = uow
        self._clock = clock

    def tick(self) -> int:
        """One round over all running rollouts; how many actions were applied."""
        with self._uow.read() as tx:
            ids = tx.rollouts.running()
        applied, failed = 0, None
        for rollout_id in ids:
            try:
                applied += self._advance(rollout_id)
            except Exception as error:
                # One rollout's fault must not stop the others.
                log.exception("%s could not be advanced", rollout_id)
                failed = error
        if failed is not None:
            raise failed
        return applied

    def _advance(self, rollout_id: str) -> int:
        now = self._clock()
        with self._uow() as tx:
            rollout = tx.rollouts.get(rollout_id, lock=True)
            if rollout is None or rollout.state is not RolloutState.RUNNING:
                return 0
            loaded = _load(tx, rollout)
            totals = tx.telemetry.totals(rollout.model, rollout.version, rollout.created_at)
            actions = engine.decide(_snapshot(loaded, totals), now)
            for action in actions:
                self._apply(tx, loaded, action, now)
        return len(actions)

    def _apply(
        self, tx: Transaction, loaded: _Loaded, action: engine.Action, now: datetime
    ) -> None:
        match action:
            case engine.Offer():
                self._offer(tx, loaded, loaded.executions[action.execution], now)
            case engine.End():
                ended = machine.Ended(action.state, action.detail)
                rollouts.move_execution(tx, loaded.executions[action.execution], ended, now)
            case engine.Withdraw():
                record = loaded.executions[action.execution]
                rollouts.move_execution(tx, record, machine.Withdrawn(), now)
            case engine.Straggle():
                _straggle(tx, loaded, action, now)
            case engine.MoveWave():
                _move_wave(tx, loaded.waves[action.index], action, now)
            case engine.MoveRollout():
                event = Happened(action.event, action.reason)
                rollouts.apply(tx, loaded.rollout, event, now)

    def _offer(
        self, tx: Transaction, loaded: _Loaded, record: ExecutionRecord, now: datetime
    ) -> None:
        device = tx.devices.get(record.device_id, lock=True)
        choice = loaded.resolver.resolve(device) if device else None
        if device is None or not isinstance(choice, Choice):
            return  # it changed since the decision; the next round decides anew
        newer = _newer(tx, loaded.rollout, device.id)
        if newer is not None:
            ended = machine.Ended(ExecState.SUPERSEDED, f"superseded by {newer}")
            rollouts.move_execution(tx, record, ended, now)
            return
        _supersede(tx, record, now)
        sequence = device.sequence + 1
        tx.devices.save(replace(device, sequence=sequence))
        offered = rollouts.move_execution(tx, record, machine.Offered(), now)
        tx.rollouts.save_execution(
            replace(
                offered,
                variant=choice.variant.id,
                sequence=sequence,
                offered_at=now,
                published=False,
            )
        )


def _load(tx: Transaction, rollout: RolloutRecord) -> _Loaded:
    version = found_version(tx, rollout.model, rollout.version)
    manifest = Manifest.model_validate_json(version.manifest)
    executions = {e.id: e for e in tx.rollouts.executions(rollout.id)}
    return _Loaded(
        rollout,
        manifest,
        Resolver(tx, manifest, rollout.version, rollout.spec.variant),
        {wave.idx: wave for wave in tx.rollouts.waves(rollout.id)},
        executions,
        tx.devices.many(e.device_id for e in executions.values()),
    )


def _snapshot(loaded: _Loaded, totals: Mapping[str, DeviceTotals]) -> Snapshot:
    spec = loaded.rollout.spec
    by_wave: dict[int, list[ExecutionFacts]] = {index: [] for index in loaded.waves}
    for record in loaded.executions.values():
        device = loaded.devices[record.device_id]
        by_wave[record.wave].append(_facts(loaded, record, device, totals.get(device.id)))
    return Snapshot(
        state=loaded.rollout.state,
        gates=spec.gates,
        offer_seconds=spec.offer_seconds,
        step_seconds=spec.step_seconds,
        straggler_seconds=spec.straggler_seconds,
        waves=tuple(
            WaveFacts(index, wave.state, wave.entered_at, tuple(by_wave[index]), wave.stragglers)
            for index, wave in sorted(loaded.waves.items())
        ),
    )


def _facts(
    loaded: _Loaded, record: ExecutionRecord, device: DeviceRecord, totals: DeviceTotals | None
) -> ExecutionFacts:
    # Only the first contact looks at it, and most of a large fleet is beyond that.
    waits = record.state is ExecState.SCHEDULED
    choice = loaded.resolver.resolve(device) if waits else None
    chosen = choice if isinstance(choice, Choice) else None
    return ExecutionFacts(
        id=record.id,
        device=device.id,
        state=record.state,
        updated_at=record.updated_at,
        online=device.presence is Presence.ONLINE,
        usable=device.state is DeviceState.ACTIVE,
        installed=chosen is not None
        and installed(device.active, loaded.manifest, loaded.rollout.version, chosen.variant),
        fits=not isinstance(choice, str),
        why_not=choice if isinstance(choice, str) else "",
        n=totals.n if totals else 0,
        errors=totals.errors if totals else 0,
        labelled=totals.labelled if totals else 0,
        correct=totals.correct if totals else 0,
        window_at=totals.last if totals else None,
    )


_YIELDS_TO = frozenset({RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.SUCCEEDED})


def _newer(tx: Transaction, rollout: RolloutRecord, device_id: str) -> str | None:
    """The rollout that was started later, holds the device, and was not given up."""
    latest = tx.rollouts.latest_of_device(device_id)
    if latest is None or latest.rollout_id == rollout.id:
        return None
    other = rollouts.found(tx, latest.rollout_id)
    later = (other.started_at or other.created_at) > (rollout.started_at or rollout.created_at)
    return other.id if later and other.state in _YIELDS_TO else None


def _supersede(tx: Transaction, record: ExecutionRecord, now: datetime) -> None:
    """A device works for one rollout at a time: the one that was started last."""
    ended = machine.Ended(ExecState.SUPERSEDED, f"superseded by {record.rollout_id}")
    for other in tx.rollouts.of_device(record.device_id, machine.IN_FLIGHT):
        if other.rollout_id != record.rollout_id:
            rollouts.move_execution(tx, other, ended, now)


def _straggle(tx: Transaction, loaded: _Loaded, action: engine.Straggle, now: datetime) -> None:
    waves = tx.rollouts.waves(loaded.rollout.id)
    late = next((wave for wave in waves if wave.stragglers), None)
    if late is None:
        late = WaveRecord(
            rollout_id=loaded.rollout.id,
            idx=len(waves),
            state=WaveState.PENDING,
            stragglers=True,
            entered_at=now,
        )
        tx.rollouts.save_wave(late)
    for execution_id in action.executions:
        record = loaded.executions[execution_id]
        moved = rollouts.move_execution(tx, record, machine.Withdrawn(), now)
        tx.rollouts.save_execution(replace(moved, wave=late.idx))


def _move_wave(tx: Transaction, wave: WaveRecord, action: engine.MoveWave, now: datetime) -> None:
    state = step_wave(wave.state, action.event)
    if state is wave.state:
        return
    evidence = action.evidence or wave.evidence
    tx.rollouts.save_wave(replace(wave, state=state, entered_at=now, evidence=evidence))
    data = {"wave": wave.idx, "state": state.value}
    tx.events.add("wave", wave.rollout_id, data, now)
