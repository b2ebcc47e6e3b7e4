"""Records of what is to be sent to devices, and of what they were given."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from orchestrator.domain.execution import IN_FLIGHT
from orchestrator.domain.waiting import WAITS
from schemas.rollout import ExecState


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """Executions of one rollout and state of which devices are still to be told."""

    rollout_id: str
    state: ExecState
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """An execution of which a device is to be told, with what the message says of the device.

    newest: the device was given nothing after it, so the retained message is its own. due_at:
    when its timer runs out. paused: its rollout is. proceed: its device is to wait no longer.
    """

    id: str
    rollout_id: str
    device_id: str
    device_class: str
    attempt: int
    state: ExecState
    variant: str | None
    sequence: int
    newest: bool
    published: bool
    offered_at: datetime | None
    due_at: datetime | None = None
    paused: bool = False
    proceed: bool = False

    @property
    def goes_on(self) -> bool:
        """Whether the device waits, as far as is known, and is to be told to go on."""
        return self.proceed and self.state in WAITS

    @property
    def held(self) -> bool:
        """Whether it waits for its rollout to go on: nobody has begun with it."""
        return self.paused and self.state is ExecState.OFFERED

    @property
    def is_offer(self) -> bool:
        """Whether the device is to have the model, or has it by this."""
        return self.state in IN_FLIGHT or self.state is ExecState.SUCCEEDED

    def wish(self) -> tuple[object, ...]:
        """What of it decides which messages the device shall have."""
        end = None if self.is_offer else self.state
        flags = (self.newest, self.published, self.held, self.goes_on)
        return (self.sequence, self.attempt, *flags, end)


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenRecord:
    """An execution by which a device got a model, or was found to have it (no variant then)."""

    execution: str
    device_id: str
    model: str
    version: int
    variant: str | None
    manifest_sha256: str
    state: ExecState
    late: ExecState | None
    at: datetime
