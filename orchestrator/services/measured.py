"""What devices measured of the variants that they have."""

from __future__ import annotations

import logging

from orchestrator.services.ports import Clock, Transaction
from orchestrator.services.records import MeasuredRecord
from schemas.device import DeviceState
from schemas.measure import BenchReport
from schemas.model import Manifest

log = logging.getLogger(__name__)

MAX_BATCHES = 16
"""Batch sizes that are kept of one file on one device."""


class MeasuredService:
    """Takes measurements inside the transaction that stores their batch."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def reported(self, tx: Transaction, device_id: str, report: BenchReport) -> None:
        """Take a device's figures; a repeat changes nothing.

        Which class they count to is the device's record's to say, never the message's.
        What does not fit a registered file is dropped with a line in the log.
        """
        why = _why_not(tx, device_id, report)
        if why is not None:
            log.warning("%s measured %s: %s", device_id, _name(report), why)
            return
        kept = set(tx.measured.batches(device_id, report.sha256))
        # A clock that runs ahead must not keep later figures out.
        at = min(report.at, self._clock())
        for benchmark in report.benchmarks:
            if benchmark.batch not in kept and len(kept) >= MAX_BATCHES:
                log.warning(
                    "%s measured %s in more than %d batch sizes; that of %d is dropped",
                    *(device_id, _name(report), MAX_BATCHES, benchmark.batch),
                )
                continue
            kept.add(benchmark.batch)
            tx.measured.put(
                MeasuredRecord(
                    device_id=device_id,
                    sha256=report.sha256,
                    batch=benchmark.batch,
                    benchmark=benchmark.model_copy(update={"device_class": None}),
                    at=at,
                )
            )


def _why_not(tx: Transaction, device_id: str, report: BenchReport) -> str | None:
    device = tx.devices.get(device_id)
    if device is None or device.state is not DeviceState.ACTIVE:
        return "the device may not take part"
    record = tx.models.get(report.model, report.version)
    if record is None:
        return "there is no such version"
    variant = Manifest.model_validate_json(record.manifest).variant(report.variant)
    if variant is None:
        return "it has no such variant"
    if variant.file.sha256 != report.sha256:
        return f"its file is {variant.file.sha256}, not {report.sha256}"
    return None


def _name(report: BenchReport) -> str:
    return f"{report.model}@{report.version} {report.variant}"
