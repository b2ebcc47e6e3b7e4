"""A dynamic rollout that starts takes the place of older ones of the same model and target."""

from __future__ import annotations

from datetime import datetime

from orchestrator.domain.dynamic import takes_place
from orchestrator.domain.rollout import Happened, RolloutEvent
from orchestrator.services.moves import apply, end_executions
from orchestrator.services.ports import Transaction
from orchestrator.services.records import Among, RolloutRecord
from schemas.rollout import ExecState, PauseReason, RolloutState, WaveState


def take_place(tx: Transaction, newer: RolloutRecord, now: datetime) -> tuple[str, ...]:
    """End the dynamic rollouts that a new one replaces; which.

    One whose waves have all passed has done what it was for; another is aborted. What devices
    were still working on for it is superseded.

    Args:
        tx: in which it is saved.
        newer: the rollout that has started.
        now: the time.
    """
    if not newer.spec.dynamic or newer.state is not RolloutState.RUNNING:
        return ()
    replaced = []
    for older in tx.joining.standing(newer.model):
        known = older.id != newer.id and not older.unreadable
        if known and takes_place(newer.spec, older.spec):
            _end(tx, older, newer.id, now)
            replaced.append(older.id)
    return tuple(replaced)


def _end(tx: Transaction, older: RolloutRecord, by: str, now: datetime) -> None:
    passed = all(wave.state is WaveState.PASSED for wave in tx.rollouts.waves(older.id))
    done = passed and older.state is RolloutState.RUNNING
    kind = RolloutEvent.FINISH if done else RolloutEvent.ABORT
    happened = Happened(kind, PauseReason.OPERATOR)
    ended = apply(tx, older, happened, now, because=f"{by} took its place")
    its = Among(rollout_id=older.id)
    end_executions(tx, its, ExecState.SUPERSEDED, f"superseded by {by}", now)
    version = f"{older.model}@{older.version}"
    detail = {"version": version, "state": ended.state, "replaced_by": by}
    tx.audit.add(f"rollout.{kind.value}", older.id, detail)
