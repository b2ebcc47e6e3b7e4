"""Lets go of telemetry that is older than it is kept, a little at a time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.domain.rollup import HOUR_MS
from orchestrator.services.ports import Clock, UnitOfWork
from orchestrator.services.samples import SampleService
from orchestrator.services.telemetry import WINDOW_DAYS

DEVICE_HOUR_DAYS = 60
CLASS_HOUR_DAYS = 730
_EVERY = timedelta(minutes=5)
_BATCH = 2_000
_MARGIN = timedelta(days=1)
"""Windows stay for so much longer than any of their age is taken: one that comes again is known,
or is too old, also when its device has corrected its clock in between."""


@dataclass(frozen=True, slots=True)
class Ages:
    """For how many days each is kept."""

    windows: float = WINDOW_DAYS
    device_hours: float = DEVICE_HOUR_DAYS
    class_hours: float = CLASS_HOUR_DAYS


class TelemetryRetention:
    """Deletes what is too old, in batches that hold no other writer up for long.

    Args:
        uow: opens transactions.
        clock: the time, in UTC.
        samples: its own too.
        ages: how long each is kept.
        every: the time between two sweeps.
        batch: rows deleted per transaction.
    """

    def __init__(
        self,
        uow: UnitOfWork,
        clock: Clock,
        samples: SampleService,
        ages: Ages = Ages(),
        *,
        every: timedelta = _EVERY,
        batch: int = _BATCH,
    ) -> None:
        self._uow = uow
        self._clock = clock
        self._samples = samples
        self._ages = ages
        self._every = every
        self._batch = batch
        self._swept: datetime | None = None

    def tick(self) -> int:
        """One batch of a sweep that is due; how many rows went. The rest goes at the next tick."""
        now = self._clock()
        # A clock that was set back must not stop the sweeps.
        if self._swept is not None and self._swept <= now < self._swept + self._every:
            return 0
        windows = _ms(now - timedelta(days=self._ages.windows) - _MARGIN)
        devices = _ms(now - timedelta(days=self._ages.device_hours)) // HOUR_MS
        classes = _ms(now - timedelta(days=self._ages.class_hours)) // HOUR_MS
        with self._uow() as tx:
            gone = tx.telemetry.prune(windows, devices, classes, self._batch)
        given = self._samples.prune(self._batch // 10)
        if not gone and not given:
            self._swept = now
        return gone + given


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)
