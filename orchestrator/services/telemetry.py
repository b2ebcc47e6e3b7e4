"""Telemetry: each acknowledged window is stored exactly once; figures are added up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta

from orchestrator.services.ports import Clock, Transaction, UnitOfWork
from orchestrator.services.records import WindowFigures, WindowRecord
from orchestrator.services.versions import found
from schemas.telemetry import TelemetrySummary, Window, quantile

_MAX_AHEAD = timedelta(minutes=5)
"""How far a device's clock may run ahead before its time is replaced by ours."""


class TelemetryService:
    """What the gateway and the API do with telemetry."""

    def __init__(self, uow: UnitOfWork, clock: Clock) -> None:
        self._uow = uow
        self._clock = clock

    def take(self, tx: Transaction, windows: Sequence[tuple[str, Window]]) -> None:
        """Store windows, each once; those that claim to be another device's are not."""
        now = self._clock()
        tx.telemetry.add_all(
            _record(window, now) for device, window in windows if window.device == device
        )

    def summary(self, model: str, version: int, *, by_device: bool) -> Sequence[TelemetrySummary]:
        """Figures of a version by variant, and by device when asked.

        Raises:
            NotFound: there is no such version.
        """
        groups: dict[tuple[str, str | None], _Sum] = defaultdict(_Sum)
        with self._uow.read() as tx:
            found(tx, model, version)
            for window in tx.telemetry.figures(model, version):
                groups[window.variant, window.device_id if by_device else None].add(window)
        return [
            group.summary(model, version, variant, device)
            for (variant, device), group in sorted(groups.items(), key=lambda g: str(g[0]))
        ]


def _record(window: Window, now: datetime) -> WindowRecord:
    return WindowRecord(
        device_id=window.device,
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


class _Sum:
    """Windows added up one by one, so that a long history needs no memory."""

    def __init__(self) -> None:
        self._totals = dict.fromkeys(("windows", "n", "errors", "labelled", "correct"), 0)
        self._latency: dict[int, int] = {}

    def add(self, window: WindowFigures) -> None:
        self._totals["windows"] += 1
        for name in ("n", "errors", "labelled", "correct"):
            self._totals[name] += getattr(window, name)
        for bucket, count in window.latency_us.items():
            self._latency[int(bucket)] = self._latency.get(int(bucket), 0) + count

    def summary(
        self, model: str, version: int, variant: str, device: str | None
    ) -> TelemetrySummary:
        labelled = self._totals["labelled"]
        return TelemetrySummary(
            model=model,
            version=version,
            variant=variant,
            device=device,
            accuracy=self._totals["correct"] / labelled if labelled else None,
            p50_ms=_ms(quantile(self._latency, 0.5)),
            p95_ms=_ms(quantile(self._latency, 0.95)),
            p99_ms=_ms(quantile(self._latency, 0.99)),
            **self._totals,
        )


def _ms(microseconds: float | None) -> float | None:
    return None if microseconds is None else microseconds / 1000
