"""What every repository shares: records of one table, by key and by page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Select, select, update
from sqlalchemy.orm import Session

from orchestrator.adapters.mapping import differences, fill, to_record, to_row
from orchestrator.adapters.tables import Base
from orchestrator.errors import NotFound

R = TypeVar("R")


class Records(Generic[R]):
    """Records of one table.

    Args:
        session: the transaction's.
        row: the table.
        record: the record type; its field names are the table's columns.
    """

    def __init__(self, session: Session, row: type[Base], record: type[R]) -> None:
        self._session = session
        self._row = row
        self._record = record

    def add(self, record: R) -> None:
        """Insert a record; a taken key fails when the transaction is flushed."""
        self._session.add(to_row(self._row, record))
        self._session.flush()

    def get(self, *key: Any, lock: bool = False) -> R | None:
        """The record of a primary key; with ``lock``, held until the transaction ends."""
        row = self._session.get(self._row, key, with_for_update=lock or None)
        return None if row is None else to_record(self._record, row)

    def save(self, record: R, *key: Any) -> None:
        """Replace the record of a key.

        Raises:
            NotFound: there is none.
        """
        row = self._session.get(self._row, key)
        if row is None:
            msg = f"no {self._row.__tablename__} record {key}"
            raise NotFound(msg)
        fill(row, record)
        self._session.flush()

    def change(self, pairs: Iterable[tuple[R, R]]) -> None:
        """Replace records that were read in this transaction: before, after.

        Only what differs is written, with one statement for all that differ in the same fields.
        """
        key = [column.key for column in self._row.__table__.primary_key]
        alike: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for before, after in pairs:
            differs = differences(before, after)
            if differs:
                differs |= {name: getattr(after, name) for name in key}
                alike.setdefault(tuple(differs), []).append(differs)
        self._session.flush()
        for rows in alike.values():
            self._session.execute(update(self._row), rows)
        # Rows that the session still holds are as they were.
        self._session.expire_all()

    def all(self, query: Select[Any]) -> Sequence[R]:
        """The records that a query selects."""
        return [to_record(self._record, row) for row in self._session.scalars(query)]

    def newest(
        self, column: Any, before: str | None, limit: int, *wanted: ColumnElement[bool]
    ) -> Sequence[R]:
        """A page by descending id, from after the cursor, of the rows that are wanted."""
        query = select(self._row).where(*wanted).order_by(column.desc()).limit(limit)
        return self.all(query if before is None else query.where(column < before))
