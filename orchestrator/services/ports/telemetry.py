"""What is kept of telemetry."""

# ruff: noqa: D102 - a port says by name and type what it does
from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

from orchestrator.domain.rollup import ClassHour, DeviceHour, Kept, Sums
from orchestrator.services.records import Asked, SamplePage, SampleRecord, Span, WindowRecord


class Telemetry(Protocol):
    """Telemetry windows and their roll-ups.

    add: those that are not there yet, which it answers; no two of the same key in one call.
    kept, keep: of these hours what there is, and what takes its place. device_hours, class_hours:
    of a version in a span, in no order. devices: that have any hour there, by id, from after a
    cursor. windows: that began in a span of milliseconds. prune: about ``limit`` windows received
    before ``received_ms``, and hours of devices and of classes before these; how many went.
    """

    def add(self, records: Sequence[WindowRecord]) -> Sequence[WindowRecord]: ...
    def kept(
        self, devices: Collection[DeviceHour], classes: Collection[ClassHour]
    ) -> tuple[dict[DeviceHour, Sums], dict[ClassHour, Sums]]: ...
    def keep(
        self, devices: Mapping[DeviceHour, Sums], classes: Mapping[ClassHour, Sums]
    ) -> None: ...
    def device_hours(
        self, asked: Asked, span: Span, limit: int
    ) -> Iterable[tuple[DeviceHour, Sums]]: ...
    def class_hours(
        self, asked: Asked, span: Span, limit: int
    ) -> Iterable[tuple[ClassHour, Sums]]: ...
    def devices(self, asked: Asked, span: Span, after: str, limit: int) -> Sequence[str]: ...
    def windows(
        self, asked: Asked, start_ms: int, end_ms: int, limit: int
    ) -> Iterable[tuple[WindowRecord, Kept]]: ...
    def prune(self, received_ms: int, device_hour: int, class_hour: int, limit: int) -> int: ...


class Samples(Protocol):
    """Inputs that devices gave away, bounded by model and stream, and in all.

    add: those that are not there yet; how many bytes those were. kept: bytes by model and
    stream. drop: the oldest of a model's stream until so many bytes are gone; how many bytes
    went. page: from after a key, oldest first. prune: at most ``limit`` received before.
    """

    def add(self, records: Iterable[SampleRecord]) -> int: ...
    def kept(self) -> Mapping[tuple[str, str], int]: ...
    def drop(self, model: str, stream: str, size: int) -> int: ...
    def page(self, asked: SamplePage) -> Sequence[SampleRecord]: ...
    def prune(self, received_ms: int, limit: int) -> int: ...


class Places(Protocol):
    """Where devices stand: their class and tags.

    classes: of these devices those that are heard, with their class. tagged: devices that have
    a tag. tags: of every device that has any.
    """

    def classes(self, ids: Collection[str]) -> Mapping[str, str]: ...
    def tagged(self, tag: str, limit: int) -> Sequence[str]: ...
    def tags(self) -> Mapping[str, Sequence[str]]: ...
