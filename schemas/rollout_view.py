"""Rollouts as the API shows them, and what operators may ask of one."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from schemas.base import Authored, Line, UtcTime, VersionNo, Wire
from schemas.errors import DeviceCause
from schemas.gates import Evidence, Gates
from schemas.ids import DeviceId, ExecutionId, Name, RolloutId
from schemas.pace import MaintenanceWindow, Pace
from schemas.rollout import (
    ExecState,
    OnFailure,
    PauseReason,
    RolloutState,
    WaveState,
)
from schemas.stored_spec import StoredSpec

NOT_OFFERED = "NOT_OFFERED"
"""In the outcome of a rollout: it had ended before a device was offered anything."""


class ExecutionView(Wire):
    """One device in one rollout.

    due_at: when its next timer runs out; of a SCHEDULED one, when it may be offered. late:
    what the device did after the server had ended it. waits_for: the rollout of another model
    that its device works for, which has to be over first. waits_until: as its device said. kept:
    of a SCHEDULED one, that another rollout of the model has the device now, and which.
    before: what of the model the device served when it was offered, which a rollback restores.
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
    waits_until: UtcTime | None = None
    kept: str | None = None
    before: VersionNo | None = None
    due_at: UtcTime | None = None
    updated_at: UtcTime


class Progress(Wire):
    """How far the devices of a wave are: how many in each state, and their bytes.

    bytes_fetched: over the network, all attempts; a patch or a broadcast counts as it came.
    waiting: of those that are DEFERRED or STAGED, how many wait for a time or for a word.
    not_offered: of those that the server has ended, how many it had offered nothing.
    """

    states: dict[ExecState, int] = Field(default_factory=dict)
    bytes_done: int = 0
    bytes_total: int = 0
    bytes_fetched: int = 0
    waiting: int = 0
    not_offered: int = 0


class WaveView(Wire):
    """A wave with its devices and, once judged, its evidence.

    stragglers: the last wave, of the devices that were not there when their own was. joiners: of
    devices that matched after the plan was frozen. looks: how often its telemetry was judged;
    promoted_by: who let it pass by hand.
    """

    index: int
    state: WaveState
    size: int
    stragglers: bool = False
    joiners: bool = False
    looks: int = 0
    promoted_by: str | None = None
    evidence: tuple[Evidence, ...] = ()
    progress: Progress = Progress()
    executions: tuple[ExecutionView, ...] = ()


class VariantShare(Wire):
    """How many devices of a class get a variant, or none, for the reason.

    p50_ms: of a single inference there; estimated: not measured by that class itself. offline: of
    the devices, those that are not there now. installed: those that serve it already. bytes: that
    the others have to fetch at most.
    """

    device_class: Name
    variant: Name | None = None
    devices: int
    offline: int = 0
    installed: int = 0
    bytes: int = 0
    p50_ms: float | None = None
    estimated: bool = False
    reason: str | None = None


class Estimate(Wire):
    """What a plan would cost, as far as it can be said before.

    bytes: that devices fetch at most, all together. seconds: from start to the last verdict if
    everybody is there and nothing fails; by pace, soak and transfer rate. notes: what it rests on,
    and what is not in it.
    """

    devices: int
    offline: int
    incompatible: int
    installed: int
    bytes: int
    seconds: float | None = None
    notes: tuple[str, ...] = ()


class PaceNow(Wire):
    """What the pace of a rollout comes to at this moment.

    per_minute: the rate, as far as it has grown; None without one. at_work: devices that are, or
    may be. room: how many may be offered the version now; None: as many as are there.
    """

    per_minute: float | None = None
    at_work: int = 0
    room: int | None = None


class Asked(Wire):
    """Who started a rollout that waits for an approval: the name of the token, when, and why."""

    name: str | None = None
    at: UtcTime | None = None
    reason: str = ""


class Absent(Wire):
    """Whom a rollout's stragglers' wave waits for: how many devices, and until when.

    Where windows hold offers back, only the time counts in which one is open.
    """

    devices: int
    until: UtcTime


class RolloutView(Wire):
    """A rollout, as the API shows it.

    reason: why it is paused or was aborted, and by whom. preview: while it is a draft, who would
    get which variant if it started now. cut: it has
    more devices than its waves list; their progress counts all, and the listing of executions
    has each. revision: grows with each edit and act (``If-Match``). requested_by, approved_by:
    who started it and who agreed. takes_back: of a rollback, the version that it leads devices
    away from; rollback_of: the rollout that shipped that, unless it goes back because the version
    was revoked. rollbacks: those that take this one back; left: how many devices serve its version
    still, by why. estimate: while it is a draft. unreadable: what of its plan the server cannot
    read any more, and shows as a new plan has it. pace_now: while it runs at a limited pace.
    notes: in the answer to an act or an edit, what it did not do, or leaves as it was. acts:
    that are of use now and would not be refused; none in a list, and of servers from before.
    wave_count: in a list, where the waves themselves are left out; those of joiners and stragglers
    count.
    """

    id: RolloutId
    revision: int = 1
    requested_by: str | None = None
    approved_by: str | None = None
    rollback_of: RolloutId | None = None
    takes_back: VersionNo | None = None
    rollbacks: tuple[RolloutId, ...] = ()
    left: dict[str, int] = Field(default_factory=dict)
    estimate: Estimate | None = None
    spec: StoredSpec
    unreadable: tuple[str, ...] = ()
    pace_now: PaceNow | None = None
    notes: tuple[str, ...] = ()
    acts: tuple[str, ...] = ()
    state: RolloutState
    pause_reason: PauseReason | None = None
    reason: str | None = None
    waves: tuple[WaveView, ...] = ()
    wave_count: int | None = None
    asked: Asked | None = None
    absent: Absent | None = None
    outcome: dict[str, int] = Field(default_factory=dict)
    preview: tuple[VariantShare, ...] = ()
    cut: bool = False
    created_at: UtcTime
    started_at: UtcTime | None = None
    ended_at: UtcTime | None = None


class RolloutEdit(Authored):
    """What may be changed of a rollout that is not over; what is left out stays."""

    pace: Pace | None = None
    gates: Gates | None = None
    windows: Annotated[tuple[MaintenanceWindow, ...], Field(max_length=16)] | None = None
    priority: Annotated[int, Field(ge=0, le=100)] | None = None
    on_failure: OnFailure | None = None


def _is_none(value: object) -> bool:
    return value is None


class OperateRequest(Authored):
    """What may be said with an operator's act.

    reason: why, which is kept. to: of a rollback, the version that all get; None: each what it
    served before. full: of a promotion, every later wave passes without soak and gates too.
    wave: of a promotion, the index of the wave that is meant, so that a repeat does not let the
    next one pass; None: the one that is worked on.
    """

    reason: Annotated[Line, StringConstraints(max_length=500)] = ""
    to: VersionNo | None = None
    full: bool = False
    # Not sent where it is not said, as a server from before refuses what it does not know.
    wave: Annotated[int, Field(ge=0, le=1000)] | None = Field(None, exclude_if=_is_none)


class RetryRequest(Authored):
    """Which devices get another attempt: these, or all of a rollout that failed."""

    devices: Annotated[tuple[DeviceId, ...], Field(max_length=1000)] = ()


class Retried(Wire):
    """How many devices get another attempt, and the rollout as it then is.

    None do where what failed is being tried again already; the rollout's notes say so.
    """

    devices: int
    rollout: RolloutView
