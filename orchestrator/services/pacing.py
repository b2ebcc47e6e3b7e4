"""How many devices of a rollout may be offered its version now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from orchestrator.domain.execution import IN_FLIGHT
from orchestrator.domain.pace import PaceFacts, allowance, quota, rate
from orchestrator.domain.timers import before
from orchestrator.services.ports import Transaction
from orchestrator.services.records import RolloutRecord
from schemas.maintenance import for_download, look
from schemas.pace import Pace
from schemas.rollout import ExecState

Counts = Mapping[int, Mapping[ExecState, int]]
"""Executions by wave and state."""


def closed(rollout: RolloutRecord, now: datetime) -> bool:
    """Whether no window is open in which an offer may be made."""
    return not look(for_download(rollout.spec.windows), now).open


def limits(pace: Pace) -> bool:
    """Whether a pace holds anybody back."""
    return pace.per_minute is not None or pace.concurrent is not None


def counts(tx: Transaction, rollout: RolloutRecord, wave: int) -> Counts:
    """Executions of a wave by their state; of all waves where the pace depends on them."""
    pace = rollout.spec.pace
    of_all = pace.concurrent is not None or pace.growth is not None
    return tx.executions.counts(rollout.id, None if of_all else wave)


@dataclass(frozen=True, slots=True)
class Standing:
    """What the pace of a rollout comes to at a moment.

    per_minute: the rate, by how many have succeeded; None without one. facts: what it depends on.
    room: how many may be offered now; None for as many as are there. ahead: offers of a time to
    come, as the clock was set back since; they count as made now.
    """

    per_minute: float | None
    facts: PaceFacts
    room: int | None
    ahead: int = 0


def standing(tx: Transaction, rollout: RolloutRecord, counted: Counts, now: datetime) -> Standing:
    """What a rollout's pace comes to now.

    Args:
        tx: in which it is asked how many were offered of late.
        rollout: its record.
        counted: by ``counts``.
        now: the time.
    """
    pace = rollout.spec.pace
    succeeded = _sum(counted, frozenset({ExecState.SUCCEEDED}))
    per_minute = rate(pace, succeeded)
    offered = ahead = 0
    if per_minute is not None:
        since = before(now, quota(per_minute).seconds)
        offered, ahead = tx.executions.offered(rollout.id, since, now)
    facts = PaceFacts(offered=offered, at_work=_sum(counted, IN_FLIGHT), succeeded=succeeded)
    return Standing(per_minute, facts, allowance(pace, facts), ahead)


def _sum(counted: Counts, states: frozenset[ExecState]) -> int:
    return sum(n for wave in counted.values() for state, n in wave.items() if state in states)
