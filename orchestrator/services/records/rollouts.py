"""Records of rollouts, their waves and their executions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self

from orchestrator.domain.execution import Execution
from orchestrator.domain.rollout import Rollout
from schemas.errors import DeviceCause
from schemas.gates import Evidence
from schemas.rollout import ExecState, PauseReason, RolloutState, WaveState
from schemas.selector import SelectorError, parse
from schemas.stored_spec import StoredSpec, faults_of


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRecord:
    """A rollout.

    reason: why it is paused or was aborted, and by whom. planned: all of its executions are
    there; until then nobody sees it. fleet_where: of its fleet, as it was when planned.
    revision: grows with each edit and each change of state.
    activated_at: when whoever had been offered it by then was told to wait no longer.
    requested_by, approved_by: who started it and who agreed, as the audit log names them.
    takes_back: of a rollback, the version that it leads away from; rollback_of: the rollout
    that shipped it, if it is one's. turned_at: since when it rolls back itself; back_to: the
    version that was named for it. promoted_by: who let all of its waves pass by hand.
    """

    id: str
    model: str
    version: int
    spec: StoredSpec
    state: RolloutState
    pause_reason: PauseReason | None = None
    reason: str | None = None
    planned: bool = True
    fleet_where: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    revision: int = 1
    activated_at: datetime | None = None
    requested_by: str | None = None
    approved_by: str | None = None
    rollback_of: str | None = None
    takes_back: int | None = None
    back_to: int | None = None
    turned_at: datetime | None = None
    promoted_by: str | None = None

    @property
    def unreadable(self) -> tuple[str, ...]:
        """What of its plan this version cannot read, and why; then nothing of it is acted on."""
        return (*faults_of(self.spec), *_fault_of(self.fleet_where))

    def machine(self) -> Rollout:
        """The part that the state machine knows."""
        return Rollout(self.state, self.pause_reason)


def _fault_of(fleet_where: str | None) -> tuple[str, ...]:
    if fleet_where is None:
        return ()
    try:
        parse(fleet_where)
    except SelectorError as error:
        return (f"its fleet when it was planned: {error}",)
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveRecord:
    """A wave; ``entered_at`` is when it took its state.

    looks: how often its telemetry was judged, looked_at: the last time; both begin anew when a
    person resumes what a verdict had stopped. promoted_by: who let it pass by hand.
    """

    rollout_id: str
    idx: int
    state: WaveState
    stragglers: bool = False
    joiners: bool = False
    entered_at: datetime
    evidence: tuple[Evidence, ...] = ()
    looks: int = 0
    looked_at: datetime | None = None
    promoted_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionRecord:
    """One device in one rollout.

    sequence: of its signed assignment, 0 before the offer. published: the retained
    desired message holds what this record says. due_at: when its next timer runs out
    (``domain.timers``); of a SCHEDULED one, when it may be offered, None being now.
    retryable: it failed by what may pass. bytes_earlier: fetched in the attempts before.
    waits_until: of a device that waits, when it goes on, as it said. proceed: it is to go on,
    whatever it waits for; while this is not published its device has to be told.
    before_version, before_variant: what of the model its device served when it was offered.
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
    bytes_earlier: int = 0
    cause: DeviceCause | None = None
    detail: str | None = None
    retryable: bool = False
    before_version: int | None = None
    before_variant: str | None = None
    due_at: datetime | None = None
    waits_until: datetime | None = None
    proceed: bool = False
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
            retryable=self.retryable,
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
            retryable=execution.retryable,
        )
