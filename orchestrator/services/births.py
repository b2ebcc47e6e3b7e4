"""Births and deaths of devices, by batches: presence, what is served, what was lost."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from orchestrator.domain import reconcile
from orchestrator.domain.clone import Seen, Sighting, observe
from orchestrator.domain.execution import Ended, Forgotten, Found
from orchestrator.domain.reconcile import Act, Known, Restart, Told
from orchestrator.services import actor, fleet, inventory, moves
from orchestrator.services.execution_batch import ExecutionBatch
from orchestrator.services.ports import Transaction
from orchestrator.services.records import DeviceRecord, ExecutionRecord
from schemas.device import Birth, Death, Presence
from schemas.rollout import ExecState, RolloutState

log = logging.getLogger(__name__)

_STOPPED = frozenset({RolloutState.ABORTED, RolloutState.ROLLING_BACK, RolloutState.ROLLED_BACK})


@dataclass(frozen=True, slots=True)
class Sign:
    """A birth or a death that a device left, or the broker for it.

    retained: the broker repeats it because the gateway subscribed anew; that alone never
    brings a device back whose death was heard, and tells of no clone.
    """

    device: str
    message: Birth | Death
    retained: bool = False


@dataclass(slots=True)
class _Batch:
    """What a batch changes. told: what the births tell of executions, in order."""

    tx: Transaction
    now: datetime
    before: dict[str, DeviceRecord]
    devices: dict[str, DeviceRecord]
    told: list[tuple[str, Told]] = field(default_factory=list)
    looked_at: set[str] = field(default_factory=set)
    announced: set[str] = field(default_factory=set)


def take(tx: Transaction, signs: Sequence[Sign], now: datetime) -> None:
    """Apply births and deaths, in order, and close the gaps that they show.

    A fixed number of statements, and one more for each device that has something to be told.
    """
    found = dict(tx.devices.many({sign.device for sign in signs}))
    batch = _Batch(tx, now, found, dict(found))
    for sign in signs:
        record = batch.devices.get(sign.device)
        match sign.message:
            case Birth() as birth if record is not None:
                _born(batch, record, birth, retained=sign.retained)
            case Death() as death if record is not None:
                _died(batch, record, death)
    _look_for_drift(batch)
    _reconcile(batch)
    changes = ((batch.before[key], one) for key, one in batch.devices.items())
    tx.devices.change(changes, now)
    fleet.announce_all(tx, [batch.devices[device] for device in sorted(batch.announced)], now)


def _born(batch: _Batch, record: DeviceRecord, birth: Birth, *, retained: bool) -> None:
    same_session = (record.boot, record.session) == (birth.boot, birth.session)
    if record.boot == birth.boot and birth.session < record.session:
        return  # an older connection's, delivered late
    if retained and same_session:
        return
    if not retained:
        sighting = Sighting(birth.boot, birth.session, birth.uptime, batch.now.timestamp())
        seen, turns = observe(record.turns, sighting)
        if seen is Seen.LATE:
            return
        record = replace(record, turns=turns)
        if seen is Seen.CLONE:
            record = _suspect(batch, record, birth)
    _note_certificate(batch, record, birth)
    told = Told(
        seen=birth.execution,
        connected=not same_session,
        # Of a clone's boots none says what the journal of the other holds.
        started=record.boot != birth.boot and record.clone_suspected_at is None,
        serves=frozenset(one.model for one in birth.active),
        rolled_back=birth.rolled_back,
    )
    batch.told.append((record.id, told))
    may_drift = birth.active and (told.connected or record.active != birth.active)
    if may_drift or record.drifted_at is not None:
        batch.looked_at.add(record.id)
    if record.presence is not Presence.ONLINE or record.active != birth.active:
        batch.announced.add(record.id)
    batch.devices[record.id] = replace(
        record,
        presence=Presence.ONLINE,
        boot=birth.boot,
        session=birth.session,
        hardware=birth.hardware,
        active=birth.active,
        rolled_back=birth.rolled_back,
        seen_certificate=birth.certificate or record.seen_certificate,
        last_seen_at=batch.now,
    )


def _suspect(batch: _Batch, record: DeviceRecord, birth: Birth) -> DeviceRecord:
    """Two boots take turns: an alert, until somebody looked."""
    if record.clone_suspected_at is not None:
        return record
    log.warning("%s is used from two places at once: it may have been cloned", record.id)
    boots = {"boots": [record.boot or "", birth.boot]}
    with actor.acting(actor.device(record.id)):
        batch.tx.audit.add("device.clone_suspected", record.id, boots)
    batch.announced.add(record.id)
    return replace(record, clone_suspected_at=batch.now)


def _note_certificate(batch: _Batch, record: DeviceRecord, birth: Birth) -> None:
    seen, known = birth.certificate, record.seen_certificate
    if seen is not None and (known is None or known.serial != seen.serial):
        batch.tx.devices.see_certificate(record.id, seen.serial, batch.now)


def _died(batch: _Batch, record: DeviceRecord, death: Death) -> None:
    """A connection is gone; an older one's end means nothing."""
    if (record.boot, record.session) != (death.boot, death.session):
        return
    if record.presence is Presence.ONLINE:
        batch.devices[record.id] = replace(record, presence=Presence.OFFLINE)
        batch.announced.add(record.id)


