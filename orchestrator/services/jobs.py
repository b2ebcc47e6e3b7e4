"""Training jobs: the queue, the lease, the stream of progress."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from orchestrator.domain import job as machine
from orchestrator.domain.cost import Prices
from orchestrator.errors import NotFound, error_of
from orchestrator.services import agents, job_history, keys, orders, queues, sources
from orchestrator.services.holds import Holds
from orchestrator.services.job_view import view
from orchestrator.services.ports import Artifacts, Clock, Transaction, UnitOfWork
from orchestrator.services.records import AgentRecord, JobRecord
from schemas.access import Role
from schemas.ids import new_id
from schemas.job import (
    TERMINAL_JOB_STATES,
    AgentOutcome,
    ClaimRequest,
    Heartbeat,
    HeartbeatReply,
    JobCause,
    JobClaim,
    JobProgress,
    JobState,
    JobView,
)
from schemas.jobfile import JobSpec

_LAST_WORDS = timedelta(minutes=10)


class JobService:
    """What the API and the control loop do with jobs.

    Args:
        uow: opens transactions.
        clock: the time, in UTC.
        lease_seconds: how long a job may be silent.
        artifacts: where the code of jobs is.
        prices: what jobs cost; None shows no cost.
    """

    def __init__(
        self,
        uow: UnitOfWork,
        clock: Clock,
        lease_seconds: float,
        *,
        artifacts: Artifacts,
        prices: Prices | None = None,
    ) -> None:
        self._uow = uow
        self._clock = clock
        self._lease = lease_seconds
        self._artifacts = artifacts
        self._prices = prices
        self._holds = Holds(uow, clock)
        self._began = clock()

    def submit(self, spec: JobSpec, submission: str | None = None) -> JobView:
        """Queue a job, once for each key of a submission.

        Raises:
            NotFound, Conflict, Revoked, Invalid: its code, the model that it infers with or
                the job that it was cloned from is not here.
            Conflict: another job was submitted with this key; or this took so long that its
                code may have been collected.
        """
        with self._uow.read() as tx:
            known = orders.submitted(tx, spec, submission)
        return self.get((known or self._add(spec, submission)).id)

    def _add(self, spec: JobSpec, submission: str | None) -> JobRecord:
        with self._holds.on(sources.uploads(spec)) as hold:
            sources.check_uploads(self._artifacts, spec)
            with self._uow() as tx:
                hold.settle(tx, self._clock())
                known = orders.submitted(tx, spec, submission)
                return known or self._queue(tx, spec, submission)

    def _queue(self, tx: Transaction, spec: JobSpec, submission: str | None) -> JobRecord:
        orders.check(tx, spec)
        record = JobRecord(
            id=new_id("job"),
            name=spec.name,
            project=spec.project,
            priority=spec.priority,
            state=JobState.QUEUED,
            spec=spec,
            max_attempts=spec.max_attempts,
            created_at=self._clock(),
            submission=submission,
        )
        tx.jobs.add(record)
        self._announce(tx, record)
        detail = {"name": spec.name, "project": spec.project, "priority": spec.priority}
        tx.audit.add("job.submit", record.id, detail)
        return record

    def get(self, job_id: str) -> JobView:
        """One job."""
        with self._uow.read() as tx:
            return self._views(tx, [_found(tx, job_id)])[0]

    def page(
        self,
        before: str | None,
        limit: int,
        *,
        states: Collection[JobState] = (),
        project: str | None = None,
        name: str | None = None,
    ) -> Sequence[JobView]:
        """Jobs, newest first; of the states, the project and the name that are given."""
        with self._uow.read() as tx:
            records = tx.jobs.page(before, limit, states=states, project=project, name=name)
            return self._views(tx, records)

    def cancel(self, job_id: str) -> JobView:
        """Ask for the end of a job; a queued one ends at once."""
        with self._uow() as tx:
            record = _found(tx, job_id, lock=True)
            asked = self._apply(tx, record, machine.CancelRequested())
            if (asked.state, asked.cancel_requested) != (record.state, record.cancel_requested):
                tx.audit.add("job.cancel", job_id, {"name": record.name})
        return self.get(job_id)

    def claim(self, request: ClaimRequest) -> JobClaim | None:
        """Hand the first queued job that its cluster can hold to an agent.

        With it go a lease and a key of its own.
        """
        now = self._clock()
        agent = AgentRecord(name=request.agent, capacity=request.capacity, seen_at=now)
        # The queue is ordered from a snapshot, so that the one writer is not held up by it;
        # each candidate is looked at again before it is taken.
        with self._uow.read() as tx:
            news = agents.is_news(tx.agents.get(agent.name), agent)
            ready = list(queues.look(tx, now).ready(request.capacity, now))
        if not news and not ready:
            return None
        with self._uow() as tx:
            agents.save(tx, agent)
            for job_id in ready:
                record = tx.jobs.get(job_id, lock=True)
                if record is not None and queues.is_claimable(record, now):
                    return self._hand_over(tx, record, request.agent, now)
        return None

    def _hand_over(self, tx: Transaction, record: JobRecord, agent: str, now: datetime) -> JobClaim:
        lease = secrets.token_urlsafe(32)
        taken = replace(
            record,
            agent=agent,
            lease_hash=keys.digest(lease),
            started_at=record.started_at or now,
        )
        taken = self._apply(tx, taken, machine.Claimed(self._lease))
        tx.keys.revoke_subject(record.id)
        token = keys.create(tx, Role.JOB, now, subject=record.id)
        return JobClaim(
            id=taken.id,
            attempt=taken.attempt,
            spec=taken.spec,
            lease=lease,
            lease_seconds=self._lease,
            job_token=token,
        )

    def heartbeat(self, job_id: str, beat: Heartbeat) -> HeartbeatReply:
        """Renew a lease.

        Raises:
            LeaseLost: another attempt has the job, or it has ended.
        """
        with self._uow() as tx:
            record = _found(tx, job_id, lock=True)
            agents.check_lease(record, beat.lease)
            renewed = self._apply(tx, record, machine.Renewed(beat.attempt, self._lease))
            agents.heard(tx, record.agent, self._clock())
        return HeartbeatReply(cancel=renewed.cancel_requested, lease_seconds=self._lease)

    def outcome(self, job_id: str, outcome: AgentOutcome) -> JobView:
        """Take an agent's word for a driver that is gone."""
        event = machine.DriverEnded(
            outcome.attempt,
            outcome.cancelled,
            outcome.cause or JobCause.DRIVER_DIED,
            outcome.detail,
        )
        with self._uow() as tx:
            record = _found(tx, job_id, lock=True)
            if record.state not in TERMINAL_JOB_STATES:
                agents.check_lease(record, outcome.lease)
            self._apply(tx, record, event)
        return self.get(job_id)

    def progress(self, job_id: str, report: JobProgress) -> HeartbeatReply:
        """Take a driver's report; a repeat changes nothing.

        Raises:
            LeaseLost: the report is from an attempt that lost the job.
        """
        event = machine.Progressed(
            report.attempt,
            report.seq,
            self._lease,
            report.state,
            report.epoch,
            report.cause,
            report.detail,
            report.notice,
        )
        with self._uow() as tx:
            record = _found(tx, job_id, lock=True)
            repeat = report.attempt == record.attempt and report.seq <= record.seq
            moved = self._apply(tx, record, event, None if repeat else report)
        return HeartbeatReply(cancel=moved.cancel_requested, lease_seconds=self._lease)

    def expire_leases(self) -> int:
        """Take jobs back from agents that fell silent; how many.

        Silence counts from when this server began to listen: agents whose leases ended
        while it was away get the time of one lease to be heard again.
        """
        now = self._clock()
        if now < self._began + timedelta(seconds=self._lease):
            return 0
        with self._uow() as tx:
            expired = tx.jobs.lease_expired(now)
            for record in expired:
                self._apply(tx, record, machine.LeaseChecked())
        return len(expired)

    def _apply(
        self,
        tx: Transaction,
        record: JobRecord,
        event: machine.Event,
        report: JobProgress | None = None,
    ) -> JobRecord:
        """Move a job by an event, and keep what a new report says beside it."""
        now = self._clock()
        job, actions = machine.step(record.machine(), event, now)
        for action in actions:
            if isinstance(action, machine.Refuse):
                raise error_of(action.code, action.detail)
        moved = record.moved(job)
        if record.state in TERMINAL_JOB_STATES:
            report = None  # said after the end
        if report is not None:
            moved = job_history.record(tx, moved, report, now)
            if job.state is JobState.SUCCEEDED:
                moved = orders.with_result(tx, moved, report)
        if job.state in TERMINAL_JOB_STATES and record.ended_at is None:
            moved = replace(moved, ended_at=now, lease_hash=None)
            # A last report whose answer was lost is repeated, and must be heard.
            tx.keys.expire_subject(record.id, now + _LAST_WORDS)
        elif job.state is JobState.QUEUED:
            tx.keys.revoke_subject(record.id)
        moved = job_history.settle(tx, moved)
        tx.jobs.save(moved)
        measured = report is not None and bool(report.metrics)
        if actions or measured:
            self._announce(tx, moved, {"metrics": moved.last} if measured else None)
        return moved

    def _announce(
        self, tx: Transaction, record: JobRecord, extra: dict[str, Any] | None = None
    ) -> None:
        data = {"state": record.state.value, "attempt": record.attempt, "epoch": record.epoch}
        optional = {
            "detail": record.detail,
            "notice": record.notice,
            "model": record.model,
            "version": record.version,
        }
        data |= {key: value for key, value in optional.items() if value is not None}
        tx.events.add("job", record.id, data | (extra or {}), self._clock())

    def _views(self, tx: Transaction, records: Sequence[JobRecord]) -> list[JobView]:
        now = self._clock()
        waits = any(record.state is JobState.QUEUED for record in records)
        queue = queues.look(tx, now) if waits else queues.NOTHING
        return [view(record, queue, self._prices, now) for record in records]


def _found(tx: Transaction, job_id: str, *, lock: bool = False) -> JobRecord:
    record = tx.jobs.get(job_id, lock=lock)
    if record is None:
        msg = f"there is no job {job_id}"
        raise NotFound(msg, hint="`argosy job ls` lists them")
    return record
