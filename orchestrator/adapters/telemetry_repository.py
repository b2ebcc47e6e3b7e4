"""Telemetry windows and events in SQL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, delete, func, insert, literal_column, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from orchestrator.adapters.mapping import row_of
from orchestrator.adapters.repository import Records
from orchestrator.adapters.tables import EventRow, WindowRow
from orchestrator.services.records import DeviceTotals, WindowFigures, WindowRecord
from schemas.api import Event


class SqlTelemetry:
    """``services.ports.Telemetry`` over SQLAlchemy."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._windows = Records(session, WindowRow, WindowRecord)

    def add(self, record: WindowRecord) -> bool:
        if self._windows.get(record.device_id, record.boot, record.seq) is not None:
            return False
        self._windows.add(record)
        return True

    def add_all(self, records: Iterable[WindowRecord]) -> None:
        rows = [row_of(record) for record in records]
        if rows:
            dialect = self._session.get_bind().dialect.name
            into = (postgresql if dialect == "postgresql" else sqlite).insert(WindowRow)
            self._session.execute(into.on_conflict_do_nothing(), rows)

    def totals(
        self, model: str, version: int, since: datetime | None = None
    ) -> Mapping[str, DeviceTotals]:
        query = (
            select(
                WindowRow.device_id,
                func.sum(WindowRow.n),
                func.sum(WindowRow.errors),
                func.sum(WindowRow.labelled),
                func.sum(WindowRow.correct),
                func.max(WindowRow.received_at),
            )
            .where(
                WindowRow.model == model, WindowRow.version == version, WindowRow.role == "active"
            )
            .group_by(WindowRow.device_id)
        )
        if since is not None:
            query = query.where(WindowRow.received_at >= since)
        return {
            device: DeviceTotals(device, int(n), int(errors), int(labelled), int(correct), last)
            for device, n, errors, labelled, correct, last in self._session.execute(query)
        }

    def figures(self, model: str, version: int) -> Iterator[WindowFigures]:
        query = select(
            WindowRow.variant,
            WindowRow.device_id,
            WindowRow.n,
            WindowRow.errors,
            WindowRow.labelled,
            WindowRow.correct,
            WindowRow.payload,
        ).where(WindowRow.model == model, WindowRow.version == version, WindowRow.role == "active")
        for row in self._session.execute(query).yield_per(1000):
            variant, device, n, errors, labelled, correct, payload = row
            latency = payload["latency_us"]
            yield WindowFigures(variant, device, n, errors, labelled, correct, latency)


class SqlEvents:
    """``services.ports.Events`` over SQLAlchemy."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, kind: str, subject: str, data: Mapping[str, Any], at: datetime) -> None:
        self._session.add(EventRow(kind=kind, subject=subject, data=dict(data), at=at))
        self._session.flush()

    def add_all(
        self, kind: str, happened: Iterable[tuple[str, Mapping[str, Any]]], at: datetime
    ) -> None:
        rows = [
            {"kind": kind, "subject": subject, "data": dict(data), "at": at}
            for subject, data in happened
        ]
        if rows:
            self._session.execute(insert(EventRow), rows)

    def replace_live(self, subject: str, data: Mapping[str, Any], at: datetime) -> None:
        self.remove_live(subject)
        self.add("live", subject, data, at)

    def remove_live(self, subject: str) -> None:
        # A literal, as a database uses the index of live events only where it reads the kind.
        live = EventRow.kind == literal_column("'live'")
        self._delete(live, EventRow.subject == subject)

    def surplus(self, keep: int) -> int:
        oldest = select(EventRow.id).order_by(EventRow.id.desc()).offset(keep).limit(1)
        return self._session.scalar(oldest) or 0

    def prune(self, before: datetime, up_to: int, limit: int) -> int:
        query = select(EventRow.id, EventRow.at).order_by(EventRow.id).limit(limit)
        rows = self._session.execute(query).all()
        gone = [number for number, at in rows if at < before or number <= up_to]
        if gone:
            self._delete(EventRow.id.in_(gone))
        return len(gone)

    def _delete(self, *where: ColumnElement[bool]) -> None:
        gone = delete(EventRow).where(*where)
        self._session.execute(gone, execution_options={"synchronize_session": False})

    def after(self, event_id: int, subject: str | None, limit: int) -> Sequence[Event]:
        query = select(EventRow).where(EventRow.id > event_id).order_by(EventRow.id).limit(limit)
        if subject is not None:
            query = query.where(EventRow.subject == subject)
        return [
            Event.model_validate(row, from_attributes=True) for row in self._session.scalars(query)
        ]

    def last_id(self) -> int:
        return self._session.scalar(select(func.max(EventRow.id))) or 0
