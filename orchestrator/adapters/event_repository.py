"""Events in SQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, delete, func, insert, literal_column, select
from sqlalchemy.orm import Session

from orchestrator.adapters.tables import EventRow
from schemas.api import Event


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
            # Into the table, not by the class: the mapping costs more than the writing.
            self._session.execute(insert(EventRow.__table__), rows)  # type: ignore[arg-type]

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

    def after(
        self, event_id: int, subject: str | None, limit: int, kind: str | None = None
    ) -> Sequence[Event]:
        query = select(EventRow).where(EventRow.id > event_id).order_by(EventRow.id).limit(limit)
        if subject is not None:
            query = query.where(EventRow.subject == subject)
        if kind is not None:
            query = query.where(EventRow.kind == kind)
        return [
            Event.model_validate(row, from_attributes=True) for row in self._session.scalars(query)
        ]

    def last_id(self) -> int:
        return self._session.scalar(select(func.max(EventRow.id))) or 0
