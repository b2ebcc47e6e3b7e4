"""What is asked of telemetry: summaries, series and features, from roll-ups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from orchestrator.domain import figures
from orchestrator.domain.placing import AHEAD_MS
from orchestrator.domain.rollup import HOUR_MS, ClassHour, DeviceHour, Sums
from orchestrator.errors import Invalid
from orchestrator.services.ports import Clock, Transaction, UnitOfWork
from orchestrator.services.records import Asked, Span
from orchestrator.services.versions import found
from schemas.model import Manifest
from schemas.telemetry import FeatureView, TelemetryPoint, TelemetrySummary

By = Literal["device", "class", "tag"]
Bucket = Literal["1m", "1h", "1d"]

MAX_ROWS = 200_000
"""Roll-ups or windows that one question may read."""

MAX_POINTS = 2_000
"""Buckets in one series."""

MAX_TAGGED = 10_000
"""Devices with one tag."""

SECONDS: dict[Bucket, int] = {"1m": 60, "1h": 3600, "1d": 86_400}
_DEFAULT_SPAN: dict[Bucket, timedelta] = {
    "1m": timedelta(hours=1),
    "1h": timedelta(days=1),
    "1d": timedelta(days=30),
}
_LAST_HOUR = 2**31
_TOO_MUCH = "this is more than one question may read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of a version's telemetry.

    role: active or shadow. since, until: the span; whole hours, but for a series by the minute.
    device, device_class, tag: only what these did. A class is the one that a device was of when
    it reported; a tag is one that it has now.
    """

    model: str
    version: int
    role: Literal["active", "shadow"] = "active"
    variant: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    device: str | None = None
    device_class: str | None = None
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class _Part:
    """One roll-up or window on its way into a group. at: seconds since 1970."""

    variant: str
    at: int
    member: str
    sums: Sums


class TelemetryQueries:
    """Answers from roll-ups.

    Args:
        uow: opens transactions.
        clock: the time, in UTC.
    """

    def __init__(self, uow: UnitOfWork, clock: Clock) -> None:
        self._uow = uow
        self._clock = clock

    def summary(
        self, asked: Question, by: By | None = None, *, after: str | None = None, limit: int = 500
    ) -> Sequence[TelemetrySummary]:
        """Figures by variant, and by device, class or tag if asked.

        Args:
            asked: what.
            by: what else to tell apart.
            after: with ``by="device"``, the device after which to go on.
            limit: devices at most, with ``by="device"``.

        Raises:
            NotFound: there is no such version.
            Invalid: too much would have to be read, or the span is empty.
        """
        span = _hours(asked)
        with self._uow.read() as tx:
            found(tx, asked.model, asked.version)
            groups = _grouped(
                self._parts(tx, asked, by, span, after or "", limit),
                lambda part: (part.variant, part.member),
            )
        return [
            TelemetrySummary(
                **_names(asked, variant), **_member(asked, by, member), **figures.figures(sums)
            )
            for (variant, member), sums in sorted(groups.items(), key=lambda g: (g[0][1], g[0][0]))
        ]

    def series(self, asked: Question, bucket: Bucket) -> Sequence[TelemetryPoint]:
        """Figures by variant and bucket of time, oldest first; empty buckets are left out.

        By the minute they come from windows, which are kept for days; else from roll-ups.

        Raises:
            NotFound: there is no such version.
            Invalid: too many points, too much to read, or an empty span.
        """
        seconds = SECONDS[bucket]
        asked = self._spanned(asked, bucket)
        with self._uow.read() as tx:
            found(tx, asked.model, asked.version)
            if bucket == "1m":
                parts = _windows(tx, asked)
            else:
                parts = self._parts(tx, asked, None, _hours(asked), "", 0)
            groups = _grouped(parts, lambda part: (part.at - part.at % seconds, part.variant))
        return [
            TelemetryPoint(
                **_names(asked, variant),
                **_member(asked, None, ""),
                **figures.figures(sums),
                at=datetime.fromtimestamp(at, UTC),
                bucket_seconds=seconds,
            )
            for (at, variant), sums in sorted(groups.items())
        ]

    def features(self, asked: Question) -> Sequence[FeatureView]:
        """Input statistics beside the baseline of the version's manifest, by variant.

        Raises:
            NotFound: there is no such version.
            Invalid: as in ``summary``.
        """
        with self._uow.read() as tx:
            record = found(tx, asked.model, asked.version)
            baseline = Manifest.model_validate_json(record.manifest).baseline
            if baseline is None or not baseline.features:
                return []
            groups = _grouped(
                self._parts(tx, asked, None, _hours(asked), "", 0), lambda part: (part.variant,)
            )
        return [
            view
            for (variant,), sums in sorted(groups.items())
            for view in figures.feature_views(
                sums,
                baseline.features,
                model=asked.model,
                version=asked.version,
                variant=variant,
            )
        ]

    def _spanned(self, asked: Question, bucket: Bucket) -> Question:
        # A window may be said to begin as far ahead as clocks may run.
        until = asked.until or self._clock() + timedelta(milliseconds=AHEAD_MS)
        since = asked.since or until - _DEFAULT_SPAN[bucket]
        if (until - since).total_seconds() / SECONDS[bucket] > MAX_POINTS:
            msg = f"a series has at most {MAX_POINTS} points"
            raise Invalid(msg, hint="ask for a shorter span, or for a larger bucket")
        return replace(asked, since=since, until=until)

    def _parts(
        self, tx: Transaction, asked: Question, by: By | None, span: Span, after: str, limit: int
    ) -> Iterable[_Part]:
        of = Asked(
            model=asked.model,
            version=asked.version,
            role=asked.role,
            variant=asked.variant,
            device_class=asked.device_class,
        )
        narrowed = asked.device is not None or asked.tag is not None
        if by is None or by == "class":
            if not narrowed:
                hours = tx.telemetry.class_hours(of, span, MAX_ROWS + 1)
                return _of_classes(_bounded(hours), apart=by == "class")
            if by == "class" or asked.device_class is not None:
                msg = "figures of single devices are not kept by class"
                raise Invalid(msg, hint="leave out the class, or the device and the tag")
        elif asked.device_class is not None:
            msg = "figures of single devices are not kept by class"
            raise Invalid(msg, hint="give a tag in place of the class, or leave it out")
        of = replace(of, devices=_devices(tx, asked))
        if by == "tag":
            return self._by_tag(tx, of, span)
        if by == "device":
            if of.devices is None or len(of.devices) > 1:
                page = tx.telemetry.devices(of, span, after, limit)
                of = replace(of, devices=tuple(page))
            elif of.devices[0] <= after:
                return ()
        hours_of = tx.telemetry.device_hours(of, span, MAX_ROWS + 1)
        return _of_devices(_bounded(hours_of), lambda key: (key.device if by else "",))

    def _by_tag(self, tx: Transaction, of: Asked, span: Span) -> Iterable[_Part]:
        tags = tx.places.tags()
        hours = tx.telemetry.device_hours(of, span, MAX_ROWS + 1)
        return _of_devices(_bounded(hours), lambda key: tags.get(key.device, ()))


