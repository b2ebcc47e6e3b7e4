"""Jobs, their metrics and logs in SQL."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.adapters.repository import Records
from orchestrator.adapters.tables import JobLogRow, JobMetricRow, JobRow
from orchestrator.domain.job import ACTIVE
from orchestrator.services.records import JobRecord
from schemas.job import JobState, LogLine, MetricPoint


class SqlJobs:
    """``services.ports.Jobs`` over SQLAlchemy."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._jobs = Records(session, JobRow, JobRecord)

    def add(self, record: JobRecord) -> None:
        self._jobs.add(record)

    def save(self, record: JobRecord) -> None:
        self._jobs.save(record, record.id)

    def get(self, job_id: str, *, lock: bool = False) -> JobRecord | None:
        return self._jobs.get(job_id, lock=lock)

    def page(self, before: str | None, limit: int) -> Sequence[JobRecord]:
        return self._jobs.newest(JobRow.id, before, limit)

    def next_queued(self) -> JobRecord | None:
        query = (
            select(JobRow)
            .where(JobRow.state == JobState.QUEUED.value)
            .order_by(JobRow.created_at, JobRow.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        return next(iter(self._jobs.all(query)), None)

    def lease_expired(self, now: datetime) -> Sequence[JobRecord]:
        active = [state.value for state in ACTIVE]
        query = select(JobRow).where(JobRow.state.in_(active), JobRow.lease_until <= now)
        return self._jobs.all(query.with_for_update(skip_locked=True))

    def put_metrics(self, job_id: str, points: Iterable[MetricPoint]) -> None:
        for point in points:
            row = JobMetricRow(
                job_id=job_id,
                trial=point.trial,
                epoch=point.epoch,
                at=point.at,
                values=dict(point.values),
            )
            self._session.merge(row)
        self._session.flush()

    def metrics(self, job_id: str, after_epoch: int, limit: int) -> Sequence[MetricPoint]:
        query = (
            select(JobMetricRow)
            .where(JobMetricRow.job_id == job_id, JobMetricRow.epoch > after_epoch)
            .order_by(JobMetricRow.epoch)
            .limit(limit)
        )
        rows = self._session.scalars(query)
        return [MetricPoint(epoch=r.epoch, at=r.at, values=r.values) for r in rows]

    def add_logs(self, job_id: str, lines: Iterable[LogLine]) -> None:
        self._session.add_all(
            JobLogRow(job_id=job_id, at=line.at, level=line.level, text=line.text) for line in lines
        )
        self._session.flush()

    def logs(self, job_id: str, after: int, limit: int) -> Sequence[tuple[int, LogLine]]:
        query = (
            select(JobLogRow)
            .where(JobLogRow.job_id == job_id, JobLogRow.id > after)
            .order_by(JobLogRow.id)
            .limit(limit)
        )
        return [
            (row.id, LogLine.model_validate(row, from_attributes=True))
            for row in self._session.scalars(query)
        ]
