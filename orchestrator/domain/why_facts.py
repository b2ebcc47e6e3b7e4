"""What has to be known of a device to say why it serves what it serves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.domain.overlap import ROLLBACK_PRIORITY, Rank
from schemas.device import ActiveModel, DeviceState
from schemas.device_why import Hindrance
from schemas.errors import DeviceCause
from schemas.rollout import ExecState, PauseReason, RolloutSpec, RolloutState, WaveSpec, WaveState
from schemas.selector import Facts, Node


@dataclass(frozen=True, slots=True)
class Wave:
    """A wave of a plan."""

    state: WaveState
    stragglers: bool = False
    joiners: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A rollout. fleet: the selector that its fleet was when it was planned.

    unreadable: whom it is for is not known, as this version cannot read its plan. experiment: that
    chose its devices, among those of its target.
    takes_back: of a rollback, the version that it leads away from; rollback_of: the rollout that
    shipped that, unless it was revoked.
    """

    id: str
    spec: RolloutSpec
    state: RolloutState
    pause_reason: PauseReason | None = None
    reason: str | None = None
    rollback_of: str | None = None
    takes_back: int | None = None
    created_at: datetime
    started_at: datetime | None = None
    waves: tuple[Wave, ...] = ()
    fleet: Node | None = None
    unreadable: bool = False
    experiment: str | None = None

    @property
    def version(self) -> int:
        """The version that it ships."""
        return self.spec.version

    @property
    def rank(self) -> Rank:
        """Where it stands among rollouts of its model that want the same device."""
        priority = self.spec.priority if self.takes_back is None else ROLLBACK_PRIORITY
        return Rank(priority, self.started_at or self.created_at, self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """How the pace of a rollout stands, for a device that waits to be offered its version.

    per_minute: the rate now. at_work: devices that are. room: how many may be offered it now; None
    for any number. waiting: devices of its wave that are to be, this one among them.
    """

    per_minute: float | None = None
    at_work: int = 0
    room: int | None = None
    waiting: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The device's part in a rollout.

    waits_until: as the device said. holder: the rollout of another model that it works for.
    kept: of one that is SCHEDULED, why another rollout of the model has the device.
    turn: of one that is SCHEDULED in a wave that runs at a limited pace.
    at: of its last change.
    """

    plan: Plan
    wave: int
    state: ExecState
    attempt: int = 1
    cause: DeviceCause | None = None
    detail: str | None = None
    late: ExecState | None = None
    due_at: datetime | None = None
    waits_until: datetime | None = None
    holder: str | None = None
    kept: str | None = None
    turn: Turn | None = None
    share: float | None = None
    at: datetime

    @property
    def undone_by_hand(self) -> bool:
        """Whether an operator of the device put back what was in service, or on trial."""
        if not self._is_gone:
            return False
        served = self.state is ExecState.SUCCEEDED  # without a cause, as devices put back by hand
        return self.cause is DeviceCause.OPERATOR or (served and self.cause is None)

    @property
    def undone_by_itself(self) -> bool:
        """Whether the device put back what served before, without anybody's word."""
        by_itself = self.cause is not None or self.state is ExecState.ROLLED_BACK
        told = self.undone_by_hand or self.cause in _TOLD
        return self._is_gone and by_itself and not told

    @property
    def _is_gone(self) -> bool:
        return ExecState.ROLLED_BACK in {self.state, self.late}


_TOLD = frozenset({DeviceCause.CANCELLED, DeviceCause.SUPERSEDED, DeviceCause.CANCEL_TOO_LATE})
"""Why a device goes back that the server told to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelNow:
    """One model on the device.

    strange: it was never given what it serves. newest: version that stands. revoked: version →
    why, of those that parts and plans speak of. parts: the device's own, newest first. plans: of
    rollouts that do not have the device, newest first.
    """

    model: str
    active: ActiveModel | None = None
    since: datetime | None = None
    strange: bool = False
    newest: int | None = None
    revoked: Mapping[int, str] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    plans: tuple[Plan, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceNow:
    """The device, and every model that there is something to say of."""

    facts: Facts
    state: DeviceState
    online: bool
    last_seen_at: datetime | None = None
    revoked_at: datetime | None = None
    revoke_reason: str = ""
    models: tuple[ModelNow, ...] = ()


@dataclass(frozen=True, slots=True)
class Reason:
    """What stands in the way of a version, in words; until: when it passes by itself."""

    code: Hindrance
    text: str
    until: datetime | None = None


_WORDS = 400
"""Characters of somebody else's words in a sentence."""


def because(words: str | None) -> str:
    """What somebody else said, as the end of a sentence; nothing where it is nothing."""
    text = " ".join((words or "").split()).rstrip(".")
    if not text:
        return ""
    return f": {text if len(text) <= _WORDS else text[: _WORDS - 1] + '…'}"


def named_of(plan: Plan) -> str:
    """What a rollout ships, as in ``digits@4``."""
    return f"{plan.spec.model}@{plan.version}"


def moment(at: datetime) -> str:
    """A time in words."""
    return f"{at:%Y-%m-%d %H:%M} UTC"


def target_words(spec: RolloutSpec) -> str:
    """Whom a rollout is for."""
    parts = [] if spec.device_class is None else [f"class = {spec.device_class}"]
    parts += [f"tag = {tag}" for tag in spec.tags]
    if spec.where is not None:
        parts.append(spec.where)
    if spec.fleet is not None:
        parts.append(f"fleet {spec.fleet}")
    text = " and ".join(f"({one})" if " or " in one else one for one in parts) or "every device"
    return text if spec.exclude is None else f"{text}, but not {spec.exclude}"


def wave_words(plan: Plan, index: int) -> str:
    """As in ``wave 2 of 3 (up to 50 % of the target)``."""
    text = f"wave {index + 1} of {max(len(plan.waves), index + 1)}"
    rule = _rule(plan, index)
    return f"{text} ({rule})" if rule else text


def _rule(plan: Plan, index: int) -> str | None:
    if index < len(plan.waves):
        if plan.waves[index].stragglers:
            return "of those that were not there before"
        if plan.waves[index].joiners:
            return "of those that came to match later"
    planned = [wave for wave in plan.waves if not (wave.stragglers or wave.joiners)]
    # Where a wave of the plan found nobody it was left out, and the others moved up.
    if len(planned) != len(plan.spec.waves) or index >= len(planned):
        return None
    return _taken(plan.spec.waves[index], first=index == 0)


def _taken(wave: WaveSpec, *, first: bool) -> str:
    if wave.count is not None:
        return "1 device" if wave.count == 1 else f"{wave.count} devices"
    if wave.percent is not None:
        if wave.percent < 100:  # noqa: PLR2004 - percent
            return f"up to {wave.percent:g} %"
        return "all" if first else "all that are left"
    return f"where {wave.where}"
