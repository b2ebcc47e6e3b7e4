"""Samples of devices in SQL, and where devices stand."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

from sqlalchemy import CursorResult, delete, func, insert, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from orchestrator.adapters.tables import DeviceRow, SampleRow, SampleTotalRow
from orchestrator.services.records import SamplePage, SampleRecord
from schemas.device import DeviceState

_PORTION = 500
_KEY = (SampleRow.device_id, SampleRow.boot, SampleRow.seq)
_ORDER = (SampleRow.received_ms, *_KEY)
_SHUT_OUT = (DeviceState.PENDING.value, DeviceState.REVOKED.value)


class SqlSamples:
    """``services.ports.Samples`` over SQLAlchemy."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, records: Iterable[SampleRecord]) -> int:
        sizes: dict[tuple[str, str], int] = {}
        for record in records:
            known = select(SampleRow.seq).where(
                SampleRow.device_id == record.device_id,
                SampleRow.boot == record.boot,
                SampleRow.seq == record.seq,
            )
            if self._session.scalar(known) is not None:
                continue
            self._session.execute(insert(SampleRow), asdict(record))
            key = (record.model, record.stream)
            sizes[key] = sizes.get(key, 0) + len(record.body)
        self._count(sizes)
        return sum(sizes.values())

    def _count(self, sizes: Mapping[tuple[str, str], int]) -> None:
        dialect = self._session.get_bind().dialect.name
        into = (postgresql if dialect == "postgresql" else sqlite).insert(SampleTotalRow)
        into = into.on_conflict_do_update(
            index_elements=["model", "stream"],
            set_={"bytes": SampleTotalRow.bytes + into.excluded.bytes},
        )
        for (model, stream), size in sorted(sizes.items()):
            row = {"model": model, "stream": stream, "bytes": size}
            self._session.execute(into, row)

    def kept(self) -> Mapping[tuple[str, str], int]:
        rows = select(SampleTotalRow.model, SampleTotalRow.stream, SampleTotalRow.bytes)
        return {(model, stream): size for model, stream, size in self._session.execute(rows)}

    def drop(self, model: str, stream: str, size: int) -> int:
        its = (SampleRow.model == model, SampleRow.stream == stream)
        oldest = select(*_KEY, func.length(SampleRow.body)).where(*its).order_by(*_ORDER)
        gone, keys = 0, []
        for *key, length in self._session.execute(oldest.limit(_PORTION)):
            if gone >= size:
                break
            gone += length
            keys.append(tuple(key))
        self._delete(keys)
        self._count({(model, stream): -gone})
        return gone

    def page(self, asked: SamplePage) -> Sequence[SampleRecord]:
        query = select(*(getattr(SampleRow, name) for name in SampleRecord.__slots__)).where(
            SampleRow.model == asked.model
        )
        if asked.version is not None:
            query = query.where(SampleRow.version == asked.version)
        if asked.stream is not None:
            query = query.where(SampleRow.stream == asked.stream)
        if asked.after is not None:
            query = query.where(tuple_(*_ORDER) > asked.after)
        rows = self._session.execute(query.order_by(*_ORDER).limit(asked.limit))
        return [SampleRecord(**row._asdict()) for row in rows]

    def prune(self, received_ms: int, limit: int) -> int:
        old = (
            select(*_KEY, SampleRow.model, SampleRow.stream, func.length(SampleRow.body))
            .where(SampleRow.received_ms < received_ms)
            .order_by(SampleRow.received_ms)
            .limit(limit)
        )
        keys, sizes = [], dict[tuple[str, str], int]()
        for *key, model, stream, length in self._session.execute(old):
            keys.append(tuple(key))
            sizes[model, stream] = sizes.get((model, stream), 0) - length
        self._delete(keys)
        self._count(sizes)
        return len(keys)

    def _delete(self, keys: Sequence[tuple[Any, ...]]) -> None:
        for start in range(0, len(keys), _PORTION):
            gone = delete(SampleRow).where(tuple_(*_KEY).in_(keys[start : start + _PORTION]))
            cast(
                "CursorResult[Any]",
                self._session.execute(gone, execution_options={"synchronize_session": False}),
            )


class SqlPlaces:
    """``services.ports.Places`` over SQLAlchemy."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def classes(self, ids: Collection[str]) -> Mapping[str, str]:
        found: dict[str, str] = {}
        wanted = sorted(set(ids))
        for start in range(0, len(wanted), _PORTION):
            query = select(DeviceRow.id, DeviceRow.device_class).where(
                DeviceRow.id.in_(wanted[start : start + _PORTION]),
                DeviceRow.state.not_in(_SHUT_OUT),
            )
            found |= dict(self._session.execute(query).all())
        return found

    def tagged(self, tag: str, limit: int) -> Sequence[str]:
        return [device for device, tags in self.tags().items() if tag in tags][:limit]

    def tags(self) -> Mapping[str, Sequence[str]]:
        rows = self._session.execute(select(DeviceRow.id, DeviceRow.tags).order_by(DeviceRow.id))
        return {device: tuple(tags) for device, tags in rows if tags}
