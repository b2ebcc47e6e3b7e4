"""What is said of how rollouts stand: who asked for one, whom it waits for, how devices ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from orchestrator.domain.rollout import ROLLOUT_TERMINAL
from orchestrator.domain.timers import Timers
from orchestrator.services.ports import AuditQuery, Transaction
from orchestrator.services.records import RolloutRecord, WaveRecord
from schemas.rollout import ExecState, RolloutState, WaveState
from schemas.rollout_view import Absent, Asked, Progress


def standing(
    tx: Transaction,
    record: RolloutRecord,
    waves: Iterable[WaveRecord],
    progress: Mapping[int, Progress],
) -> dict[str, Any]:
    """What a rollout's view says besides its waves."""
    if record.state is RolloutState.AWAITING_APPROVAL:
        return {"asked": _asked(tx, record)}
    if record.state in ROLLOUT_TERMINAL:
        return {"outcome": tx.rollouts.outcomes([record.id]).get(record.id, {})}
    for wave in waves:
        states = progress.get(wave.idx, Progress()).states
        left = states.get(ExecState.SCHEDULED, 0)
        if wave.stragglers and wave.state is WaveState.RUNNING and left:
            return {"absent": _absent(record, left, wave.entered_at)}
    return {}


def standings(tx: Transaction, records: Sequence[RolloutRecord]) -> Mapping[str, dict[str, Any]]:
    """Likewise of those of a list, by their id, in a few statements, but for who asked.

    How devices ended is counted where nothing else says how the rollout did.
    """
    found: dict[str, dict[str, Any]] = {}
    ended = [one.id for one in records if one.state is RolloutState.SUCCEEDED and not one.reason]
    outcomes = tx.rollouts.outcomes(ended) if ended else {}
    for rollout_id, outcome in outcomes.items():
        found[rollout_id] = {"outcome": outcome}
    going = {one.id: one for one in records if one.state is RolloutState.RUNNING}
    straggling = tx.rollouts.straggling(list(going)) if going else {}
    for rollout_id, (since, left) in straggling.items():
        found[rollout_id] = {"absent": _absent(going[rollout_id], left, since)}
    return found


def _absent(record: RolloutRecord, left: int, since: datetime) -> Absent | None:
    if record.state is not RolloutState.RUNNING or record.unreadable:
        return None
    return Absent(devices=left, until=Timers.of(record.spec).patience_ends(since))


def _asked(tx: Transaction, record: RolloutRecord) -> Asked:
    """Who started it, by the name of the token, as the audit log has it."""
    by = record.requested_by or ""
    key = tx.keys.get(by.partition(":")[2] or by)
    name = key.name if key is not None else None
    query = AuditQuery(tail=1, action="rollout.start", subject=record.id, since=record.created_at)
    for entry in tx.audit.entries(query):
        said = entry.detail.get("reason")
        return Asked(name=name, at=entry.at, reason=said if isinstance(said, str) else "")
    return Asked(name=name)
