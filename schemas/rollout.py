"""Rollouts, waves and executions: plans, states, reports and the desired state."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from schemas.base import Authored, Count, Line, UtcTime, VersionNo, Wire
from schemas.device import Tag
from schemas.errors import DeviceCause
from schemas.ids import BootId, DeviceId, ExecutionId, Name, RolloutId, Sha256


class RolloutState(StrEnum):
    """Where a rollout stands."""

    DRAFT = "DRAFT"
    AWAITING_APPROVAL = "AWAITING_APPROVAL"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    ROLLING_BACK = "ROLLING_BACK"
    SUCCEEDED = "SUCCEEDED"
    ABORTED = "ABORTED"
    ROLLED_BACK = "ROLLED_BACK"


class PauseReason(StrEnum):
    """Why a rollout is paused."""

    OPERATOR = "operator"
    ERROR_THRESHOLD = "error_threshold"
    VERDICT_FAILED = "verdict_failed"
    INCONCLUSIVE = "inconclusive"


class WaveState(StrEnum):
    """Where a wave stands."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SOAKING = "SOAKING"
    JUDGING = "JUDGING"
    PASSED = "PASSED"
    FAILED = "FAILED"
    INCONCLUSIVE = "INCONCLUSIVE"


class ExecState(StrEnum):
    """Where one device stands in one rollout."""

    SCHEDULED = "SCHEDULED"
    OFFERED = "OFFERED"
    ACCEPTED = "ACCEPTED"
    DEFERRED = "DEFERRED"
    DOWNLOADING = "DOWNLOADING"
    VERIFIED = "VERIFIED"
    STAGED = "STAGED"
    SHADOWING = "SHADOWING"
    ACTIVATING = "ACTIVATING"
    PROBATION = "PROBATION"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    ROLLED_BACK = "ROLLED_BACK"
    REJECTED = "REJECTED"
    TIMED_OUT = "TIMED_OUT"
    CANCELLED = "CANCELLED"
    SUPERSEDED = "SUPERSEDED"
    REMOVED = "REMOVED"
    ALREADY_INSTALLED = "ALREADY_INSTALLED"
    NO_VARIANT = "NO_VARIANT"
    UNKNOWN = "UNKNOWN"


DEVICE_TERMINAL = frozenset(
    {ExecState.SUCCEEDED, ExecState.FAILED, ExecState.ROLLED_BACK, ExecState.REJECTED}
)
"""Terminal states that a device enters."""

SERVER_TERMINAL = frozenset(
    {
        ExecState.TIMED_OUT,
        ExecState.CANCELLED,
        ExecState.SUPERSEDED,
        ExecState.REMOVED,
        ExecState.ALREADY_INSTALLED,
        ExecState.NO_VARIANT,
    }
)
"""Terminal states that the server enters."""

EXEC_TERMINAL = DEVICE_TERMINAL | SERVER_TERMINAL

DEVICE_REPORTED = frozenset(
    {
        ExecState.ACCEPTED,
        ExecState.DEFERRED,
        ExecState.DOWNLOADING,
        ExecState.VERIFIED,
        ExecState.STAGED,
        ExecState.SHADOWING,
        ExecState.ACTIVATING,
        ExecState.PROBATION,
    }
    | DEVICE_TERMINAL
)
"""States that a device may report."""


class WaveSpec(Authored):
    """A wave's size: a count of devices, or a percentage of the whole target."""

    count: Annotated[int, Field(ge=1)] | None = None
    percent: Annotated[float, Field(gt=0, le=100)] | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.count is None) == (self.percent is None):
            msg = "a wave has either a count or a percent"
            raise ValueError(msg)
        return self


class Probation(Authored):
    """How a device itself judges a new model, without the network.

    min_inferences: it must serve that many. max_error_rate: failed inferences among
    them. max_boots: starts of the agent within probation before it reverts.
    max_latency_ratio: the median wall time of an inference over that of the model before, as
    this device measured it; None looks at no time. max_memory_mb: that the agent's memory may
    grow by; None for any. max_seconds: after so long without enough inferences the
    golden vectors decide, for a model that nobody asks must not stay unproven for ever.
    """

    min_inferences: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    max_error_rate: Annotated[float, Field(ge=0, le=1)] = 0.05
    max_boots: Annotated[int, Field(ge=1, le=100)] = 3
    max_latency_ratio: Annotated[float, Field(gt=0, le=1000)] | None = 5.0
    max_memory_mb: Annotated[int, Field(ge=1)] | None = None
    max_seconds: Annotated[float, Field(gt=0, le=30 * 86400)] = 600.0