def _look_for_drift(batch: _Batch) -> None:
    """Mark devices that serve what they were never given, and no others."""
    given = inventory.given(batch.tx, batch.looked_at) if batch.looked_at else {}
    for device, models in given.items():
        record = batch.devices[device]
        drifted = reconcile.is_drifted(record.active, models)
        if drifted == (record.drifted_at is not None):
            continue
        if drifted:
            strange = ", ".join(
                f"{one.model}@{one.version} {one.variant}"
                for one in reconcile.strange(record.active, models)
            )
            log.warning("%s serves %s, which it was never given", device, strange)
        since = batch.now if drifted else None
        batch.devices[device] = replace(record, drifted_at=since)
        batch.announced.add(device)


def _reconcile(batch: _Batch) -> None:
    """Close the gaps between the newest executions and what births tell."""
    newest = batch.tx.outbox.newest({device for device, _ in batch.told})
    executions = ExecutionBatch(batch.tx, newest.values(), batch.now)
    _restore(batch, newest, executions)
    for device, told in batch.told:
        record = executions.get(newest[device].id) if device in newest else None
        if record is None:
            continue
        for act in reconcile.decide(_known(record), told, batch.now):
            _apply(batch, executions, record, act)
    executions.store()


def _restore(
    batch: _Batch, newest: Mapping[str, ExecutionRecord], executions: ExecutionBatch
) -> None:
    """Offer once more what devices have lost together with their journals."""
    bare = {
        device: told.serves
        for device, told in batch.told
        if told.started and told.seen is None and device in newest
        if newest[device].state is ExecState.SUCCEEDED
    }
    for record in inventory.lost(batch.tx, bare).values():
        executions.add(record)
        executions.put(_anew(batch, record))


def _known(record: ExecutionRecord) -> Known:
    return Known(
        execution=record.id,
        attempt=record.attempt,
        seq=record.seq,
        state=record.state,
        late=record.late,
        published=record.published,
        changed_at=record.updated_at,
    )


def _apply(batch: _Batch, executions: ExecutionBatch, record: ExecutionRecord, act: Act) -> None:
    match act:
        case Found():
            executions.move(record, act)
        case Restart() if moves.found(batch.tx, record.rollout_id).state in _STOPPED:
            # It had gone too far to be cancelled. What was called off is not offered again.
            over = Ended(ExecState.CANCELLED, "it lost its journal, and the rollout was stopped")
            executions.move(record, over)
        case Restart():
            log.info("%s lost its journal: %s is offered anew", record.device_id, record.id)
            executions.put(_anew(batch, executions.move(record, Forgotten())))
        case _:
            executions.put(replace(record, published=False))


def _anew(batch: _Batch, record: ExecutionRecord) -> ExecutionRecord:
    """With the next sequence, and a date that holds."""
    device = batch.devices[record.device_id]
    sequence = device.sequence + 1
    batch.devices[device.id] = replace(device, sequence=sequence)
    return replace(record, sequence=sequence, offered_at=batch.now, published=False)
