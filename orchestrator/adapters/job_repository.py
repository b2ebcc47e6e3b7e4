"""Jobs in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.adapters.repository import Records
from orchestrator.adapters.tables import JobRow
from orchestrator.domain.job import ACTIVE
from orchestrator.services.records import JobRecord
from schemas.job import JobState


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
