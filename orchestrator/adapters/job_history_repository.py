"""A job's metrics, logs and dataset profile in SQL."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session

from orchestrator.adapters.tables import JobLogRow, JobLogTotalsRow, JobMetricRow, JobProfileRow
from orchestrator.domain.logs import LogQuery, LogTotals
from schemas.dataset import DatasetProfile
from schemas.job import LogLine, MetricPoint

_BATCH = 500


class SqlJobHistory:
    """``services.ports.JobHistory`` over SQLAlchemy."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def put_metrics(self, job_id: str, points: Iterable[MetricPoint]) -> None:
        newest = {(point.trial, point.epoch): point for point in points}
        for trial in {trial for trial, _ in newest}:
            self.drop_metrics(job_id, trial, [epoch for of, epoch in newest if of == trial])
        rows = [
            {"job_id": job_id, "trial": p.trial, "epoch": p.epoch, "at": p.at, "values": p.values}
            for p in newest.values()
        ]
        if rows:
            self._session.execute(insert(JobMetricRow), rows)

    def metrics(
        self, job_id: str, after_epoch: int, limit: int, trial: int | None = None
    ) -> Sequence[MetricPoint]:
        query = select(JobMetricRow).where(
            JobMetricRow.job_id == job_id, JobMetricRow.epoch > after_epoch
        )
        if trial is not None:
            query = query.where(JobMetricRow.trial == trial)
        query = query.order_by(JobMetricRow.epoch, JobMetricRow.trial)
        rows = list(self._session.scalars(query.limit(limit)))
        if trial is None and len(rows) == limit:
            last = rows[-1]
            rest = query.where(JobMetricRow.epoch == last.epoch, JobMetricRow.trial > last.trial)
            rows += self._session.scalars(rest)
        return [_point(row) for row in rows]

    def trials(self, job_id: str) -> Sequence[int]:
        query = select(JobMetricRow.trial).where(JobMetricRow.job_id == job_id).distinct()
        return list(self._session.scalars(query.order_by(JobMetricRow.trial)))

    def series(self, job_id: str, trial: int, after_epoch: int = -1) -> Sequence[MetricPoint]:
        # Columns and not rows: thousands of points need not be tracked for changes.
        query = select(JobMetricRow.epoch, JobMetricRow.at, JobMetricRow.values).where(
            JobMetricRow.job_id == job_id,
            JobMetricRow.trial == trial,
            JobMetricRow.epoch > after_epoch,
        )
        found = self._session.execute(query.order_by(JobMetricRow.epoch))
        return [MetricPoint(epoch=e, trial=trial, at=at, values=v) for e, at, v in found]

    def has_more_metrics(self, job_id: str, trial: int, n: int) -> bool:
        query = select(JobMetricRow.epoch).where(
            JobMetricRow.job_id == job_id, JobMetricRow.trial == trial
        )
        query = query.order_by(JobMetricRow.epoch).offset(n).limit(1)
        return self._session.scalar(query) is not None

    def drop_metrics(self, job_id: str, trial: int, epochs: Sequence[int]) -> None:
        for start in range(0, len(epochs), _BATCH):
            some = epochs[start : start + _BATCH]
            gone = delete(JobMetricRow).where(
                JobMetricRow.job_id == job_id,
                JobMetricRow.trial == trial,
                JobMetricRow.epoch.in_(some),
            )
            self._session.execute(gone, execution_options={"synchronize_session": False})

    def drop_metrics_after(self, job_id: str, trial: int, epoch: int) -> None:
        gone = delete(JobMetricRow).where(
            JobMetricRow.job_id == job_id, JobMetricRow.trial == trial, JobMetricRow.epoch > epoch
        )
        self._session.execute(gone, execution_options={"synchronize_session": False})

    def add_logs(self, job_id: str, lines: Iterable[LogLine]) -> None:
        rows = [
            {"job_id": job_id, "at": line.at, "level": line.level, "text": line.text}
            for line in lines
        ]
        if rows:
            self._session.execute(insert(JobLogRow), rows)

    def logs(self, job_id: str, query: LogQuery) -> Sequence[tuple[int, LogLine]]:
        found = select(JobLogRow).where(JobLogRow.job_id == job_id, JobLogRow.id > query.after)
        if query.levels is not None:
            found = found.where(JobLogRow.level.in_(query.levels))
        if query.search:
            found = found.where(JobLogRow.text.icontains(query.search, autoescape=True))
        order = JobLogRow.id.desc() if query.tail else JobLogRow.id
        rows = list(self._session.scalars(found.order_by(order).limit(query.limit)))
        rows.sort(key=lambda row: row.id)
        return [(row.id, LogLine.model_validate(row, from_attributes=True)) for row in rows]

    def last_log(self, job_id: str) -> int:
        query = select(func.max(JobLogRow.id)).where(JobLogRow.job_id == job_id)
        return self._session.scalar(query) or 0

    def log_sizes(self, job_id: str, after: int, limit: int) -> Sequence[tuple[int, int]]:
        query = (
            select(JobLogRow.id, JobLogRow.text)
            .where(JobLogRow.job_id == job_id, JobLogRow.id > after)
            .order_by(JobLogRow.id)
            .limit(limit)
        )
        return [(number, len(text.encode())) for number, text in self._session.execute(query)]

    def cut_logs(self, job_id: str, last: int, text: str) -> None:
        older = delete(JobLogRow).where(JobLogRow.job_id == job_id, JobLogRow.id < last)
        teller = update(JobLogRow).where(JobLogRow.id == last).values(level="warning", text=text)
        for change in (older, teller):
            self._session.execute(change, execution_options={"synchronize_session": False})

    def log_totals(self, job_id: str) -> LogTotals | None:
        row = self._session.get(JobLogTotalsRow, job_id)
        return None if row is None else LogTotals(row.lines, row.size, row.dropped)

    def save_log_totals(self, job_id: str, totals: LogTotals) -> None:
        row = JobLogTotalsRow(
            job_id=job_id, lines=totals.lines, size=totals.size, dropped=totals.dropped
        )
        self._session.merge(row)
        self._session.flush()

    def put_profile(self, job_id: str, profile: DatasetProfile) -> None:
        self._session.merge(JobProfileRow(job_id=job_id, profile=profile.model_dump(mode="json")))
        self._session.flush()

    def profile(self, job_id: str) -> DatasetProfile | None:
        row = self._session.get(JobProfileRow, job_id)
        return None if row is None else DatasetProfile.model_validate(row.profile)


def _point(row: JobMetricRow) -> MetricPoint:
    return MetricPoint(epoch=row.epoch, trial=row.trial, at=row.at, values=row.values)
