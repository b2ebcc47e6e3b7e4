"""Jobs in SQL."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session

from orchestrator.adapters.repository import Records
from orchestrator.adapters.tables import JobRow
from orchestrator.domain.job import ACTIVE
from orchestrator.services.records import ActiveJob, JobRecord, QueuedJob
from schemas.job import JobState
from schemas.jobfile import Resources

_ACTIVE = [state.value for state in ACTIVE]


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

    def page(
        self,
        before: str | None,
        limit: int,
        *,
        states: Collection[JobState] = (),
        project: str | None = None,
        name: str | None = None,
    ) -> Sequence[JobRecord]:
        wanted: list[ColumnElement[bool]] = []
        if states:
            wanted.append(JobRow.state.in_([state.value for state in states]))
        if project is not None:
            wanted.append(JobRow.project == project)
        if name is not None:
            wanted.append(JobRow.name == name)
        return self._jobs.newest(JobRow.id, before, limit, *wanted)

    def queued(self, limit: int) -> Sequence[QueuedJob]:
        # A long queue is not loaded whole: half are those that waited longest, half those
        # of the highest priority, so that neither age nor priority is ever overlooked.
        age = (JobRow.created_at, JobRow.id)
        found: dict[str, QueuedJob] = {}
        for keys in (age, (JobRow.priority.desc(), *age)):
            query = (
                select(
                    JobRow.id,
                    JobRow.project,
                    JobRow.priority,
                    JobRow.spec["resources"].label("resources"),
                    JobRow.not_before,
                    JobRow.created_at,
                )
                .where(JobRow.state == JobState.QUEUED.value)
                .order_by(*keys)
                .limit(limit // 2)
            )
            for row in self._session.execute(query):
                found[row.id] = QueuedJob(
                    id=row.id,
                    project=row.project,
                    priority=row.priority,
                    resources=Resources.model_validate(row.resources or {}),
                    not_before=row.not_before,
                    created_at=row.created_at,
                )
        return list(found.values())

    def active(self) -> Sequence[ActiveJob]:
        query = select(JobRow.id, JobRow.project, JobRow.agent).where(JobRow.state.in_(_ACTIVE))
        return [
            ActiveJob(id=row.id, project=row.project, agent=row.agent)
            for row in self._session.execute(query.order_by(JobRow.id))
        ]

    def recent_use(self, since: datetime) -> Mapping[str, float]:
        query = select(JobRow.project, JobRow.usage).where(
            or_(JobRow.ended_at >= since, and_(JobRow.ended_at.is_(None), JobRow.attempt > 0))
        )
        used: defaultdict[str, float] = defaultdict(float)
        for project, usage in self._session.execute(query):
            for attempt in usage.values():
                used[project] += float(attempt.get("cpu_seconds", 0.0))
        return used

    def lease_expired(self, now: datetime) -> Sequence[JobRecord]:
        query = select(JobRow).where(JobRow.state.in_(_ACTIVE), JobRow.lease_until <= now)
        return self._jobs.all(query.with_for_update(skip_locked=True))
