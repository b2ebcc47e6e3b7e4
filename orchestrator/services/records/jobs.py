"""Records of jobs, and of the agents that run them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Self

from orchestrator.domain.job import Job
from schemas.job import Capacity, JobCause, JobState, Live, Trial, Usage
from schemas.jobfile import JobSpec, Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """A job and its lease (``lease_hash`` is SHA-256 of the lease).

    usage: by attempt, as text; cpu_seconds: of all of them. problems: of its data set.
    submission: the key that its client gave, if any.
    """

    id: str
    name: str
    project: str = "default"
    priority: int = 0
    state: JobState
    spec: JobSpec
    attempt: int = 0
    max_attempts: int
    epoch: int = 0
    seq: int = -1
    cancel_requested: bool = False
    lease_until: datetime | None = None
    lease_hash: str | None = None
    agent: str | None = None
    cause: JobCause | None = None
    detail: str | None = None
    best: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    model: str | None = None
    version: int | None = None
    not_before: datetime | None = None
    notice: str | None = None
    live: Live | None = None
    trials: tuple[Trial, ...] = ()
    usage: dict[str, Usage] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    submission: str | None = None
    cpu_seconds: float = 0.0

    def machine(self) -> Job:
        """The part that the state machine knows."""
        return Job(
            state=self.state,
            batch=self.spec.batch is not None,
            attempt=self.attempt,
            max_attempts=self.max_attempts,
            epoch=self.epoch,
            seq=self.seq,
            lease_until=self.lease_until,
            cancel_requested=self.cancel_requested,
            cause=self.cause,
            detail=self.detail,
            not_before=self.not_before,
            notice=self.notice,
        )

    def moved(self, job: Job) -> Self:
        """The record with the state machine's part replaced."""
        return replace(
            self,
            state=job.state,
            attempt=job.attempt,
            epoch=job.epoch,
            seq=job.seq,
            lease_until=job.lease_until,
            cancel_requested=job.cancel_requested,
            cause=job.cause,
            detail=job.detail,
            not_before=job.not_before,
            notice=job.notice,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedJob:
    """What the queue needs of a job that waits."""

    id: str
    project: str
    priority: int
    resources: Resources
    not_before: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveJob:
    """What the queue needs of a job that an agent holds."""

    id: str
    project: str
    agent: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRecord:
    """An agent, as it last asked for work."""

    name: str
    capacity: Capacity | None = None
    seen_at: datetime
