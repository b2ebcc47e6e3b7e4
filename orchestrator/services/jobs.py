"""Training jobs: the queue, the lease, the stream of progress."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from orchestrator.domain import job as machine
from orchestrator.errors import Conflict, LeaseLost, NotFound, error_of
from orchestrator.services import job_history, keys
from orchestrator.services.keys import Role
from orchestrator.services.ports import Clock, Transaction, UnitOfWork
from orchestrator.services.records import JobRecord
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
    """

    def __init__(self, uow: UnitOfWork, clock: Clock, lease_seconds: float) -> None:
        self._uow = uow
        self._clock = clock
        self._lease = lease_seconds

    def submit(self, spec: JobSpec) -> JobView:
        """Queue a job."""
        record = JobRecord(
            id=new_id("job"),
            name=spec.name,
            state=JobState.QUEUED,
            spec=spec,
            max_attempts=spec.max_attempts,
            created_at=self._clock(),
        )
        with self._uow() as tx:
            tx.jobs.add(record)
            self._announce(tx, record)
        return view(record)

    def get(self, job_id: str) -> JobView:
        """One job."""
        with self._uow.read() as tx:
            return view(_found(tx, job_id))

    def page(self, before: str | None, limit: int) -> Sequence[JobView]:
        """Jobs, newest first."""
        with self._uow.read() as tx:
            return [view(record) for record in tx.jobs.page(before, limit)]

    def cancel(self, job_id: str) -> JobView:
        """Ask for the end of a job; a queued one ends at once."""
        with self._uow() as tx:
            record = _found(tx, job_id, lock=True)
            return view(self._apply(tx, record, machine.CancelRequested()))

    def claim(self, request: ClaimRequest) -> JobClaim | None:
        """Hand the oldest queued job to an agent, with a lease and a key of its own."""
        with self._uow() as tx:
            record = tx.jobs.next_queued()
            if record is None:
                return None
            lease, now = secrets.token_urlsafe(32), self._clock()
            taken = replace(
                record,
                agent=request.agent,
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
            _check_lease(record, beat.lease)
            renewed = self._apply(tx, record, machine.Renewed(beat.attempt, self._lease))
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
                _check_lease(record, outcome.lease)
            return view(self._apply(tx, record, event))

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
        )
        with self._uow() as tx:
            record = _found(tx, job_id, lock=True)
            repeat = report.attempt == record.attempt and report.seq <= record.seq
            if report.state is JobState.SUCCEEDED and record.state not in TERMINAL_JOB_STATES:
                if report.model is None or report.version is None:
                    msg = "a job that succeeded names the model and version it registered"
                    raise Conflict(msg)
                record = replace(record, model=report.model, version=report.version)
            extra: dict[str, Any] = {}
            if not repeat:
                record = job_history.record(tx, record, report, self._clock())
            if report.metrics and not repeat:
                extra["metrics"] = dict(report.metrics[-1].values)
            moved = self._apply(tx, record, event, extra)
        return HeartbeatReply(cancel=moved.cancel_requested, lease_seconds=self._lease)

    def expire_leases(self) -> int:
        """Take jobs back from agents that fell silent; how many."""
        with self._uow() as tx:
            expired = tx.jobs.lease_expired(self._clock())
            for record in expired:
                self._apply(tx, record, machine.LeaseChecked())
        return len(expired)

    def _apply(
        self,
        tx: Transaction,
        record: JobRecord,
        event: machine.Event,
        extra: dict[str, Any] | None = None,
    ) -> JobRecord:
        now = self._clock()
        job, actions = machine.step(record.machine(), event, now)
        for action in actions:
            if isinstance(action, machine.Refuse):
                raise error_of(action.code, action.detail)
        moved = job_history.settle(tx, record.moved(job))
        if job.state in TERMINAL_JOB_STATES and record.ended_at is None:
            moved = replace(moved, ended_at=now, lease_hash=None)
            # A last report whose answer was lost is repeated, and must be heard.
            tx.keys.expire_subject(record.id, now + _LAST_WORDS)
        elif job.state is JobState.QUEUED:
            tx.keys.revoke_subject(record.id)
        tx.jobs.save(moved)
        if actions:
            self._announce(tx, moved, extra)
        return moved

    def _announce(
        self, tx: Transaction, record: JobRecord, extra: dict[str, Any] | None = None
    ) -> None:
        data = {"state": record.state.value, "attempt": record.attempt, "epoch": record.epoch}
        optional = {"detail": record.detail, "model": record.model, "version": record.version}
        data |= {key: value for key, value in optional.items() if value is not None}
        tx.events.add("job", record.id, data | (extra or {}), self._clock())


def _found(tx: Transaction, job_id: str, *, lock: bool = False) -> JobRecord:
    record = tx.jobs.get(job_id, lock=lock)
    if record is None:
        msg = f"there is no job {job_id}"
        raise NotFound(msg, hint="`argosy job ls` lists them")
    return record


def _check_lease(record: JobRecord, lease: str) -> None:
    if record.lease_hash is None or not hmac.compare_digest(record.lease_hash, keys.digest(lease)):
        msg = f"the lease on {record.id} is not yours any more"
        raise LeaseLost(msg)


def view(record: JobRecord) -> JobView:
    """A job as the API shows it."""
    return JobView.model_validate(record, from_attributes=True)