def _devices(tx: Transaction, asked: Question) -> tuple[str, ...] | None:
    if asked.device is not None:
        if asked.tag is not None:
            msg = "ask for a device or for a tag"
            raise Invalid(msg, hint="leave one of them out")
        return (asked.device,)
    return None if asked.tag is None else tuple(tx.places.tagged(asked.tag, MAX_TAGGED))


def _windows(tx: Transaction, asked: Question) -> Iterable[_Part]:
    if asked.device_class is not None:
        msg = "windows are kept by device, and not by class"
        raise Invalid(msg, hint="ask by the hour, or for a device or a tag")
    if asked.since is None or asked.until is None:
        return
    start, end = (round(at.timestamp() * 1000) for at in (asked.since, asked.until))
    of = Asked(
        model=asked.model,
        version=asked.version,
        role=asked.role,
        variant=asked.variant,
        devices=_devices(tx, asked),
    )
    for record, kept in _bounded(tx.telemetry.windows(of, start, end, MAX_ROWS + 1)):
        sums = Sums()
        sums.add(kept)
        yield _Part(record.variant, record.start_ms // 1000, "", sums)


def _of_classes(hours: Iterable[tuple[ClassHour, Sums]], *, apart: bool) -> Iterable[_Part]:
    for key, sums in hours:
        yield _Part(key.variant, key.hour * 3600, key.device_class if apart else "", sums)


def _of_devices(
    hours: Iterable[tuple[DeviceHour, Sums]], members: Callable[[DeviceHour], Sequence[str]]
) -> Iterable[_Part]:
    for key, sums in hours:
        for member in members(key):
            yield _Part(key.variant, key.hour * 3600, member, sums)


def _bounded(rows: Iterable[Any]) -> Iterable[Any]:
    for number, row in enumerate(rows):
        if number >= MAX_ROWS:
            raise Invalid(_TOO_MUCH, hint="narrow it down: --since 7d, a device or a class")
        yield row


def _grouped(parts: Iterable[_Part], key: Callable[[_Part], Any]) -> dict[Any, Sums]:
    groups: dict[Any, Sums] = {}
    for part in parts:
        groups.setdefault(key(part), Sums()).merge(part.sums)
    return groups


def _hours(asked: Question) -> Span:
    """The whole hours that a span touches.

    Raises:
        Invalid: it ends before it begins.
    """
    if asked.since is not None and asked.until is not None and asked.until <= asked.since:
        msg = "the span ends before it begins"
        raise Invalid(msg, hint="give a since that is before until")
    first = 0 if asked.since is None else int(asked.since.timestamp() * 1000) // HOUR_MS
    end = _LAST_HOUR if asked.until is None else -(-int(asked.until.timestamp() * 1000) // HOUR_MS)
    return Span(first, end)


def _names(asked: Question, variant: str) -> dict[str, Any]:
    span = _hours(asked)
    return {
        "model": asked.model,
        "version": asked.version,
        "variant": variant,
        "role": asked.role,
        "since": _time(span.first) if asked.since else None,
        "until": _time(span.end) if asked.until else None,
    }


def _time(hour: int) -> datetime:
    return datetime.fromtimestamp(hour * 3600, UTC)


def _member(asked: Question, by: By | None, member: str) -> dict[str, Any]:
    names = {"device": asked.device, "device_class": asked.device_class, "tag": asked.tag}
    if by is not None:
        names["device_class" if by == "class" else by] = member
    return names
