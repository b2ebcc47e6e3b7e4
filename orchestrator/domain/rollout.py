"""Rollouts and waves: their two transition tables."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from schemas.rollout import PauseReason, RolloutState, WaveState

R = RolloutState
W = WaveState

ROLLOUT_TERMINAL = frozenset({R.SUCCEEDED, R.ABORTED, R.ROLLED_BACK})
WAVE_TERMINAL = frozenset({W.PASSED})


class RolloutEvent(StrEnum):
    """What may happen to a rollout, with or without an operator."""

    REQUEST_APPROVAL = "request_approval"
    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    ROLL_BACK = "roll_back"
    FINISH = "finish"
    ROLLED_BACK = "rolled_back"


E = RolloutEvent

ROLLOUT_TABLE: dict[tuple[RolloutState, RolloutEvent], RolloutState] = {
    (R.DRAFT, E.REQUEST_APPROVAL): R.AWAITING_APPROVAL,
    (R.DRAFT, E.START): R.RUNNING,
    (R.DRAFT, E.ABORT): R.ABORTED,
    (R.AWAITING_APPROVAL, E.START): R.RUNNING,
    (R.AWAITING_APPROVAL, E.ABORT): R.ABORTED,
    (R.RUNNING, E.PAUSE): R.PAUSED,
    (R.RUNNING, E.ABORT): R.ABORTED,
    (R.RUNNING, E.ROLL_BACK): R.ROLLING_BACK,
    (R.RUNNING, E.FINISH): R.SUCCEEDED,
    (R.PAUSED, E.RESUME): R.RUNNING,
    (R.PAUSED, E.ABORT): R.ABORTED,
    (R.PAUSED, E.ROLL_BACK): R.ROLLING_BACK,
    (R.ROLLING_BACK, E.ROLLED_BACK): R.ROLLED_BACK,
    (R.ROLLING_BACK, E.ABORT): R.ABORTED,
}

ENGINE_EVENTS = frozenset({E.PAUSE, E.FINISH, E.ROLL_BACK, E.ROLLED_BACK})
"""What the engine may do by itself; everything else is an operator's."""

REPEATS: dict[RolloutEvent, RolloutState] = {
    E.START: R.RUNNING,
    E.PAUSE: R.PAUSED,
    E.RESUME: R.RUNNING,
    E.ABORT: R.ABORTED,
}
"""An event that finds its own result already there changes nothing and is no fault."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """State and, when paused, why."""

    state: RolloutState = R.DRAFT
    pause_reason: PauseReason | None = None


@dataclass(frozen=True, slots=True)
class Happened:
    """An event; ``reason`` belongs to PAUSE, ``may_pass`` to RESUME.

    may_pass: of a wave that failures stopped, by the gates in force now or as some try again.
    """

    kind: RolloutEvent
    reason: PauseReason | None = None
    may_pass: bool = False


@dataclass(frozen=True, slots=True)
class Announce:
    """Watchers want to know."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Not a legal edge; nothing changed."""

    detail: str


def step(
    rollout: Rollout,
    event: Happened,
    now: datetime,  # noqa: ARG001 - one shape for every machine
) -> tuple[Rollout, tuple[Announce | Refuse, ...]]:
    """Apply one event."""
    target = ROLLOUT_TABLE.get((rollout.state, event.kind))
    if target is None:
        if REPEATS.get(event.kind) is rollout.state:
            return rollout, ()
        return rollout, (Refuse(_why_not(rollout.state, event.kind)),)
    failed = rollout.pause_reason is PauseReason.ERROR_THRESHOLD
    if event.kind is E.RESUME and failed and not event.may_pass:
        return rollout, (Refuse(_BEYOND_HELP),)
    reason = (event.reason or PauseReason.OPERATOR) if target is R.PAUSED else None
    return replace(rollout, state=target, pause_reason=reason), (Announce(),)


_BEYOND_HELP = (
    "too many devices failed for this wave to pass by its gates as they are: promote it as it is,"
    " retry those that may work now, or edit the gates; or roll back, or abort the rollout"
)


def no_retry(state: RolloutState) -> Refuse | None:
    """Why a rollout makes no other attempt by hand; None where it may."""
    if state in {R.RUNNING, R.PAUSED}:
        return None
    return Refuse(f"nothing is retried: the rollout {_not_at_work(state)}")


def _not_at_work(state: RolloutState) -> str:
    if state is R.ROLLING_BACK:
        return f"is taken back ({state})"
    return f"has ended ({state})" if state in ROLLOUT_TERMINAL else f"is not started ({state})"


def _why_not(state: RolloutState, kind: RolloutEvent) -> str:
    legal = sorted({e for (s, e) in ROLLOUT_TABLE if s is state} - {E.FINISH, E.ROLLED_BACK})
    what = kind.replace("_", " ")
    if not legal:
        return f"cannot {what}: the rollout has ended ({state})"
    return f"cannot {what} a rollout that is {state}; it allows {', '.join(legal)}"


class WaveEvent(StrEnum):
    """What may happen to a wave."""

    BEGIN = "begin"
    SETTLED = "settled"
    SOAKED = "soaked"
    PASS = "pass"  # noqa: S105 - an event, not a secret
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    REJUDGE = "rejudge"


V = WaveEvent

WAVE_TABLE: dict[tuple[WaveState, WaveEvent], WaveState] = {
    (W.PENDING, V.BEGIN): W.RUNNING,
    (W.RUNNING, V.SETTLED): W.SOAKING,
    (W.RUNNING, V.FAIL): W.FAILED,
    (W.SOAKING, V.SOAKED): W.JUDGING,
    (W.SOAKING, V.FAIL): W.FAILED,
    (W.JUDGING, V.PASS): W.PASSED,
    (W.JUDGING, V.FAIL): W.FAILED,
    (W.JUDGING, V.INCONCLUSIVE): W.INCONCLUSIVE,
    (W.SOAKING, V.REJUDGE): W.RUNNING,
    (W.JUDGING, V.REJUDGE): W.RUNNING,
    (W.FAILED, V.REJUDGE): W.RUNNING,
    (W.INCONCLUSIVE, V.REJUDGE): W.RUNNING,
}


def step_wave(state: WaveState, event: WaveEvent) -> WaveState:
    """The next state; the same one when the event does not fit."""
    return WAVE_TABLE.get((state, event), state)
