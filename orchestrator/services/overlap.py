"""Devices that another rollout of the same model keeps, by the ranks of the two."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from orchestrator.domain.overlap import ROLLBACK_PRIORITY, Rank, keeps
from orchestrator.services.ports import Transaction
from orchestrator.services.records import Given, RolloutRecord
from schemas.rollout import EXEC_TERMINAL, ExecState, RolloutState

_KEEPING = frozenset({RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.SUCCEEDED})


def rank(record: RolloutRecord) -> Rank:
    """Where a rollout stands; a rollback above all that an operator started."""
    priority = record.spec.priority if record.takes_back is None else ROLLBACK_PRIORITY
    return Rank(priority, record.started_at or record.created_at, record.id)


def kept(tx: Transaction, rollout: RolloutRecord, devices: Collection[str]) -> Mapping[str, str]:
    """Of the devices that this rollout would be offered to: those that it may not have, and why."""
    mine, found = rank(rollout), {}
    others: dict[str, RolloutRecord | None] = {}
    for device, given in tx.executions.last_given(rollout, devices).items():
        if given.rollout_id not in others:
            others[given.rollout_id] = tx.rollouts.get(given.rollout_id)
        other = others[given.rollout_id]
        if other is None or other.state not in _KEEPING:
            continue
        if keeps(rank(other), mine, working=_is_working(given, other)):
            found[device] = _why(rank(other), mine)
    return found


def _is_working(given: Given, rollout: RolloutRecord) -> bool:
    """Whether it is not over there; between two attempts it is not."""
    if rollout.state is RolloutState.SUCCEEDED:
        return False
    again = given.retryable and given.attempt < rollout.spec.max_attempts
    return given.state not in EXEC_TERMINAL or (given.state is ExecState.FAILED and again)


def _why(other: Rank, mine: Rank) -> str:
    why = f"superseded by {other.rollout}"
    if other.priority > mine.priority:
        why += f", which has the priority {other.priority} and this one {mine.priority}"
    return why