class Shadow(Authored):
    """How a device tries a new model beside the one that serves, before it may serve.

    Its answers are compared and thrown away. seconds: how long, of time in which the active
    model was asked. min_compared: samples that both must have answered by then; max_seconds: after
    which too few of them are no failure, and the state ends without a verdict. min_agreement: share
    of them with the same class; None asks for none. cpu_share: of one core that the new
    model may use meanwhile; what does not fit is not compared.
    """

    seconds: Annotated[float, Field(gt=0, le=30 * 86400)] = 60.0
    min_compared: Annotated[int, Field(ge=1, le=1_000_000)] = 50
    max_seconds: Annotated[float, Field(gt=0, le=30 * 86400)] = 3600.0
    min_agreement: Annotated[float, Field(ge=0, le=1)] | None = 0.9
    cpu_share: Annotated[float, Field(gt=0, le=1)] = 0.25


class Gates(Authored):
    """What a wave must show before the next one starts.

    max_failure_rate: failed executions among the devices offered and seen.
    min_inferences: per device, reported with the new version. max_error_rate: failed
    inferences, over the wave. min_accuracy: over labelled inferences, where devices
    have labels. soak_seconds: the least time between the last activation and the
    verdict. evidence_seconds: how long after that missing telemetry is waited for
    before the verdict is INCONCLUSIVE.
    """

    max_failure_rate: Annotated[float, Field(ge=0, le=1)] = 0.1
    min_inferences: Annotated[int, Field(ge=1)] = 50
    max_error_rate: Annotated[float, Field(ge=0, le=1)] = 0.02
    min_accuracy: Annotated[float, Field(ge=0, le=1)] | None = None
    soak_seconds: Annotated[float, Field(ge=0, le=30 * 86400)] = 5.0
    evidence_seconds: Annotated[float, Field(gt=0, le=30 * 86400)] = 60.0


class RolloutSpec(Authored):
    """A rollout as an operator asks for it.

    device_class/tags: the target; every device when both are empty. variant: one
    variant for all, else the best for each device. offer_seconds: how long an offered
    device that is online may stay silent. step_seconds: how long it may make no progress.
    straggler_seconds: how long a device that was never there is waited for after the last
    wave passed; as long is a device waited for that vanished in the middle of its update.
    max_attempts: how often a device tries, where its failure may pass by itself. retry_seconds:
    before the second attempt; it doubles with each, up to 10 minutes. shadow: devices that serve
    the model try the new version beside it first; None swaps at once.
    """

    model: Name
    version: VersionNo
    device_class: Name | None = None
    tags: Annotated[tuple[Tag, ...], Field(max_length=16)] = ()
    variant: Name | None = None
    waves: Annotated[tuple[WaveSpec, ...], Field(min_length=1, max_length=50)] = (
        WaveSpec(count=1),
        WaveSpec(percent=100),
    )
    gates: Gates = Gates()
    probation: Probation = Probation()
    shadow: Shadow | None = None
    offer_seconds: Annotated[float, Field(gt=0)] = 120.0
    step_seconds: Annotated[float, Field(gt=0)] = 300.0
    straggler_seconds: Annotated[float, Field(ge=0)] = 86400.0
    max_attempts: Annotated[int, Field(ge=1, le=20)] = 3
    retry_seconds: Annotated[float, Field(gt=0, le=600)] = 10.0


class Assignment(Wire):
    """What one device shall run, carried in the director's signed document.

    The document's TUF version is ``sequence``; a device refuses one below its floor.
    """

    device: DeviceId
    device_class: Name
    execution: ExecutionId
    attempt: Annotated[int, Field(ge=1)]
    rollout: RolloutId
    model: Name
    version: VersionNo
    variant: Name
    manifest_sha256: Sha256
    probation: Probation
    shadow: Shadow | None = None


FileBytes = Annotated[int, Field(ge=0, le=2**50)]
"""Bytes of files; more than any has, and few enough that those of a fleet can be added up."""


