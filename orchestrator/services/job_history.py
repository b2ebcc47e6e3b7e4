"""What is kept of a job's course: metrics, logs, live figures, the data's profile."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from orchestrator.domain import curves, logs
from orchestrator.domain.job import ACTIVE
from orchestrator.domain.logs import LogCap, LogQuery, LogTotals
from orchestrator.errors import NotFound
from orchestrator.services.ports import Transaction, UnitOfWork
from orchestrator.services.records import JobRecord
from schemas.dataset import DatasetProfile
from schemas.job import TERMINAL_JOB_STATES, JobProgress, LogLine, MetricPoint, Trial

METRICS_CAP = 5_000
"""Points kept of a training; thinned when there are twice as many."""

SWEPT_CAP = 500
"""The same of each trial of a sweep."""

LOG_CAP = LogCap()
_BATCH = 1000


def record(tx: Transaction, record: JobRecord, report: JobProgress, now: datetime) -> JobRecord:
    """Keep what a report says of a job's course.

    To be called once per report, with the job as the state machine moved it.

    Args:
        tx: the report's transaction.
        record: the job.
        report: not a repeat.
        now: the time of its arrival.

    Returns:
        the job with its new figures; the caller saves it.
    """
    if report.metrics:
        _keep(tx, record, report.metrics)
        record = _measured(tx, record, report.metrics)
    if report.logs:
        _log(tx, record.id, report.logs, LOG_CAP)
    if report.profile is not None:
        tx.job_history.put_profile(record.id, report.profile)
        record = replace(record, problems=report.profile.problems)
    if report.trials is not None:
        record = replace(record, trials=report.trials)
    if report.usage is not None:
        usage = {**record.usage, str(report.attempt): report.usage}
        seconds = sum(one.cpu_seconds for one in usage.values())
        record = replace(record, usage=usage, cpu_seconds=seconds)
    if report.live is not None:
        record = replace(record, live=report.live)
        tx.events.replace_live(record.id, report.live.model_dump(mode="json"), now)
    return record


def settle(tx: Transaction, record: JobRecord) -> JobRecord:
    """Take from a job that does not run any more what is true only while it runs.

    That is its live figures and, once it has ended, that trials run or wait. To be called
    with every job that may have changed its state, before it is saved.
    """
    if record.state in ACTIVE:
        return record
    if record.live is not None:
        tx.events.remove_live(record.id)
        record = replace(record, live=None)
    if record.state in TERMINAL_JOB_STATES:
        record = replace(record, trials=tuple(_ended(trial) for trial in record.trials))
    return record


def _ended(trial: Trial) -> Trial:
    if trial.state not in {"running", "waiting"}:
        return trial
    return trial.model_copy(update={"state": "stopped"})


class JobHistoryService:
    """What the API reads of a job's course.

    Args:
        uow: opens transactions.
    """

    def __init__(self, uow: UnitOfWork) -> None:
        self._uow = uow

    def metrics(
        self, job_id: str, after_epoch: int, limit: int, trial: int | None
    ) -> Sequence[MetricPoint]:
        """Metrics of the epochs after one, by epoch; of one trial or of all.

        With several trials an epoch is given whole, also beyond the limit: the epoch is
        the cursor.
        """
        with self._uow.read() as tx:
            _found(tx, job_id)
            return tx.job_history.metrics(job_id, after_epoch, limit, trial)

    def curve(
        self, job_id: str, after_epoch: int, points: int, trial: int | None
    ) -> Sequence[MetricPoint]:
        """The same, all of it, with about so many points; each trial's extremes are kept."""
        kept: list[MetricPoint] = []
        with self._uow.read() as tx:
            keys = _keys(_found(tx, job_id))
            trials = tx.job_history.trials(job_id) if trial is None else (trial,)
            for one in trials:
                found = tx.job_history.series(job_id, one, after_epoch)
                kept += curves.downsample(found, points // len(trials), keys)
        return sorted(kept, key=lambda point: (point.epoch, point.trial))

    def logs(self, job_id: str, query: LogQuery) -> tuple[Sequence[LogLine], int]:
        """Log lines, and the number after which to go on."""
        with self._uow.read() as tx:
            _found(tx, job_id)
            found = tx.job_history.logs(job_id, query)
            if len(found) == query.limit and not query.tail:
                return [line for _, line in found], found[-1][0]
            # All there is was looked at: a search need not look at it again.
            last = max(tx.job_history.last_log(job_id), query.after)
        return [line for _, line in found], last

    def profile(self, job_id: str) -> DatasetProfile:
        """What the job found in its data set.

        Raises:
            NotFound: nothing yet.
        """
        with self._uow.read() as tx:
            record = _found(tx, job_id)
            found = tx.job_history.profile(job_id)
        if found is None:
            msg = f"{job_id} has no dataset profile"
            raise NotFound(msg, hint=_why_no_profile(record))
        return found


def _why_no_profile(record: JobRecord) -> str:
    if record.spec.batch is not None:
        return "batch inference makes none"
    if record.spec.onnx is not None:
        return "a model made elsewhere brings no data set to look at"
    if record.ended_at is not None:
        return "the job ended before it had looked at its data"
    return f"it is made before training begins; the job is {record.state}"


def _found(tx: Transaction, job_id: str) -> JobRecord:
    record = tx.jobs.get(job_id)
    if record is None:
        msg = f"there is no job {job_id}"
        raise NotFound(msg, hint="`argosy job ls` lists them")
    return record


def _keys(record: JobRecord) -> tuple[str, ...]:
    return tuple(dict.fromkeys((record.spec.stop.metric, *curves.KEYS)))


def _keep(tx: Transaction, record: JobRecord, points: Sequence[MetricPoint]) -> None:
    """Store points. Epochs beyond them are of work that was lost, and is done again."""
    tx.job_history.put_metrics(record.id, points)
    newest: dict[int, int] = {}
    for point in points:
        newest[point.trial] = max(point.epoch, newest.get(point.trial, 0))
    for trial, epoch in sorted(newest.items()):
        tx.job_history.drop_metrics_after(record.id, trial, epoch)
        _thin(tx, record, trial)


def _measured(tx: Transaction, record: JobRecord, points: Sequence[MetricPoint]) -> JobRecord:
    """With the best figures so far, of all trials, and the last."""
    metric = record.spec.stop.metric
    best = record.best
    judged: Iterable[MetricPoint] = points
    if any(_undoes(point, best) for point in points):
        best, judged = {}, _stored(tx, record.id)
    for point in judged:
        value = point.values.get(metric)
        if value is not None and value > best.get(metric, float("-inf")):
            best = {**point.values, "epoch": float(point.epoch)}
            if point.trial:
                best["trial"] = float(point.trial)
    return replace(record, best=best, last=dict(points[-1].values))


def _undoes(point: MetricPoint, best: Mapping[str, float]) -> bool:
    """Whether the best epoch is one that is done again."""
    return point.trial == best.get("trial", 0.0) and point.epoch <= best.get("epoch", -1.0)


def _stored(tx: Transaction, job_id: str) -> Iterator[MetricPoint]:
    for trial in tx.job_history.trials(job_id):
        yield from tx.job_history.series(job_id, trial)


def _thin(tx: Transaction, record: JobRecord, trial: int) -> None:
    """Thin the older half of a training that has grown beyond twice the cap."""
    cap = SWEPT_CAP if trial else METRICS_CAP
    if not tx.job_history.has_more_metrics(record.id, trial, 2 * cap):
        return
    points = tx.job_history.series(record.id, trial)
    older = points[: len(points) // 2]
    stay = {point.epoch for point in curves.downsample(older, cap // 2, _keys(record))}
    gone = [point.epoch for point in older if point.epoch not in stay]
    tx.job_history.drop_metrics(record.id, trial, gone)


def _log(tx: Transaction, job_id: str, lines: Sequence[LogLine], cap: LogCap) -> None:
    """Store lines and, when there are too many, drop the oldest."""
    history = tx.job_history
    before = history.log_totals(job_id)
    if before is None:
        before = LogTotals().plus(size for _, size in _sizes(tx, job_id))
    history.add_logs(job_id, lines)
    totals = before.plus(len(line.text.encode()) for line in lines)
    if logs.is_full(totals, cap):
        made = logs.cut(totals, _sizes(tx, job_id), cap)
        if made is not None:
            history.cut_logs(job_id, made.last, made.text)
            totals = made.totals
    history.save_log_totals(job_id, totals)


def _sizes(tx: Transaction, job_id: str) -> Iterator[tuple[int, int]]:
    """The number and size of each stored row, the oldest first."""
    after = 0
    while found := tx.job_history.log_sizes(job_id, after, _BATCH):
        yield from found
        after = found[-1][0]
