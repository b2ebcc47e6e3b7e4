"""Rollouts and executions as the API shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from orchestrator.domain.estimate import estimate
from orchestrator.domain.execution import IN_FLIGHT
from orchestrator.services import overlap, pacing, resolution, resuming, rollbacks
from orchestrator.services.ports import Transaction
from orchestrator.services.records import Among, ExecutionRecord, RolloutRecord
from orchestrator.services.rollout_standing import standing
from schemas.rollout import EXEC_TERMINAL, ExecState, RolloutState
from schemas.rollout_view import ExecutionView, PaceNow, Progress, RolloutView, WaveView

MAX_EXECUTIONS = 1_000
"""Devices that a rollout's view lists; its waves' progress counts all of them."""

_AHEAD = frozenset({RolloutState.DRAFT, RolloutState.AWAITING_APPROVAL})
_GOING = frozenset({RolloutState.RUNNING, RolloutState.PAUSED})
_TROUBLE = EXEC_TERMINAL - {ExecState.SUCCEEDED, ExecState.ALREADY_INSTALLED}


def head(record: RolloutRecord) -> RolloutView:
    """A rollout without its waves."""
    return RolloutView(
        id=record.id,
        spec=record.spec,
        state=record.state,
        pause_reason=record.pause_reason,
        reason=record.reason,
        revision=record.revision,
        requested_by=record.requested_by,
        approved_by=record.approved_by,
        rollback_of=record.rollback_of,
        takes_back=record.takes_back,
        unreadable=record.unreadable,
        created_at=record.created_at,
        started_at=record.started_at,
        ended_at=record.ended_at,
    )


def view(tx: Transaction, record: RolloutRecord) -> RolloutView:
    """A rollout with its waves.

    Of a large one not every device is listed, first those with troubles, then those that
    are at work; ``cut`` says so.
    """
    progress = tx.executions.progress(record.id)
    total = sum(sum(one.states.values()) for one in progress.values())
    by_wave: dict[int, list[ExecutionView]] = {}
    for execution in execution_views(tx, record, _listed(tx, record.id, total)):
        by_wave.setdefault(execution.wave, []).append(execution)
    planned = tx.rollouts.waves(record.id)
    waves = tuple(
        WaveView(
            index=wave.idx,
            state=wave.state,
            size=sum(progress.get(wave.idx, Progress()).states.values()),
            stragglers=wave.stragglers,
            joiners=wave.joiners,
            looks=wave.looks,
            promoted_by=wave.promoted_by or record.promoted_by,
            evidence=wave.evidence,
            progress=progress.get(wave.idx, Progress()),
            executions=tuple(by_wave.get(wave.idx, ())),
        )
        for wave in planned
    )
    acts = resuming.next_acts(tx, record, progress)
    found: dict[str, object] = {"waves": waves, "cut": total > MAX_EXECUTIONS, "acts": acts}
    found |= standing(tx, record, planned, progress)
    if record.turned_at is not None:
        back = tx.taking_back.rollbacks(rollbacks.of(record))
        found |= {"rollbacks": tuple(one.id for one in back), "left": rollbacks.left(tx, record)}
    return head(record).model_copy(update=found)


def foresight(
    tx: Transaction, record: RolloutRecord, now: datetime, transfer_rate: int | None = None
) -> RolloutView:
    """As ``view``, with what its pace comes to; before its start with variants and cost.

    Args:
        tx: in which it is asked.
        record: the rollout.
        now: the time.
        transfer_rate: bytes a second that the server sends at most; None is without limit.
    """
    seen = view(tx, record)
    if record.state is RolloutState.RUNNING and pacing.limits(record.spec.pace):
        return seen.model_copy(update={"pace_now": _pace_now(tx, record, seen, now)})
    if record.state not in _AHEAD or record.unreadable:
        return seen
    preview = resolution.preview(tx, record)
    sizes = [wave.size for wave in seen.waves]
    found = tx.executions.classes(record.id)
    classes = [found.get(wave.index, {}) for wave in seen.waves]
    cost = estimate(record.spec, sizes, preview, now, transfer_rate, classes)
    return seen.model_copy(update={"preview": preview, "estimate": cost})


def _pace_now(tx: Transaction, record: RolloutRecord, seen: RolloutView, now: datetime) -> PaceNow:
    counted = {wave.index: wave.progress.states for wave in seen.waves}
    found = pacing.standing(tx, record, counted, now)
    return PaceNow(per_minute=found.per_minute, at_work=found.facts.at_work, room=found.room)


def _listed(tx: Transaction, rollout_id: str, total: int) -> Sequence[ExecutionRecord]:
    everything = Among(rollout_id=rollout_id)
    if total <= MAX_EXECUTIONS:
        return tx.executions.page(everything, None, MAX_EXECUTIONS)
    listed: list[ExecutionRecord] = []
    for states in (_TROUBLE, IN_FLIGHT, frozenset(ExecState) - _TROUBLE - IN_FLIGHT):
        left = MAX_EXECUTIONS - len(listed)
        if left:
            among = Among(rollout_id=rollout_id, states=states)
            listed.extend(tx.executions.page(among, None, left))
    return sorted(listed, key=lambda one: (one.wave, one.id))


def execution_views(
    tx: Transaction, rollout: RolloutRecord, records: Sequence[ExecutionRecord]
) -> Sequence[ExecutionView]:
    """Devices in a rollout; those that wait for what their device does for another one say so."""
    waiting: list[str] = []
    if rollout.state in _GOING:
        waiting = [one.device_id for one in records if one.state is ExecState.SCHEDULED]
    holders = tx.executions.holders(rollout.id, waiting) if waiting else {}
    kept = overlap.kept(tx, rollout, waiting) if waiting else {}
    return [_execution_view(one, holders, kept) for one in records]


def _execution_view(
    record: ExecutionRecord, holders: Mapping[str, str], kept: Mapping[str, str]
) -> ExecutionView:
    scheduled = record.state is ExecState.SCHEDULED
    return ExecutionView(
        id=record.id,
        device=record.device_id,
        wave=record.wave,
        attempt=record.attempt,
        state=record.state,
        variant=record.variant,
        bytes_done=record.bytes_done,
        bytes_total=record.bytes_total,
        bytes_fetched=record.bytes_fetched,
        cause=record.cause,
        detail=record.detail,
        late=record.late,
        waits_for=holders.get(record.device_id) if scheduled else None,
        waits_until=record.waits_until,
        kept=kept.get(record.device_id) if scheduled else None,
        before=record.before_version,
        due_at=record.due_at,
        updated_at=record.updated_at,
    )
