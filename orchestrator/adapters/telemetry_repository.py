"""Telemetry windows and their roll-ups in SQL."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, TypeVar, cast

import msgspec
from sqlalchemy import (
    ColumnElement,
    CursorResult,
    Select,
    Table,
    delete,
    func,
    insert,
    select,
    tuple_,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from orchestrator.adapters.tables import ClassHourRow, DeviceHourRow, WindowRow
from orchestrator.domain import rollup
from orchestrator.domain.placing import AHEAD_MS
from orchestrator.domain.rollup import ClassHour, DeviceHour, Kept, Sums
from orchestrator.services.records import Asked, Span, WindowRecord

K = TypeVar("K", DeviceHour, ClassHour)

_PORTION = 500
"""Keys in one statement."""

_HOURS_SOUGHT = 2000
"""Up to so many hours are sought one by one, where the rows of one device are wanted."""

_KEPT = msgspec.msgpack.Decoder(Kept)
_WINDOWS = cast("Table", WindowRow.__table__)
_KEY = (WindowRow.device_id, WindowRow.boot, WindowRow.seq)


class SqlTelemetry:
    """``services.ports.Telemetry`` over SQLAlchemy."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, records: Sequence[WindowRecord]) -> Sequence[WindowRecord]:
        if not records:
            return records
        try:
            # Nearly always all of them are new, and one statement tells.
            with self._session.begin_nested():
                self._insert(records)
        except IntegrityError:
            known = self._known(records)
            records = [record for record in records if record.key not in known]
            self._insert(records)
        return records

    def _insert(self, records: Sequence[WindowRecord]) -> None:
        if records:
            rows = [record._asdict() for record in records]
            self._session.connection().execute(insert(_WINDOWS), rows)

    def _known(self, records: Sequence[WindowRecord]) -> set[tuple[str, bytes, int]]:
        known: set[tuple[str, bytes, int]] = set()
        for start in range(0, len(records), _PORTION):
            keys = [record.key for record in records[start : start + _PORTION]]
            found = self._session.execute(select(*_KEY).where(tuple_(*_KEY).in_(keys)))
            known |= {(device, bytes(boot), seq) for device, boot, seq in found}
        return known

    def kept(
        self, devices: Collection[DeviceHour], classes: Collection[ClassHour]
    ) -> tuple[dict[DeviceHour, Sums], dict[ClassHour, Sums]]:
        return (
            self._kept(DeviceHourRow, DeviceHour, devices),
            self._kept(ClassHourRow, ClassHour, classes),
        )

    def keep(self, devices: Mapping[DeviceHour, Sums], classes: Mapping[ClassHour, Sums]) -> None:
        self._keep(DeviceHourRow, DeviceHour, devices)
        self._keep(ClassHourRow, ClassHour, classes)

    def _keep(self, row: type[Any], kind: type[K], hours: Mapping[K, Sums]) -> None:
        rows = [
            {**key._asdict(), "body": rollup.encode(sums)} for key, sums in sorted(hours.items())
        ]
        if not rows:
            return
        dialect = self._session.get_bind().dialect.name
        into = (postgresql if dialect == "postgresql" else sqlite).insert(row.__table__)
        into = into.on_conflict_do_update(
            index_elements=list(kind._fields), set_={"body": into.excluded.body}
        )
        self._session.connection().execute(into, rows)

    def _kept(self, row: type[Any], kind: type[K], wanted: Iterable[K]) -> dict[K, Sums]:
        """What is kept of these keys: of each version the hours and members that occur."""
        kept: dict[K, Sums] = {}
        member = kind._fields[3]
        for (model, version), group in groupby(sorted(wanted), key=lambda key: key[:2]):
            keys = list(group)
            for start in range(0, len(keys), _PORTION):
                portion = set(keys[start : start + _PORTION])
                query = select(*_columns(row, kind)).where(
                    row.model == model,
                    row.version == version,
                    row.hour.in_(sorted({key.hour for key in portion})),
                    getattr(row, member).in_(sorted({key[3] for key in portion})),
                )
                for *values, body in self._session.execute(query):
                    key = kind(*values)
                    if key in portion:
                        kept[key] = rollup.decode(body)
        return kept

    def device_hours(
        self, asked: Asked, span: Span, limit: int
    ) -> Iterator[tuple[DeviceHour, Sums]]:
        return self._hours(DeviceHourRow, DeviceHour, asked, span, limit)

    def class_hours(self, asked: Asked, span: Span, limit: int) -> Iterator[tuple[ClassHour, Sums]]:
        return self._hours(ClassHourRow, ClassHour, asked, span, limit)

    def _hours(
        self, row: type[Any], kind: type[K], asked: Asked, span: Span, limit: int
    ) -> Iterator[tuple[K, Sums]]:
        query = select(*_columns(row, kind)).where(*_in_span(row, asked, span)).limit(limit)
        for *values, body in self._session.execute(query).yield_per(1000):
            yield kind(*values), rollup.decode(body)

    def devices(self, asked: Asked, span: Span, after: str, limit: int) -> Sequence[str]:
        query = (
            select(DeviceHourRow.device)
            .where(*_in_span(DeviceHourRow, asked, span), DeviceHourRow.device > after)
            .distinct()
            .order_by(DeviceHourRow.device)
            .limit(limit)
        )
        return list(self._session.scalars(query))

    def windows(
        self, asked: Asked, start_ms: int, end_ms: int, limit: int
    ) -> Iterator[tuple[WindowRecord, Kept]]:
        query: Select[Any] = (
            select(*(getattr(WindowRow, name) for name in WindowRecord._fields))
            .where(
                WindowRow.model == asked.model,
                WindowRow.version == asked.version,
                # None begins after it was received, by more than a clock may run ahead.
                WindowRow.received_ms >= start_ms - AHEAD_MS,
                WindowRow.start_ms >= start_ms,
                WindowRow.start_ms < end_ms,
                *_asked_for(WindowRow, asked),
            )
            .limit(limit)
        )
        if asked.devices is not None:
            query = query.where(WindowRow.device_id.in_(asked.devices))
        for values in self._session.execute(query).yield_per(1000):
            record = WindowRecord(*values)
            yield record, _KEPT.decode(record.body)

    def prune(self, received_ms: int, device_hour: int, class_hour: int, limit: int) -> int:
        oldest = (
            select(*_KEY)
            .where(WindowRow.received_ms < received_ms)
            .order_by(WindowRow.received_ms)
            .limit(limit)
        )
        gone = self._delete(delete(WindowRow).where(tuple_(*_KEY).in_(oldest)))
        for row, hour in ((DeviceHourRow, device_hour), (ClassHourRow, class_hour)):
            gone += self._prune_hours(row, hour, limit)
        return gone

    def _prune_hours(self, row: type[Any], before: int, limit: int) -> int:
        """Hours of versions one by one: the key begins with them, so no other index is needed."""
        gone, last = 0, ("", 0)
        version = tuple_(row.model, row.version)
        while gone < limit:
            next_one = select(row.model, row.version).where(version > last)
            found = self._session.execute(
                next_one.order_by(row.model, row.version).limit(1)
            ).first()
            if found is None:
                break
            last = (found[0], found[1])
            its = (row.model == last[0], row.version == last[1])
            while gone < limit:
                hour = self._session.scalar(select(func.min(row.hour)).where(*its))
                if hour is None or hour >= before:
                    break
                gone += self._delete(delete(row).where(*its, row.hour == hour))
        return gone

    def _delete(self, statement: Any) -> int:
        done = self._session.execute(statement, execution_options={"synchronize_session": False})
        return cast("CursorResult[Any]", done).rowcount


def _columns(row: type[Any], kind: type[DeviceHour | ClassHour]) -> list[Any]:
    return [*(getattr(row, name) for name in kind._fields), row.body]


def _in_span(row: type[Any], asked: Asked, span: Span) -> list[ColumnElement[bool]]:
    where = [row.model == asked.model, row.version == asked.version]
    few = asked.devices is not None and len(asked.devices) == 1
    if few and span.end - span.first <= _HOURS_SOUGHT:
        where.append(row.hour.in_(range(span.first, span.end)))
    else:
        where += [row.hour >= span.first, row.hour < span.end]
    if asked.devices is not None:
        where.append(row.device.in_(asked.devices))
    if asked.device_class is not None:
        where.append(row.device_class == asked.device_class)
    return where + _asked_for(row, asked)


def _asked_for(row: type[Any], asked: Asked) -> list[ColumnElement[bool]]:
    where: list[ColumnElement[bool]] = []
    if asked.role is not None:
        where.append(row.role == asked.role)
    if asked.variant is not None:
        where.append(row.variant == asked.variant)
    return where
