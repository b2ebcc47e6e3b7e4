"""Jobs on the cluster: their states, the lease, the stream of progress."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from schemas.base import Count, Line, UtcTime, VersionNo, Wire, at_most
from schemas.dataset import DatasetProfile
from schemas.ids import JobId, Name
from schemas.jobfile import JobSpec
from schemas.lineage import Choice
from schemas.model import Manifest
from schemas.sweep import MAX_TRIALS, SweptKey


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    EXPORTING = "EXPORTING"
    OPTIMIZING = "OPTIMIZING"
    REGISTERING = "REGISTERING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


TERMINAL_JOB_STATES = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})


class JobCause(StrEnum):
    """Why a job failed, or an attempt of it.

    environment: what the code needs could not be installed. bad_data: the data set has
    faults. hung: no step was made for too long. resources: what it asks for never came.
    """

    USER_CODE = "user_code"
    OUT_OF_MEMORY = "out_of_memory"
    DIVERGED = "diverged"
    HUNG = "hung"
    BAD_DATA = "bad_data"
    ENVIRONMENT = "environment"
    RESOURCES = "resources"
    TARGET_MISSED = "target_missed"
    PARITY = "parity"
    LEASE_EXPIRED = "lease_expired"
    DRIVER_DIED = "driver_died"
    INTERNAL = "internal"


_LIMIT = 1e12  # so that neither sums over attempts nor prices lead to infinity
Figure = Annotated[float, Field(ge=0), at_most(_LIMIT)]
"""Something measured; never more than 10¹²."""

MetricName = Annotated[Line, StringConstraints(max_length=200)]


class MetricPoint(Wire):
    """What one epoch measured; values are keyed by metric name. trial: of a sweep, from 1."""

    epoch: Count
    trial: Annotated[int, Field(ge=0, le=MAX_TRIALS)] = 0
    at: UtcTime
    values: Annotated[dict[MetricName, float], Field(max_length=64)]


class LogLine(Wire):
    """One line a job printed."""

    at: UtcTime
    level: Literal["debug", "info", "warning", "error"] = "info"
    text: Annotated[Line, StringConstraints(max_length=4000)]


class Live(Wire):
    """How a job does at this moment; only the newest is kept.

    done of total: steps of the epoch, or rows of a batch. workers: that train now.
    cpu_percent: of all workers together, 100 per core. memory: of the largest worker, in
    MiB. gpu: the mean over the GPUs.
    """

    at: UtcTime
    epoch: Count | None = None
    trial: Annotated[int, Field(ge=0, le=MAX_TRIALS)] = 0
    done: Count = 0
    total: Count = 0
    loss: float | None = None
    samples_per_s: Figure | None = None
    eta_seconds: Figure | None = None
    workers: Count = 0
    cpu_percent: Figure | None = None
    rss_mb: Figure | None = None
    gpu_percent: Figure | None = None
    gpu_mem_mb: Figure | None = None


class Usage(Wire):
    """What an attempt, or all of them, took of the cluster.

    wall_seconds: workers were up. cpu_seconds, gpu_seconds: reserved cores and GPUs times
    that. cpu_used_seconds: CPU time of the workers.
    """

    wall_seconds: Figure = 0.0
    cpu_seconds: Figure = 0.0
    gpu_seconds: Figure = 0.0
    cpu_used_seconds: Figure = 0.0


class Cost(Wire):
    """Usage times the price table."""

    amount: Annotated[float, Field(ge=0)]
    currency: Annotated[str, StringConstraints(max_length=8)]


class Trial(Wire):
    """One training of a sweep. best: of the judged metric."""

    number: Annotated[int, Field(ge=1, le=MAX_TRIALS)]
    parameters: Annotated[dict[SweptKey, Choice], Field(max_length=16)]
    state: Literal["waiting", "running", "done", "stopped", "failed"] = "waiting"
    epochs: Count = 0
    best: float | None = None
    detail: Annotated[Line, StringConstraints(max_length=500)] | None = None


class JobView(Wire):
    """A job, as the API shows it.

    position: its place in the queue, from 1. notice: what it waits for, in words.
    not_before: when a job that failed may be claimed again. usage: of all attempts.
    """

    id: JobId
    name: Name
    state: JobState
    attempt: int
    epoch: int
    spec: JobSpec
    cause: JobCause | None = None
    detail: str | None = None
    best: dict[str, float] = Field(default_factory=dict)
    last: dict[str, float] = Field(default_factory=dict)
    model: Name | None = None
    version: int | None = None
    agent: str | None = None
    position: int | None = None
    notice: str | None = None
    not_before: UtcTime | None = None
    live: Live | None = None
    trials: tuple[Trial, ...] = ()
    usage: Usage = Usage()
    cost: Cost | None = None
    problems: tuple[str, ...] = ()
    created_at: UtcTime
    started_at: UtcTime | None = None
    ended_at: UtcTime | None = None


class Capacity(Wire):
    """What a cluster has in all. grows: an autoscaler adds nodes when asked for more."""

    nodes: Count = 1
    cpus: Annotated[float, Field(ge=0)]
    gpus: Annotated[float, Field(ge=0)] = 0.0
    memory_gb: Annotated[float, Field(ge=0)] = 0.0
    grows: bool = False


class ClaimRequest(Wire):
    """An agent asks for work. capacity: of its cluster, None if it cannot tell."""

    agent: Annotated[Line, StringConstraints(min_length=1, max_length=100)]
    capacity: Capacity | None = None


class AgentView(Wire):
    """An agent, as the API shows it: what it offered when it last asked for work."""

    name: str
    capacity: Capacity | None = None
    seen_at: UtcTime
    jobs: tuple[JobId, ...] = ()


class JobClaim(Wire):
    """A job handed to an agent, under a lease.

    lease: the secret that heartbeats and progress carry. lease_seconds: how long
    it lasts without a heartbeat. job_token: the API token of this job alone.
    """

    id: JobId
    attempt: int
    spec: JobSpec
    lease: str
    lease_seconds: float
    job_token: str


class JobOrder(Wire):
    """What a driver is to do, as its job's token may read it.

    manifest: of the model version, for batch inference.
    """

    id: JobId
    attempt: int
    spec: JobSpec
    lease_seconds: float
    manifest: Manifest | None = None


class Heartbeat(Wire):
    """An agent keeps its lease."""

    attempt: int
    lease: str


class HeartbeatReply(Wire):
    """What the agent must know: whether to stop the job."""

    cancel: bool
    lease_seconds: float


class JobProgress(Wire):
    """A driver's report. Repeats of a (attempt, seq) are dropped.

    state: set when the job enters it. cause/detail: with FAILED. model/version:
    with SUCCEEDED, unless it was batch inference. notice: what it waits for; "" for
    nothing any more. usage: of this attempt so far. trials: all of a sweep.
    """

    attempt: Annotated[int, Field(ge=1, le=1000)]
    seq: Count
    state: JobState | None = None
    epoch: Count | None = None
    metrics: Annotated[tuple[MetricPoint, ...], Field(max_length=1000)] = ()
    logs: Annotated[tuple[LogLine, ...], Field(max_length=1000)] = ()
    cause: JobCause | None = None
    detail: Annotated[Line, StringConstraints(max_length=8000)] | None = None
    model: Name | None = None
    version: VersionNo | None = None
    notice: Annotated[Line, StringConstraints(max_length=500)] | None = None
    live: Live | None = None
    usage: Usage | None = None
    profile: DatasetProfile | None = None
    trials: Annotated[tuple[Trial, ...], Field(max_length=MAX_TRIALS)] | None = None


class AgentOutcome(Wire):
    """An agent says how a driver ended that can no longer speak for itself."""

    attempt: int
    lease: str
    cancelled: bool
    cause: JobCause | None = None
    detail: Annotated[Line, StringConstraints(max_length=8000)] | None = None