class ExecReport(Wire):
    """A device's report on ``up/exec``. Repeats of a (attempt, seq) do nothing.

    bytes_done/bytes_total: while DOWNLOADING. bytes_fetched: bytes that came over the
    network for this attempt, so that a resume can be seen to fetch nothing twice.
    """

    execution: ExecutionId
    attempt: Annotated[int, Field(ge=1)]
    seq: Count
    boot: BootId
    uptime: Annotated[float, Field(ge=0)]
    state: ExecState
    bytes_done: FileBytes | None = None
    bytes_total: FileBytes | None = None
    bytes_fetched: FileBytes | None = None
    cause: DeviceCause | None = None
    retryable: bool = False
    detail: Annotated[Line, StringConstraints(max_length=2000)] | None = None

    @model_validator(mode="after")
    def _reportable(self) -> Self:
        if self.state not in DEVICE_REPORTED:
            msg = f"a device does not report {self.state}"
            raise ValueError(msg)
        return self


class Command(Wire):
    """Sent on ``down/cmd``. cancel: give up an execution, if it is not too late."""

    kind: Annotated[str, StringConstraints(pattern="^(cancel)$")]
    execution: ExecutionId
    attempt: Annotated[int, Field(ge=1)]


class Evidence(Wire):
    """One figure a verdict rests on. ``value`` is None where data is missing."""

    metric: str
    value: float | None
    threshold: float
    n: int
    ok: bool | None


class ExecutionView(Wire):
    """One device in one rollout.

    due_at: when its next timer runs out; of a SCHEDULED one, when it may be offered. late:
    what the device did after the server had ended it. waits_for: the rollout of another model
    that its device works for, which has to be over first.
    """

    id: ExecutionId
    device: DeviceId
    wave: int
    attempt: int
    state: ExecState
    variant: Name | None = None
    bytes_done: int | None = None
    bytes_total: int | None = None
    bytes_fetched: int | None = None
    cause: DeviceCause | None = None
    detail: str | None = None
    late: ExecState | None = None
    waits_for: RolloutId | None = None
    due_at: UtcTime | None = None
    updated_at: UtcTime


class Progress(Wire):
    """How far the devices of a wave are: how many in each state, and their bytes.

    bytes_fetched: over the network, all attempts; a patch or a broadcast counts as it came.
    """

    states: dict[ExecState, int] = Field(default_factory=dict)
    bytes_done: int = 0
    bytes_total: int = 0
    bytes_fetched: int = 0


class WaveView(Wire):
    """A wave with its devices and, once judged, its evidence.

    stragglers: the last wave, of the devices that were not there when their own was.
    """

    index: int
    state: WaveState
    size: int
    stragglers: bool = False
    evidence: tuple[Evidence, ...] = ()
    progress: Progress = Progress()
    executions: tuple[ExecutionView, ...] = ()


class VariantShare(Wire):
    """How many devices of a class get a variant, or none, for the reason.

    p50_ms: of a single inference there; estimated: not measured by that class itself.
    """

    device_class: Name
    variant: Name | None = None
    devices: int
    p50_ms: float | None = None
    estimated: bool = False
    reason: str | None = None


class RolloutView(Wire):
    """A rollout, as the API shows it.

    reason: why it is paused or was aborted, and by whom. preview: while it is a draft, who would
    get which variant if it started now. cut: it has
    more devices than its waves list; their progress counts all, and the listing of executions
    has each.
    """

    id: RolloutId
    spec: RolloutSpec
    state: RolloutState
    pause_reason: PauseReason | None = None
    reason: str | None = None
    waves: tuple[WaveView, ...] = ()
    preview: tuple[VariantShare, ...] = ()
    cut: bool = False
    created_at: UtcTime
    ended_at: UtcTime | None = None


class OperateRequest(Authored):
    """What may be said with an operator's act: of a pause or an abort, why."""

    reason: Annotated[Line, StringConstraints(max_length=500)] = ""


class RetryRequest(Authored):
    """Which devices get another attempt: these, or all of a rollout that failed."""

    devices: Annotated[tuple[DeviceId, ...], Field(max_length=1000)] = ()


class Retried(Wire):
    """How many devices get another attempt, and the rollout as it then is."""

    devices: int
    rollout: RolloutView
