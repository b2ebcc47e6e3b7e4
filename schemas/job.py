"""Training jobs: the job file, the lease, the stream of progress."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from schemas.base import Authored, Count, Line, UtcTime, VersionNo, Wire
from schemas.ids import JobId, Name


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
    """Why a job failed."""

    USER_CODE = "user_code"
    OUT_OF_MEMORY = "out_of_memory"
    DIVERGED = "diverged"
    TARGET_MISSED = "target_missed"
    PARITY = "parity"
    LEASE_EXPIRED = "lease_expired"
    DRIVER_DIED = "driver_died"
    INTERNAL = "internal"


class Resources(Authored):
    """What a job asks of the cluster.

    workers: data-parallel processes. cpus_per_worker: cores each. gpus_per_worker:
    GPUs each (0 trains on CPUs over gloo, more over nccl).
    """

    workers: Annotated[int, Field(ge=1, le=512)] = 1
    cpus_per_worker: Annotated[float, Field(gt=0, le=256)] = 1
    gpus_per_worker: Annotated[int, Field(ge=0, le=16)] = 0
    precision: Literal["fp32", "bf16"] = "fp32"


class StopRules(Authored):
    """When training ends.

    metric: what is judged, measured on the validation split: the accuracy (0..1), of
    which more is better. A loss cannot be judged. target: reached means good enough.
    patience: epochs without an improvement of at least ``min_delta``.
    require_target: fail the job if it ends below ``target``.
    """

    metric: Literal["accuracy"] = "accuracy"
    target: Annotated[float, Field(gt=0, le=1)] | None = None
    patience: Annotated[int, Field(ge=1, le=10_000)] = 10
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    max_epochs: Annotated[int, Field(ge=1, le=100_000)] = 50
    require_target: bool = True


class Optimize(Authored):
    """What is done to the trained model.

    max_accuracy_drop: the largest loss of accuracy (0..1) against FP32, on the
    validation split, at which a variant is kept. calibration_samples: inputs, from
    the training split, that set the quantization ranges.
    """

    int8: bool = True
    max_accuracy_drop: Annotated[float, Field(ge=0, le=1)] = 0.02
    calibration_samples: Annotated[int, Field(ge=8, le=100_000)] = 256


class JobSpec(Authored):
    """A job file.

    name: the job's and, unless ``model`` is given, the model's name. task: the
    entrypoint ``module:Class``. config: passed to the task as it is. seed: of the
    weights, the split and the shuffling.
    """

    name: Name
    task: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    model: Name | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    resources: Resources = Resources()
    stop: StopRules = StopRules()
    optimize: Optimize = Optimize()
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    max_attempts: Annotated[int, Field(ge=1, le=20)] = 3

    @model_validator(mode="after")
    def _target_needed(self) -> Self:
        if self.stop.require_target and self.stop.target is None:
            msg = "stop.target is needed unless stop.require_target is false"
            raise ValueError(msg)
        return self

    @property
    def model_name(self) -> str:
        """The name under which the result is registered."""
        return self.model or self.name


class MetricPoint(Wire):
    """What one epoch measured; values are keyed by metric name."""

    epoch: Count
    at: UtcTime
    values: Annotated[dict[str, float], Field(max_length=64)]


class LogLine(Wire):
    """One line a job printed."""

    at: UtcTime
    level: Literal["debug", "info", "warning", "error"] = "info"
    text: Annotated[Line, StringConstraints(max_length=4000)]


class JobView(Wire):
    """A job, as the API shows it."""

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
    created_at: UtcTime
    started_at: UtcTime | None = None
    ended_at: UtcTime | None = None


class ClaimRequest(Wire):
    """An agent asks for work."""

    agent: Annotated[Line, StringConstraints(max_length=100)]


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
    with SUCCEEDED.
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


class AgentOutcome(Wire):
    """An agent says how a driver ended that can no longer speak for itself."""

    attempt: int
    lease: str
    cancelled: bool
    cause: JobCause | None = None
    detail: Annotated[Line, StringConstraints(max_length=8000)] | None = None
