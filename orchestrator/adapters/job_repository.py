"""Jobs in SQL."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import lru_cache

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from orchestrator.adapters.repository import Records
from orchestrator.adapters.tables import JobRow
from orchestrator.domain.job import ACTIVE
from orchestrator.services.records import ActiveJob, JobRecord, QueuedJob
from schemas.job import JobState
from schemas.jobfile import Resources

_ACTIVE = [state.value for state in ACTIVE]
_RESOURCES = JobRow.spec["resources"].as_string()


@lru_cache(maxsize=1024)
def _resources(text: str | None) -> Resources:
    return Resources() if text is None else Resources.model_validate_json(text)


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

    def by_submission(self, key: str) -> JobRecord | None:
        found = self._jobs.all(select(JobRow).where(JobRow.submission == key))
        return found[0] if found else None

    def queued(self, limit: int) -> Sequence[QueuedJob]:
        # Of jobs alike in project, priority and resources, the older always comes first. So
        # a long queue is looked at in part, and nobody's is hidden behind somebody else's.
        alike = (JobRow.project, JobRow.priority, _RESOURCES)
        place = func.row_number().over(partition_by=alike, order_by=(JobRow.created_at, JobRow.id))
        queued = (
            select(
                JobRow.id,
                JobRow.project,
                JobRow.priority,
                JobRow.not_before,
                JobRow.created_at,
                _RESOURCES.label("resources"),
                place.label("place"),
            )
            .where(JobRow.state == JobState.QUEUED.value)
            .subquery()
        )
        query = select(queued).where(queued.c.place <= limit)
        return [
            QueuedJob(
                id=row.id,
                project=row.project,
                priority=row.priority,
                resources=_resources(row.resources),
                not_before=row.not_before,
                created_at=row.created_at,
            )
            for row in self._session.execute(query)
        ]

    def active(self) -> Sequence[ActiveJob]:
        query = select(JobRow.id, JobRow.project, JobRow.agent).where(JobRow.state.in_(_ACTIVE))
        return [
            ActiveJob(id=row.id, project=row.project, agent=row.agent)
            for row in self._session.execute(query.order_by(JobRow.id))
        ]

    def recent_use(self, since: datetime) -> Mapping[str, float]:
        query = select(JobRow.project, func.sum(JobRow.cpu_seconds)).where(
            or_(JobRow.ended_at >= since, and_(JobRow.ended_at.is_(None), JobRow.attempt > 0))
        )
        used = self._session.execute(query.group_by(JobRow.project))
        return {project: float(seconds) for project, seconds in used}

    def lease_expired(self, now: datetime) -> Sequence[JobRecord]:
        query = select(JobRow).where(JobRow.state.in_(_ACTIVE), JobRow.lease_until <= now)
        return self._jobs.all(query.with_for_update(skip_locked=True))
