"""What devices report of their executions."""

from __future__ import annotations

import logging
from dataclasses import replace

from orchestrator.domain.execution import Reported
from orchestrator.services import rollouts
from orchestrator.services.ports import Clock, Transaction
from orchestrator.services.records import ExecutionRecord
from orchestrator.services.versions import found as found_version
from schemas.device import ActiveModel
from schemas.model import Manifest
from schemas.rollout import EXEC_TERMINAL, ExecReport, ExecState

log = logging.getLogger(__name__)


class ReportService:
    """Takes reports inside the transaction that stores their batch."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def reported(self, tx: Transaction, device_id: str, report: ExecReport) -> None:
        """Take a device's report; repeats and other devices' executions change nothing."""
        record = tx.rollouts.execution(report.execution, lock=True)
        if record is None or record.device_id != device_id:
            log.warning("%s reports on %s, which is not its own", device_id, report.execution)
            return
        if report.attempt != record.attempt or report.seq <= record.seq:
            return
        now = self._clock()
        event = Reported(report.attempt, report.seq, report.state, report.cause, report.detail)
        if record.state not in EXEC_TERMINAL:
            # Any report is a sign of life, so it resets the step timer.
            record = replace(record, updated_at=now)
        record = replace(
            record,
            bytes_done=_either(report.bytes_done, record.bytes_done),
            bytes_total=_either(report.bytes_total, record.bytes_total),
            bytes_fetched=_either(report.bytes_fetched, record.bytes_fetched),
        )
        moved = rollouts.move_execution(tx, record, event, now)
        if report.state is ExecState.SUCCEEDED:
            self._serves(tx, moved)

    def _serves(self, tx: Transaction, record: ExecutionRecord) -> None:
        device = tx.devices.get(record.device_id, lock=True)
        rollout = rollouts.found(tx, record.rollout_id)
        version = found_version(tx, rollout.model, rollout.version)
        manifest = Manifest.model_validate_json(version.manifest)
        variant = manifest.variant(record.variant or "")
        if device is None or variant is None:
            return
        active = ActiveModel(
            model=rollout.model,
            version=rollout.version,
            variant=variant.id,
            sha256=variant.file.sha256,
        )
        tx.devices.save(replace(device, active=active))


def _either(new: int | None, old: int | None) -> int | None:
    return old if new is None else new
