"""Classes of devices, and what their devices measured, in SQL."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import and_, delete, func, select
from sqlalchemy.orm import Session

from orchestrator.adapters.mapping import plain
from orchestrator.adapters.repository import Records
from orchestrator.adapters.tables import (
    DeviceClassRow,
    DeviceRow,
    MeasuredRow,
    ModelVersionRow,
)
from orchestrator.domain.measured import Sample, by_class
from orchestrator.services.records import DeviceClassRecord, MeasuredRecord
from schemas.device import DeviceState
from schemas.measure import MeasuredVariant

MAX_SAMPLES = 200
"""Devices of a class whose figures of a variant are looked at: the newest say enough."""

_THERE = DeviceRow.state != DeviceState.REVOKED.value


class SqlDeviceClasses:
    """``services.ports.DeviceClasses`` over SQLAlchemy."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._classes = Records(session, DeviceClassRow, DeviceClassRecord)

    def put(self, record: DeviceClassRecord) -> None:
        row = DeviceClassRow(
            name=record.name, spec=plain(record.spec), updated_at=record.updated_at
        )
        self._session.merge(row)
        self._session.flush()

    def get(self, name: str) -> DeviceClassRecord | None:
        return self._classes.get(name)

    def delete(self, name: str) -> None:
        self._session.execute(delete(DeviceClassRow).where(DeviceClassRow.name == name))

    def all(self) -> Sequence[DeviceClassRecord]:
        return self._classes.all(select(DeviceClassRow).order_by(DeviceClassRow.name))

    def names(self, after: str | None, limit: int) -> Sequence[str]:
        known = select(DeviceClassRow.name.label("name"))
        there = select(DeviceRow.device_class.label("name")).where(_THERE)
        every = known.union(there).subquery()
        query = select(every.c.name)
        if after is not None:
            query = query.where(every.c.name > after)
        return list(self._session.scalars(query.order_by(every.c.name).limit(limit)))

    def devices(self, names: Collection[str]) -> Mapping[str, int]:
        counted = (
            select(DeviceRow.device_class, func.count())
            .where(_THERE, DeviceRow.device_class.in_(names))
            .group_by(DeviceRow.device_class)
        )
        found = {name: int(n) for name, n in self._session.execute(counted)}
        return {name: found.get(name, 0) for name in names}


class SqlMeasured:
    """``services.ports.Measured`` over SQLAlchemy."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._measured = Records(session, MeasuredRow, MeasuredRecord)

    def put(self, record: MeasuredRecord) -> None:
        key = (record.device_id, record.sha256, record.batch)
        before = self._measured.get(*key)
        if before is None:
            self._measured.add(record)
        elif before.at <= record.at:
            self._measured.save(record, *key)

    def batches(self, device_id: str, sha256: str) -> Collection[int]:
        where = (MeasuredRow.device_id == device_id, MeasuredRow.sha256 == sha256)
        return list(self._session.scalars(select(MeasuredRow.batch).where(*where)))

    def of_version(self, model: str, version: int) -> Sequence[MeasuredVariant]:
        where = (ModelVersionRow.model == model, ModelVersionRow.version == version)
        text = self._session.scalar(select(ModelVersionRow.manifest).where(*where))
        if text is None:
            return ()
        # By the file: figures of one that several versions have are true of all of them.
        variants = {one["file"]["sha256"]: one["id"] for one in json.loads(text)["variants"]}
        alike = (MeasuredRow.sha256, DeviceRow.device_class)
        newest = (MeasuredRow.at.desc(), MeasuredRow.device_id)
        ranked = (
            select(
                MeasuredRow.sha256,
                MeasuredRow.device_id,
                DeviceRow.device_class,
                func.count().over(partition_by=alike).label("devices"),
                func.row_number().over(partition_by=alike, order_by=newest).label("place"),
            )
            .join(DeviceRow, DeviceRow.id == MeasuredRow.device_id)
            .where(MeasuredRow.sha256.in_(variants), MeasuredRow.batch == 1, _THERE)
            .subquery()
        )
        # The figures themselves are read of those few alone, and not sorted with all.
        same = and_(
            MeasuredRow.device_id == ranked.c.device_id,
            MeasuredRow.sha256 == ranked.c.sha256,
            MeasuredRow.batch == 1,
        )
        query = (
            select(ranked, MeasuredRow.benchmark, MeasuredRow.at)
            .join(MeasuredRow, same)
            .where(ranked.c.place <= MAX_SAMPLES)
        )
        # Not through the wire types: a fleet has many rows, and they were checked when they came.
        return by_class(
            Sample(
                variant=variants[row.sha256],
                device_class=row.device_class,
                device=row.device_id,
                p50_ms=row.benchmark["p50_ms"],
                p95_ms=row.benchmark["p95_ms"],
                load_ms=row.benchmark["load_ms"],
                cpu_ms=row.benchmark["cpu_ms"],
                rss_growth_mb=row.benchmark["rss_growth_mb"],
                millijoules=(row.benchmark["energy"] or {}).get("millijoules"),
                devices=row.devices,
                at=row.at,
            )
            for row in self._session.execute(query)
        )
