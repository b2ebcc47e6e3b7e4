"""The life of a training job, as one transition table.

``step(job, event, now)`` gives the next job and what must be done about it. An event
that does not fit gives the job back unchanged with a ``Refuse``; a repeat gives it
back with nothing to do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVar

from schemas.errors import Code
from schemas.job import TERMINAL_JOB_STATES, JobCause, JobState

T = TypeVar("T")

ACTIVE = frozenset(
    {JobState.RUNNING, JobState.EXPORTING, JobState.OPTIMIZING, JobState.REGISTERING}
)

PROGRESS: dict[JobState, frozenset[JobState]] = {
    JobState.RUNNING: frozenset({JobState.EXPORTING, JobState.FAILED}),
    JobState.EXPORTING: frozenset({JobState.OPTIMIZING, JobState.FAILED}),
    JobState.OPTIMIZING: frozenset({JobState.REGISTERING, JobState.FAILED}),
    JobState.REGISTERING: frozenset({JobState.SUCCEEDED, JobState.FAILED}),
}
"""Where the driver of a training may lead its job, besides staying where it is."""

BATCH_PROGRESS: dict[JobState, frozenset[JobState]] = {
    JobState.RUNNING: frozenset({JobState.SUCCEEDED, JobState.FAILED}),
}
"""The same for batch inference, which makes no model."""

RETRYABLE = frozenset({JobCause.DRIVER_DIED, JobCause.LEASE_EXPIRED})
"""Failures of the machinery, not of the job: it is queued again."""

MAX_BACKOFF = 300.0


def backoff(attempt: int) -> float:
    """Seconds from the failure of an attempt (from 1) to the next: 2, 8, 32 …, at most 300."""
    return min(MAX_BACKOFF, 2.0 * 4.0 ** (attempt - 1))


@dataclass(frozen=True, slots=True)
class Job:
    """What the machine needs to know of a job.

    batch: it infers, and makes no model. attempt counts claims, from 0. seq: the highest
    progress number seen within the attempt. lease_until: None while nobody holds it.
    not_before: of a queued job that failed, when it may be claimed again. notice: what the
    holder of the lease says it waits for.
    """

    state: JobState = JobState.QUEUED
    batch: bool = False
    attempt: int = 0
    max_attempts: int = 3
    epoch: int = 0
    seq: int = -1
    lease_until: datetime | None = None
    cancel_requested: bool = False
    cause: JobCause | None = None
    detail: str | None = None
    not_before: datetime | None = None
    notice: str | None = None


@dataclass(frozen=True, slots=True)
class Claimed:
    """An agent takes the job, for ``seconds`` at first."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Renewed:
    """The holder of the lease of ``attempt`` is alive."""

    attempt: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Progressed:
    """The driver of ``attempt`` reports. notice: "" takes the one before back."""

    attempt: int
    seq: int
    seconds: float
    state: JobState | None = None
    epoch: int | None = None
    cause: JobCause | None = None
    detail: str | None = None
    notice: str | None = None


@dataclass(frozen=True, slots=True)
class DriverEnded:
    """The agent says that the driver of ``attempt`` is gone without a last word."""

    attempt: int
    cancelled: bool
    cause: JobCause = JobCause.DRIVER_DIED
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class LeaseChecked:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """An operator wants it stopped."""


