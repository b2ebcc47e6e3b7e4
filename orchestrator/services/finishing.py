"""The end of dynamic rollouts: by hand, or as a newer one takes its place."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from orchestrator.domain.dynamic import finished, takes_place
from orchestrator.domain.rollout import Happened, Refuse, RolloutEvent
from orchestrator.errors import IllegalTransition
from orchestrator.services.moves import announce, apply, end_executions
from orchestrator.services.ports import Transaction
from orchestrator.services.records import Among, RolloutRecord
from schemas.rollout import ExecState, PauseReason, WaveState


def finish(tx: Transaction, record: RolloutRecord, now: datetime) -> RolloutRecord:
    """Let nobody join a rollout any more; it ends once its waves have. A repeat changes nothing.

    Args:
        tx: in which it is saved; the record is locked in it.
        record: the rollout.
        now: the time.

    Raises:
        IllegalTransition: it has not started, or is over.
    """
    spec = finished(record.spec, record.state)
    if isinstance(spec, Refuse):
        raise IllegalTransition(spec.detail)
    if spec == record.spec:
        return record
    after = replace(record, spec=spec, revision=record.revision + 1)
    tx.rollouts.save(after)
    announce(tx, after, now)
    tx.audit.add("rollout.finish", record.id, {"version": f"{record.model}@{record.version}"})
    return after


def take_place(tx: Transaction, newer: RolloutRecord, now: datetime) -> None:
    """End the dynamic rollouts of the same model and target that a new one replaces.

    One whose waves have all passed has done what it was for; another is aborted. What devices
    were working on is superseded.

    Args:
        tx: in which it is saved.
        newer: the rollout that has started.
        now: the time.
    """
    if not newer.spec.dynamic:
        return
    for older in tx.joining.standing(newer.model):
        if older.id == newer.id or not takes_place(newer.spec, older.spec):
            continue
        passed = all(w.state is WaveState.PASSED for w in tx.rollouts.waves(older.id))
        kind = RolloutEvent.FINISH if passed and not older.pause_reason else RolloutEvent.ABORT
        why = f"{newer.id} took its place"
        ended = apply(tx, older, Happened(kind, PauseReason.OPERATOR), now, because=why)
        its, detail = Among(rollout_id=older.id), f"superseded by {newer.id}"
        end_executions(tx, its, ExecState.SUPERSEDED, detail, now)
        tx.audit.add(
            f"rollout.{kind.value}",
            older.id,
            {"version": f"{older.model}@{older.version}", "state": ended.state, "by": newer.id},
        )
