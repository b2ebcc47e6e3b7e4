"""Telemetry: each acknowledged window is stored exactly once; figures are added up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import timedelta

from orchestrator.services.models import found
from orchestrator.services.ports import Clock, Transaction, UnitOfWork
from orchestrator.services.records import WindowRecord
from schemas.telemetry import TelemetrySummary, Window, merge, quantile

_MAX_AHEAD = timedelta(minutes=5)
"""How far a device's clock may run ahead before its time is replaced by ours."""


class TelemetryService:
    """What the gateway and the API do with telemetry."""

    def __init__(self, uow: UnitOfWork, clock: Clock) -> None:
        self._uow = uow
        self._clock = clock

    def ingest(self, tx: Transaction, device_id: str, window: Window) -> bool:
        """Store a window; False when it is a repeat or claims to be another device's."""
        if window.device != device_id:
            return False
        now = self._clock()
        return tx.telemetry.add(
            WindowRecord(
                device_id=device_id,
                boot=window.boot,
                seq=window.seq,
                model=window.model,
                version=window.version,
                variant=window.variant,
                role=window.role,
                start=min(window.start, now + _MAX_AHEAD),
                received_at=now,
                n=window.n,
                errors=window.errors,
                labelled=window.labelled,
                correct=window.correct,
                payload=window.model_dump(mode="json", exclude={"device", "boot", "seq"}),
            )
        )

    def summary(self, model: str, version: int, *, by_device: bool) -> Sequence[TelemetrySummary]:
        """Figures of a version by variant, and by device when asked.

        Raises:
            NotFound: there is no such version.
        """
        with self._uow() as tx:
            found(tx, model, version)
            groups: dict[tuple[str, str | None], list[WindowRecord]] = defaultdict(list)
            for record in tx.telemetry.windows(model, version):
                if record.role == "active":
                    key = (record.variant, record.device_id if by_device else None)
                    groups[key].append(record)
        return [
            _summary(model, version, variant, device, records)
            for (variant, device), records in sorted(groups.items(), key=lambda g: str(g[0]))
        ]


def _summary(
    model: str, version: int, variant: str, device: str | None, records: Iterable[WindowRecord]
) -> TelemetrySummary:
    rows = list(records)
    latency = merge(
        {int(bucket): count for bucket, count in row.payload["latency_us"].items()} for row in rows
    )
    labelled = sum(row.labelled for row in rows)
    correct = sum(row.correct for row in rows)
    return TelemetrySummary(
        model=model,
        version=version,
        variant=variant,
        device=device,
        windows=len(rows),
        n=sum(row.n for row in rows),
        errors=sum(row.errors for row in rows),
        labelled=labelled,
        correct=correct,
        accuracy=correct / labelled if labelled else None,
        p50_ms=_ms(quantile(latency, 0.5)),
        p95_ms=_ms(quantile(latency, 0.95)),
        p99_ms=_ms(quantile(latency, 0.99)),
    )


def _ms(microseconds: float | None) -> float | None:
    return None if microseconds is None else microseconds / 1000
