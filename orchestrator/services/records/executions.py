"""What services ask of many executions at once, and what they get."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from schemas.device import ActiveModel, Hardware
from schemas.rollout import ExecState


@dataclass(frozen=True, slots=True)
class Alike:
    """Devices of a rollout that are alike in what decides their variant, and how many.

    active: what they serve of the rollout's model. hardware_text: the same as the database has
    it, None where there is none. offline: of the devices, those that are not there.
    """

    device_class: str
    hardware: Hardware | None
    active: ActiveModel | None
    devices: int
    hardware_text: str | None = None
    offline: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Among:
    """Which executions of a rollout; what is None or empty leaves it open.

    ids: only these. devices: only of these. due_by: their timer has run out by then. online:
    whether their device is there. usable: whether it may take part. retryable_below: FAILED by
    what may pass, and of a lower attempt. alike: of devices of that group. held: their device is
    there and works for a rollout of another model. waiting_since: they wait, or will, by an offer
    made until then, and nobody has told them to go on. retried: at another attempt than the first.
    """

    rollout_id: str
    wave: int | None = None
    states: frozenset[ExecState] = frozenset()
    ids: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    due_by: datetime | None = None
    online: bool | None = None
    usable: bool | None = None
    retryable_below: int | None = None
    alike: Alike | None = None
    held: bool | None = None
    waiting_since: datetime | None = None
    retried: bool = False


@dataclass(frozen=True, slots=True)
class Given:
    """By which rollout a device was given its newest version of a model, and how far that is.

    retryable: it failed by what may pass.
    """

    rollout_id: str
    state: ExecState
    attempt: int
    retryable: bool


@dataclass(frozen=True, slots=True)
class Moved:
    """An execution that a set moved."""

    id: str
    device_id: str
    rollout_id: str
    wave: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """An execution that may be offered, with what decides which variant its device gets.

    active: what the device serves of the rollout's model.
    """

    id: str
    device_id: str
    device_class: str
    hardware: Hardware | None
    active: ActiveModel | None