Event = Claimed | Renewed | Progressed | DriverEnded | LeaseChecked | CancelRequested


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell whoever watches that something changed that they see."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """The event does not fit; nothing changed."""

    code: Code
    detail: str


Action = Announce | Refuse
Step = tuple[Job, tuple[Action, ...]]


def step(job: Job, event: Event, now: datetime) -> Step:
    """Apply one event."""
    match event:
        case Claimed():
            return _claim(job, event, now)
        case Renewed():
            return _renew(job, event, now)
        case Progressed():
            return _progress(job, event, now)
        case DriverEnded():
            return _driver_ended(job, event, now)
        case LeaseChecked():
            return _check_lease(job, now)
        case CancelRequested():
            return _cancel(job)


def _claim(job: Job, event: Claimed, now: datetime) -> Step:
    if job.state is not JobState.QUEUED:
        return _refused(job, Code.ILLEGAL_TRANSITION, f"a {job.state} job cannot be claimed")
    if job.not_before is not None and now < job.not_before:
        detail = f"the job failed and starts again at {job.not_before:%H:%M:%S} UTC"
        return _refused(job, Code.CONFLICT, detail)
    taken = replace(
        job,
        state=JobState.RUNNING,
        attempt=job.attempt + 1,
        seq=-1,
        lease_until=now + timedelta(seconds=event.seconds),
        cause=None,
        detail=None,
        not_before=None,
        notice=None,
    )
    return taken, (Announce(),)


def _renew(job: Job, event: Renewed, now: datetime) -> Step:
    if not _holds_lease(job, event.attempt):
        return _lease_lost(job, event.attempt)
    return replace(job, lease_until=now + timedelta(seconds=event.seconds)), ()


def _progress(job: Job, event: Progressed, now: datetime) -> Step:
    if job.state in TERMINAL_JOB_STATES and event.attempt == job.attempt:
        return job, ()
    if not _holds_lease(job, event.attempt):
        return _lease_lost(job, event.attempt)
    if event.seq <= job.seq:
        return job, ()
    ways = BATCH_PROGRESS if job.batch else PROGRESS
    if event.state not in (None, job.state, *ways.get(job.state, ())):
        return _refused(job, Code.ILLEGAL_TRANSITION, f"{job.state} does not lead to {event.state}")
    state = event.state or job.state
    moved = replace(job, state=state, seq=event.seq, epoch=_newer(event.epoch, job.epoch))
    if state in TERMINAL_JOB_STATES:
        return _end(moved, state, event.cause, event.detail)
    held = replace(
        moved,
        lease_until=now + timedelta(seconds=event.seconds),
        notice=_newer(event.notice, job.notice) or None,
    )
    seen = (held.state, held.epoch, held.notice) != (job.state, job.epoch, job.notice)
    return held, (Announce(),) if seen else ()


def _newer(new: T | None, old: T) -> T:
    return old if new is None else new


def _driver_ended(job: Job, event: DriverEnded, now: datetime) -> Step:
    if job.state in TERMINAL_JOB_STATES and event.attempt == job.attempt:
        return job, ()
    if not _holds_lease(job, event.attempt):
        return _lease_lost(job, event.attempt)
    if event.cancelled or job.cancel_requested:
        return _end(job, JobState.CANCELLED, None, "cancelled by an operator")
    return _retry_or_fail(job, event.cause, event.detail, now)


def _check_lease(job: Job, now: datetime) -> Step:
    if job.state not in ACTIVE or job.lease_until is None or now < job.lease_until:
        return job, ()
    if job.cancel_requested:
        return _end(job, JobState.CANCELLED, None, "cancelled; its agent was not heard of again")
    detail = "its agent stopped sending heartbeats"
    return _retry_or_fail(job, JobCause.LEASE_EXPIRED, detail, now)


def _cancel(job: Job) -> Step:
    if job.state is JobState.QUEUED:
        return _end(job, JobState.CANCELLED, None, "cancelled before it started")
    if job.state is JobState.CANCELLED or job.cancel_requested:
        return job, ()
    if job.state in TERMINAL_JOB_STATES:
        return _refused(job, Code.CONFLICT, f"the job has already ended: {job.state}")
    return replace(job, cancel_requested=True), (Announce(),)


def _retry_or_fail(job: Job, cause: JobCause, detail: str | None, now: datetime) -> Step:
    if cause not in RETRYABLE or job.attempt >= job.max_attempts:
        return _end(job, JobState.FAILED, cause, detail)
    again = replace(
        job,
        state=JobState.QUEUED,
        seq=-1,
        lease_until=None,
        cause=cause,
        detail=detail,
        not_before=now + timedelta(seconds=backoff(job.attempt)),
        notice=None,
    )
    return again, (Announce(),)


def _end(job: Job, state: JobState, cause: JobCause | None, detail: str | None) -> Step:
    ended = replace(
        job,
        state=state,
        lease_until=None,
        cause=cause,
        detail=detail,
        not_before=None,
        notice=None,
    )
    return ended, (Announce(),)


def _holds_lease(job: Job, attempt: int) -> bool:
    return job.state in ACTIVE and job.attempt == attempt and job.lease_until is not None


def _lease_lost(job: Job, attempt: int) -> Step:
    detail = f"attempt {attempt} no longer holds the job: it is {job.state}, attempt {job.attempt}"
    return _refused(job, Code.LEASE_LOST, detail)


def _refused(job: Job, code: Code, detail: str) -> Step:
    return job, (Refuse(code, detail),)
