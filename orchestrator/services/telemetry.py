"""What devices tell of what they infer: each window is stored once, and added up."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import msgspec

from orchestrator.domain import placing
from orchestrator.domain.rollup import HOUR_MS, ClassHour, DeviceHour, Kept, Sums
from orchestrator.services.names_told import NamesTold
from orchestrator.services.ports import Clock, Transaction
from orchestrator.services.records import WindowRecord
from schemas.window import About, Envelope, Window

log = logging.getLogger(__name__)

WINDOW_DAYS = 14
MAX_SERIES = 2_000
"""Of what is counted for Prometheus: beyond so many, windows count as of no model."""

_encoder = msgspec.msgpack.Encoder()


@dataclass(frozen=True, slots=True)
class Heard:
    """An envelope as it came. size: its bytes."""

    device: str
    device_class: str
    envelope: Envelope
    size: int


@dataclass(frozen=True, slots=True)
class Taken:
    """What a batch added.

    repeated: windows that were there already; old: too old to be taken; strange: of too many names
    that nobody registered.
    """

    classes: Mapping[ClassHour, Sums]
    stored: int = 0
    repeated: int = 0
    old: int = 0
    strange: int = 0


@dataclass(frozen=True, slots=True)
class Series:
    """The labels of what is counted since the start: no device among them."""

    model: str
    version: int
    variant: str
    device_class: str
    role: str


NOBODY = Series("", 0, "", "", "")
"""What is counted where there are too many series, and of names that nobody registered."""


class TelemetryService:
    """Takes windows from the gateway.

    Args:
        clock: the time, in UTC.
        days: how long windows are kept; what is older is not taken.
    """

    def __init__(self, clock: Clock, *, days: float = WINDOW_DAYS) -> None:
        self._clock = clock
        self._keep_ms = round(timedelta(days=days).total_seconds() * 1000)
        self._lock = threading.Lock()
        self._counters = {"stored": 0, "repeated": 0, "old": 0, "strange": 0, "malformed": 0}
        self._names = NamesTold()
        self._series: dict[Series, Sums] = {}

    def take(self, tx: Transaction, heard: Sequence[Heard]) -> Taken:
        """Store windows, each once, and add those that are new to their hours.

        Nothing is counted for Prometheus before ``committed`` is told of the answer.
        """
        told = (
            (one.device, (about.model, about.version, about.variant))
            for one in heard
            for about in one.envelope.about
        )
        batch = _Batch(_ms(self._clock()), self._keep_ms, self._names.refused(tx, told))
        for one in heard:
            batch.read(one)
        new = tx.telemetry.add([window.record for window in batch.found.values()])
        devices, classes = batch.hours(new)
        if new:
            _add_up(tx, devices, classes)
        repeated = batch.repeated + len(batch.found) - len(new)
        return Taken(classes, len(new), repeated, batch.old, batch.strange)

    def committed(self, taken: Taken) -> None:
        """Count what was stored, now that it is."""
        with self._lock:
            self._counters["stored"] += taken.stored
            self._counters["repeated"] += taken.repeated
            self._counters["old"] += taken.old
            self._counters["strange"] += taken.strange
            for key, sums in taken.classes.items():
                series = Series(key.model, key.version, key.variant, key.device_class, key.role)
                full = series not in self._series and len(self._series) >= MAX_SERIES
                if full or not self._names.registered((key.model, key.version, key.variant)):
                    series = NOBODY
                self._series.setdefault(series, Sums()).merge(sums)
        if taken.old:
            log.warning("%d windows are too old to be taken (ARGOSY_WINDOW_DAYS)", taken.old)
        if taken.strange:
            log.warning("%d windows are of too many versions that are unknown here", taken.strange)

    def malformed(self) -> None:
        """Count an envelope that could not be read."""
        with self._lock:
            self._counters["malformed"] += 1

    def counters(self) -> Mapping[str, int]:
        """Windows since the start, by what became of them."""
        with self._lock:
            return dict(self._counters)

    def series(self) -> Mapping[Series, Sums]:
        """What was stored since the start, by model, version, variant, class and role."""
        with self._lock:
            # A copy: the text is made from it while windows come.
            return {series: _copy(sums) for series, sums in self._series.items()}


@dataclass(frozen=True, slots=True)
class _Found:
    record: WindowRecord
    kept: Kept
    device_class: str


@dataclass(slots=True)
class _Batch:
    """The windows of a batch: each once, placed in time."""

    now_ms: int
    keep_ms: int
    refused: Collection[tuple[str, tuple[str, int, str]]] = ()
    found: dict[tuple[str, bytes, int], _Found] = field(default_factory=dict)
    repeated: int = 0
    old: int = 0
    strange: int = 0

    def read(self, heard: Heard) -> None:
        envelope = heard.envelope
        share, rest = divmod(heard.size, len(envelope.windows))
        for window in envelope.windows:
            self._window(heard, envelope.about[window.about], window, share + rest)
            rest = 0

    def _window(self, heard: Heard, about: About, window: Window, size: int) -> None:
        name = (about.model, about.version, about.variant)
        if self.refused and (heard.device, name) in self.refused:
            self.strange += 1
            return
        placed = placing.place(window.start_ms, self.now_ms, self.keep_ms, synced=window.synced)
        key = (heard.device, about.boot, window.seq)
        if placed is None or key in self.found:
            self.old += placed is None
            self.repeated += placed is not None
            return
        start_ms, moved = placed
        kept = Kept(
            window,
            placing.provider(about.provider),
            placing.provider(about.wanted),
            placing.nodes(about.nodes) if about.nodes else {},
            size,
            moved,
        )
        record = WindowRecord(
            heard.device,
            about.boot,
            window.seq,
            about.model,
            about.version,
            about.variant,
            about.role,
            start_ms,
            self.now_ms,
            window.n,
            window.errors,
            window.lost,
            window.labelled,
            window.correct,
            _encoder.encode(kept),
        )
        self.found[key] = _Found(record, kept, heard.device_class)

    def hours(
        self, new: Sequence[WindowRecord]
    ) -> tuple[dict[DeviceHour, list[Kept]], dict[ClassHour, Sums]]:
        """The new ones by device and hour, and what they add up to by class and hour."""
        devices: dict[DeviceHour, list[Kept]] = {}
        classes: dict[ClassHour, Sums] = {}
        for record in new:
            found = self.found[record.key]
            hour = record.start_ms // HOUR_MS
            head, tail = (record.model, record.version, hour), (record.role, record.variant)
            devices.setdefault(DeviceHour(*head, record.device_id, *tail), []).append(found.kept)
            its_class = ClassHour(*head, found.device_class, *tail)
            sums = classes.get(its_class)
            if sums is None:
                sums = classes[its_class] = Sums()
            sums.add(found.kept)
        return devices, classes


def _add_up(
    tx: Transaction, devices: Mapping[DeviceHour, list[Kept]], classes: Mapping[ClassHour, Sums]
) -> None:
    """Add a batch to its hours: of devices window by window, as there is often but one."""
    of_devices, of_classes = tx.telemetry.kept(devices.keys(), classes.keys())
    for device, windows in devices.items():
        sums = of_devices.get(device)
        if sums is None:
            sums = of_devices[device] = Sums()
        for window in windows:
            sums.add(window)
    for its_class, more in classes.items():
        of_classes.setdefault(its_class, Sums()).merge(more)
    tx.telemetry.keep(of_devices, of_classes)


def _copy(sums: Sums) -> Sums:
    copy = Sums()
    copy.merge(sums)
    return copy


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)
