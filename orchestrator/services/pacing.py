"""How many devices of a rollout may be offered its version now."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from orchestrator.domain.execution import IN_FLIGHT
from orchestrator.domain.pace import PaceFacts, allowance, quota, rate
from orchestrator.domain.timers import before
from orchestrator.services.ports import Transaction
from orchestrator.services.records import RolloutRecord
from schemas.maintenance import for_download, look
from schemas.rollout import ExecState

Counts = Mapping[int, Mapping[ExecState, int]]
"""Executions by wave and state."""


def closed(rollout: RolloutRecord, now: datetime) -> bool:
    """Whether no window is open in which an offer may be made."""
    return not look(for_download(rollout.spec.windows), now).open


def counts(tx: Transaction, rollout: RolloutRecord, wave: int) -> Counts:
    """Executions of a wave by their state; of all waves where the pace depends on them."""
    pace = rollout.spec.pace
    of_all = pace.concurrent is not None or pace.growth is not None
    return tx.executions.counts(rollout.id, None if of_all else wave)


def room(tx: Transaction, rollout: RolloutRecord, counted: Counts, now: datetime) -> int | None:
    """How many may be offered now; None for as many as are there.

    Args:
        tx: in which it is asked how many were offered of late.
        rollout: its record.
        counted: by ``counts``.
        now: the time.
    """
    pace = rollout.spec.pace
    succeeded = _sum(counted, frozenset({ExecState.SUCCEEDED}))
    per_minute = rate(pace, succeeded)
    offered = 0
    if per_minute is not None:
        since = before(now, quota(per_minute).seconds)
        offered = tx.executions.offered(rollout.id, since, now)
    facts = PaceFacts(offered=offered, at_work=_sum(counted, IN_FLIGHT), succeeded=succeeded)
    return allowance(pace, facts)


def _sum(counted: Counts, states: frozenset[ExecState]) -> int:
    return sum(n for wave in counted.values() for state, n in wave.items() if state in states)
