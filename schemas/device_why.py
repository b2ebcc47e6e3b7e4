"""Why a device serves what it serves, and not something newer."""

from __future__ import annotations

from enum import StrEnum

from schemas.base import UtcTime, Wire
from schemas.device import DeviceState, Presence
from schemas.ids import DeviceId, Name, RolloutId


class Origin(StrEnum):
    """How a device came to the version that it serves.

    NONE: it serves none. UNKNOWN: no rollout on record brought it.
    """

    ROLLOUT = "rollout"
    ROLLBACK = "rollback"
    BY_HAND = "by_hand"
    DRIFT = "drift"
    UNKNOWN = "unknown"
    NONE = "none"


class Hindrance(StrEnum):
    """Why a device does not serve a version.

    PENDING, REVOKED: the device itself. NEXT: nothing stands in the way, it is about to be
    offered. UNDER_WAY: it works on it. WAITS_FOR_WORD: it is staged and waits to be activated.
    GONE: it was put into service, and the device has lost it. NOT_IN_PLAN: it fits the target now,
    and did not when the plan was frozen. REPLACED: another version was put into its place.
    ROLLED_BACK: the device went back by itself; TAKEN_BACK: a rollback led it away.
    """

    PENDING = "pending"
    REVOKED = "revoked"
    VERSION_REVOKED = "version_revoked"
    NO_ROLLOUT = "no_rollout"
    NOT_TARGETED = "not_targeted"
    NOT_IN_PLAN = "not_in_plan"
    JOINS = "joins"
    DRAFT = "draft"
    APPROVAL = "approval"
    PAUSED = "paused"
    ROLLING_BACK = "rolling_back"
    WAVE_PENDING = "wave_pending"
    OFFLINE = "offline"
    RETRY = "retry"
    BUSY = "busy"
    WINDOW = "window"
    PACED = "paced"
    NEXT = "next"
    UNDER_WAY = "under_way"
    DEFERRED = "deferred"
    WAITS_FOR_WORD = "waits_for_word"
    NO_VARIANT = "no_variant"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    BY_HAND = "by_hand"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    REPLACED = "replaced"
    TAKEN_BACK = "taken_back"
    REMOVED = "removed"
    GONE = "gone"


class WhyNot(Wire):
    """Why a device does not serve one version. text: one or two sentences.

    rollout: that the reason comes from; wave: its index there, from 0. until: when it passes by
    itself, where that is known.
    """

    version: int
    code: Hindrance
    text: str
    rollout: RolloutId | None = None
    wave: int | None = None
    until: UtcTime | None = None


class ModelWhy(Wire):
    """Why a device serves what it serves of a model.

    rule: whom the rollout is for, and whom of them the wave. fell_back: the later rollout whose
    version the device put back by itself, since when it serves this one again. newest:
    version that stands, neither revoked nor purged. missing: the newest, others that rollouts would
    bring, and newer ones that were tried since and did not stay, newest first; empty
    when it serves the newest and nothing else is on its way.
    """

    model: Name
    version: int | None = None
    variant: Name | None = None
    since: UtcTime | None = None
    origin: Origin
    rollout: RolloutId | None = None
    wave: int | None = None
    rule: str | None = None
    fell_back: RolloutId | None = None
    text: str
    newest: int | None = None
    missing: tuple[WhyNot, ...] = ()


class DeviceWhy(Wire):
    """Why a device serves what it serves, by model."""

    device: DeviceId
    state: DeviceState
    presence: Presence
    models: tuple[ModelWhy, ...] = ()
