"""What services load and save: one frozen record per table."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Self

from orchestrator.domain.execution import Execution
from orchestrator.domain.job import Job
from orchestrator.domain.rollout import Rollout
from schemas.budget import DeviceClassSpec
from schemas.device import ActiveModel, DeviceState, Hardware, Presence
from schemas.errors import DeviceCause
from schemas.job import Capacity, JobCause, JobState, Live, Trial, Usage
from schemas.jobfile import JobSpec, Resources
from schemas.measure import Benchmark
from schemas.rollout import (
    Evidence,
    ExecState,
    PauseReason,
    RolloutSpec,
    RolloutState,
    WaveState,
)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRecord:
    """A model version. ``manifest`` and ``signed`` are JSON text, kept byte for byte.

    purged: its files were collected; only this record is left.
    """

    model: str
    version: int
    manifest: str
    manifest_sha256: str
    signed: str
    job_id: str | None
    revoked: bool = False
    revoked_reason: str | None = None
    purged: bool = False
    tags: tuple[str, ...] = ()
    note: str = ""
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """A join token; ``secret_hash`` is SHA-256 of its secret."""

    id: str
    secret_hash: str
    device_class: str
    tags: tuple[str, ...]
    max_uses: int
    uses: int = 0
    revoked: bool = False
    expires_at: datetime
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRecord:
    """A device. ``sequence`` is that of the last assignment signed for it."""

    id: str
    device_class: str
    tags: tuple[str, ...]
    state: DeviceState
    presence: Presence = Presence.NEVER
    boot: str | None = None
    session: int = 0
    hardware: Hardware | None = None
    active: ActiveModel | None = None
    sequence: int = 0
    token_id: str
    certificate_serial: str
    certificate_expires_at: datetime
    spki_sha256: str
    enrolled_at: datetime
    last_seen_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceClassRecord:
    """What an operator said of a class of devices."""

    name: str
    spec: DeviceClassSpec
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRecord:
    """What a device measured of a variant's file, in batches of one size."""

    device_id: str
    sha256: str
    batch: int
    benchmark: Benchmark
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRecord:
    """A rollout."""

    id: str
    spec: RolloutSpec
    model: str
    version: int
    state: RolloutState
    pause_reason: PauseReason | None = None
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None

    def machine(self) -> Rollout:
        """The part that the state machine knows."""
        return Rollout(self.state, self.pause_reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveRecord:
    """A wave; ``entered_at`` is when it took its state."""

    rollout_id: str
    idx: int
    state: WaveState
    stragglers: bool = False
    entered_at: datetime
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionRecord:
    """One device in one rollout.

    sequence: of its signed assignment, 0 before the offer. published: the retained
    desired message holds what this record says.
    """

    id: str
    rollout_id: str
    device_id: str
    wave: int
    attempt: int = 1
    state: ExecState = ExecState.SCHEDULED
    seq: int = -1
    previous: ExecState | None = None
    late: ExecState | None = None
    variant: str | None = None
    sequence: int = 0
    published: bool = False
    offered_at: datetime | None = None
    bytes_done: int | None = None
    bytes_total: int | None = None
    bytes_fetched: int | None = None
    cause: DeviceCause | None = None
    detail: str | None = None
    updated_at: datetime

    def machine(self) -> Execution:
        """The part that the state machine knows."""
        return Execution(
            state=self.state,
            attempt=self.attempt,
            seq=self.seq,
            offered=self.sequence > 0,
            previous=self.previous,
            late=self.late,
            cause=self.cause,
            detail=self.detail,
        )

    def moved(self, execution: Execution) -> Self:
        """The record with the state machine's part replaced."""
        return replace(
            self,
            state=execution.state,
            attempt=execution.attempt,
            seq=execution.seq,
            previous=execution.previous,
            late=execution.late,
            cause=execution.cause,
            detail=execution.detail,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRecord:
    """A telemetry window; ``payload`` is the whole message."""

    device_id: str
    boot: str
    seq: int
    model: str
    version: int
    variant: str
    role: str
    start: datetime
    received_at: datetime
    n: int
    errors: int
    labelled: int
    correct: int
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """An API key. ``subject`` is the job of a job's key."""

    id: str
    secret_hash: str
    role: str
    subject: str | None = None
    expires_at: datetime | None = None
    revoked: bool = False
    created_at: datetime


@dataclass(frozen=True, slots=True)
class DeviceTotals:
    """A device's windows of one version, added up; ``last`` is when the last one came."""

    device_id: str
    n: int
    errors: int
    labelled: int
    correct: int
    last: datetime


@dataclass(frozen=True, slots=True)
class WindowFigures:
    """What a summary needs of a window. latency_us: counts by bucket, as JSON has it."""

    variant: str
    device_id: str
    n: int
    errors: int
    labelled: int
    correct: int
    latency_us: dict[str, int]
