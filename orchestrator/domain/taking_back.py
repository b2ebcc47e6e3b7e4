"""Taking a version back: where each device goes, as what, and when it is done.

A rollback is a rollout of an earlier version to devices that serve the one that is taken back. It
may only lead to a version that is older, is neither revoked nor purged, and that the device served
before, or that an operator named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.domain.execution import FAILURES, TOO_LATE_TO_CANCEL
from schemas.base import VersionNo
from schemas.pace import Mode
from schemas.rollout import EXEC_TERMINAL, ExecState, Probation, RolloutSpec, WaveSpec

PATIENCE = timedelta(hours=1)
"""A rollout that rolls back waits no longer for devices that are there and do not come round."""

CANCELLED_AT_ONCE = frozenset(ExecState) - EXEC_TERMINAL - TOO_LATE_TO_CANCEL
"""What ends when a rollout turns back. Devices beyond it serve the version, and are led away."""

MAX_PRIORITY = 100
_PROBATION = Probation(
    min_inferences=1, max_error_rate=1.0, max_latency_ratio=None, max_seconds=10.0
)
"""The version has served there before, and the one beside it must not: nothing is compared."""


def goal(before: VersionNo | None, taken_back: VersionNo, to: VersionNo | None) -> VersionNo | None:
    """The version that a device is led to; None where it keeps what it has.

    Args:
        before: what it served before it was offered the version.
        taken_back: the version, of which never a newer one follows.
        to: what an operator named for all.
    """
    wanted = before if to is None else to
    return wanted if wanted is not None and wanted < taken_back else None


def spec_of(
    model: str, version: VersionNo, *, straggler_seconds: float, like: RolloutSpec | None = None
) -> RolloutSpec:
    """What a rollback ships: at once, to all of its devices together, judged by nothing.

    Args:
        model: its name.
        version: that devices are led to.
        straggler_seconds: how long devices that are away are waited for.
        like: of the rollout that is taken back, whose timers it keeps.
    """
    timers = (
        {}
        if like is None
        else {
            "offer_seconds": like.offer_seconds,
            "step_seconds": like.step_seconds,
            "max_attempts": like.max_attempts,
            "retry_seconds": like.retry_seconds,
        }
    )
    return RolloutSpec(
        model=model,
        version=version,
        priority=MAX_PRIORITY,
        waves=(WaveSpec(percent=100),),
        probation=_PROBATION,
        mode=Mode(),
        straggler_seconds=straggler_seconds,
        **timers,
    )


@dataclass(frozen=True, slots=True)
class Facts:
    """How far a rollout is that rolls back.

    own: its own executions that are not over. missing: devices to be led away, and in no rollback
    yet. busy: in its rollbacks, devices that are there and not through. since: it turned back.
    """

    own: int
    missing: int
    busy: int
    since: datetime


def is_done(facts: Facts, now: datetime) -> bool:
    """Whether nobody is left who could be led away now.

    Devices that are away are waited for by the rollbacks, which go on without it.
    """
    if facts.own or facts.missing:
        return False
    return not facts.busy or now - facts.since > PATIENCE


NOTHING = "nothing to go back to"
"""Of devices that are led nowhere: what they served before is not known, or cannot be had."""


def leads_nowhere(standings: Mapping[Standing, int]) -> int:
    """How many devices serve what is to be taken back, if none of them could be led anywhere."""
    if any(one.placeable for one in standings):
        return 0
    return sum(standings.values())


@dataclass(frozen=True, slots=True)
class Standing:
    """Devices that serve the version still: what their rollback is at, and whether they are there.

    state: None where no rollback has them. placeable: there is a version to lead them to.
    """

    state: ExecState | None
    online: bool
    placeable: bool


def why_left(standing: Standing) -> str:
    """Why a device serves the version still, in a few words."""
    state = standing.state
    if state is None:
        return "to be led back" if standing.placeable else NOTHING
    if state not in EXEC_TERMINAL:
        return "going back" if standing.online else "offline"
    if state in FAILURES:
        return "failed to go back"
    return _ENDS.get(state, "put back since")


_ENDS = {
    ExecState.NO_VARIANT: "no variant fits",
    ExecState.REMOVED: "not seen again",
    ExecState.CANCELLED: "rollback was stopped",
    ExecState.SUPERSEDED: "another rollout has it",
    ExecState.ALREADY_INSTALLED: "to be led back",
}
