"""What devices report of their executions, by batches."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from orchestrator.domain.execution import IN_FLIGHT, Reported
from orchestrator.domain.reconcile import above_floor, is_drifted, serving_too
from orchestrator.services import inventory
from orchestrator.services.execution_batch import ExecutionBatch
from orchestrator.services.ports import Clock, Transaction
from orchestrator.services.records import ExecutionRecord
from schemas.rollout import EXEC_TERMINAL, ExecReport, ExecState

log = logging.getLogger(__name__)

_PROGRESS = timedelta(seconds=1)
"""The least time between two figures of one download that are stored and told."""

Told = tuple[str, ExecReport]
"""A device and its report."""


class ReportService:
    """Takes reports inside the transaction that stores their batch."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def take(self, tx: Transaction, told: Sequence[Told]) -> None:
        """Take reports, in order; repeats and other devices' executions change nothing."""
        now = self._clock()
        found = tx.outbox.executions({report.execution for _, report in told})
        executions = ExecutionBatch(tx, found.values(), now)
        refused: dict[str, int] = {}
        serving: dict[str, str] = {}
        restored: dict[str, ExecutionRecord] = {}
        for device, report in _without_old_progress(told):
            record = executions.get(report.execution)
            if record is None or record.device_id != device:
                log.warning("%s reports on %s, which is not its own", device, report.execution)
                continue
            higher = _higher(record, report, now)
            if higher is not None:
                refused[device] = higher
                executions.offer_anew(_offered_anew(record, report, higher, now))
            elif _says_more(record, report, now):
                executions.move(_heard(record, report, now), _event(report))
            if report.state is ExecState.SUCCEEDED and report.attempt <= record.attempt:
                serving[device] = record.id
                if _was_restored(record):
                    restored[device] = record
        executions.store()
        _raise_sequences(tx, refused, now)
        _note_what_is_served(tx, executions, serving, now)
        _restore_more(tx, restored, now)


def _was_restored(record: ExecutionRecord) -> bool:
    """Whether it had succeeded before, and was offered once more since."""
    if record.state is not ExecState.SUCCEEDED or record.offered_at is None:
        return False
    return record.offered_at > record.updated_at


def _event(report: ExecReport) -> Reported:
    return Reported(
        report.attempt, report.seq, report.state, report.cause, report.detail, report.retryable
    )


def _without_old_progress(told: Sequence[Told]) -> Iterator[Told]:
    """Of the downloads in a batch only the newest figures."""
    last: dict[tuple[str, int], int] = {}
    for place, (_, report) in enumerate(told):
        if report.state is ExecState.DOWNLOADING:
            last[report.execution, report.attempt] = place
    for place, (device, report) in enumerate(told):
        progress = report.state is ExecState.DOWNLOADING
        if not progress or last[report.execution, report.attempt] == place:
            yield device, report


def _says_more(record: ExecutionRecord, report: ExecReport, now: datetime) -> bool:
    """Whether it is new; of a download, whether it is time for new figures."""
    if report.attempt == record.attempt and report.seq <= record.seq:
        return False
    downloading = record.state is report.state is ExecState.DOWNLOADING
    soon = timedelta(0) <= now - record.updated_at < _PROGRESS
    return not (downloading and soon and record.bytes_total is not None)


def _heard(record: ExecutionRecord, report: ExecReport, now: datetime) -> ExecutionRecord:
    """With the report's figures. Any report is a sign of life, so it resets the step timer."""
    if report.attempt != record.attempt:
        return record
    return replace(
        record,
        updated_at=record.updated_at if record.state in EXEC_TERMINAL else now,
        bytes_done=_either(report.bytes_done, record.bytes_done),
        bytes_total=_either(report.bytes_total, record.bytes_total),
        bytes_fetched=_either(report.bytes_fetched, record.bytes_fetched),
        waits_until=report.waits_until,
    )


def _either(new: int | None, old: int | None) -> int | None:
    return old if new is None else new


def _higher(record: ExecutionRecord, report: ExecReport, now: datetime) -> int | None:
    """The sequence to offer with instead, where the device has accepted a higher one before."""
    if record.state not in IN_FLIGHT or report.attempt != record.attempt:
        return None
    if report.seq <= record.seq:
        return None
    return above_floor(report.state, report.cause, record.sequence, now)


def _offered_anew(
    record: ExecutionRecord, report: ExecReport, sequence: int, now: datetime
) -> ExecutionRecord:
    log.warning(
        "%s had accepted a newer offer than the database knows: it is offered again as %d",
        record.device_id,
        sequence,
    )
    return replace(
        record,
        seq=report.seq,
        sequence=sequence,
        offered_at=now,
        published=False,
    )


def _raise_sequences(tx: Transaction, refused: dict[str, int], now: datetime) -> None:
    if refused:
        devices = tx.devices.many(refused)
        raised = (
            (device, replace(device, sequence=max(device.sequence, refused[device.id])))
            for device in devices.values()
        )
        tx.devices.change(raised, now)


def _note_what_is_served(
    tx: Transaction, executions: ExecutionBatch, serving: dict[str, str], now: datetime
) -> None:
    """A device that succeeded serves that, also where its birth has not said so yet."""
    if not serving:
        return
    devices, given = tx.devices.many(serving), inventory.given(tx, serving)
    changed = []
    for device_id, execution in serving.items():
        record, device = executions.get(execution), devices.get(device_id)
        if record is None or device is None or device.rolled_back:
            continue
        for one in given[device_id]:
            if one.execution == record.id:
                active = serving_too(device.active, one.model)
                drifted = is_drifted(active, given[device_id])
                since = device.drifted_at if drifted else None
                changed.append((device, replace(device, active=active, drifted_at=since)))
                break
    tx.devices.change(changed, now)


def _restore_more(tx: Transaction, restored: Mapping[str, ExecutionRecord], now: datetime) -> None:
    """Devices that were offered once more what they had lost, and have it: what else they lack."""
    if not restored:
        return
    devices = tx.devices.many(restored)
    serves = {
        device: frozenset(one.model for one in devices[device].active)
        for device, record in restored.items()
        if record.sequence == devices[device].sequence
    }
    lost = inventory.lost(tx, serves, {device: one.id for device, one in restored.items()})
    executions = ExecutionBatch(tx, lost.values(), now)
    raised = []
    for device, record in lost.items():
        sequence = devices[device].sequence + 1
        raised.append((devices[device], replace(devices[device], sequence=sequence)))
        executions.put(replace(record, sequence=sequence, offered_at=now, published=False))
    executions.store()
    tx.devices.change(raised, now)
