"""Rollouts, waves and executions: plans, states, reports and the desired state."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from schemas.base import MAX_INTEGER, Authored, Count, Line, UtcTime, VersionNo, Wire
from schemas.device import Tag
from schemas.errors import DeviceCause
from schemas.gates import Gates
from schemas.ids import BootId, DeviceId, ExecutionId, Name, RolloutId, Sha256
from schemas.pace import MaintenanceWindow, Mode, Pace
from schemas.selector import SelectorText


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
    """Why a rollout is paused. UNREADABLE: the server cannot read its plan any more."""

    OPERATOR = "operator"
    ERROR_THRESHOLD = "error_threshold"
    VERDICT_FAILED = "verdict_failed"
    INCONCLUSIVE = "inconclusive"
    UNREADABLE = "unreadable"


class OnFailure(StrEnum):
    """What a wave that failed leads to: an operator looks, or what it shipped is taken back."""

    PAUSE = "pause"
    ROLL_BACK = "roll_back"


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
    """Who is in a wave: a count of devices, a percentage of the target, or those that match.

    where: takes what of the target matches and is in no earlier wave.
    """

    count: Annotated[int, Field(ge=1, le=MAX_INTEGER)] | None = None
    percent: Annotated[float, Field(gt=0, le=100)] | None = None
    where: SelectorText | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if sum(one is not None for one in (self.count, self.percent, self.where)) != 1:
            msg = "a wave has either a count or a percent or a selector (where)"
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
    max_memory_mb: Annotated[int, Field(ge=1, le=MAX_INTEGER)] | None = None
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


class RolloutSpec(Authored):
    """A rollout as an operator asks for it.

    device_class/tags/where/fleet: the target, all of which must fit; every device when there is
    none. fleet: a saved selector, as it is when the plan is frozen. exclude: never these. dynamic:
    devices that come to match later join, staged under the same gates, until the rollout is
    finished by hand or another takes its place. priority: where rollouts of one model want the
    same device the higher one has it, of equal ones the one started last. approval: a second
    operator has to agree before it starts. on_failure: what a failed wave leads to. rollback_to:
    the version that devices get then; None: each what it served before.
    pace, windows, mode, max_deferral_seconds: see ``schemas.pace``. variant: one
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
    where: SelectorText | None = None
    fleet: Name | None = None
    exclude: SelectorText | None = None
    dynamic: bool = False
    priority: Annotated[int, Field(ge=0, le=100)] = 50
    approval: bool = False
    on_failure: OnFailure = OnFailure.PAUSE
    rollback_to: VersionNo | None = None
    pace: Pace = Pace()
    mode: Mode = Mode()
    windows: Annotated[tuple[MaintenanceWindow, ...], Field(max_length=16)] = ()
    max_deferral_seconds: Annotated[float, Field(ge=0, le=30 * 86400)] = 86400.0
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
    mode: Mode = Mode()
    windows: Annotated[tuple[MaintenanceWindow, ...], Field(max_length=16)] = ()
    max_deferral_seconds: Annotated[float, Field(ge=0, le=30 * 86400)] = 0.0
    jitter_seconds: Annotated[float, Field(ge=0, le=86400)] = 0.0


FileBytes = Annotated[int, Field(ge=0, le=2**50)]
"""Bytes of files; more than any has, and few enough that those of a fleet can be added up."""


class ExecReport(Wire):
    """A device's report on ``up/exec``. Repeats of a (attempt, seq) do nothing.

    bytes_done/bytes_total: while DOWNLOADING. bytes_fetched: bytes that came over the
    network for this attempt, so that a resume can be seen to fetch nothing twice. waits_until: of
    a DEFERRED or STAGED one, by the server's time, when it goes on by itself; None when it waits
    for a word.
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
    waits_until: UtcTime | None = None

    @model_validator(mode="after")
    def _reportable(self) -> Self:
        if self.state not in DEVICE_REPORTED:
            msg = f"a device does not report {self.state}"
            raise ValueError(msg)
        return self


class Command(Wire):
    """Sent on ``down/cmd``.

    cancel: give up an execution, if it is not too late. proceed: go on with what is DEFERRED or
    STAGED, whatever its mode and windows say.
    """

    kind: Annotated[str, StringConstraints(pattern="^(cancel|proceed)$")]
    execution: ExecutionId
    attempt: Annotated[int, Field(ge=1)]
