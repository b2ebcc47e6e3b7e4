"""What may be done next with a rollout: whether its wave may pass, and which acts are of use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from orchestrator.domain.execution import RETRIED_BY_HAND
from orchestrator.domain.judge import hopeless
from orchestrator.domain.next_acts import Standing
from orchestrator.domain.next_acts import next_acts as decide
from orchestrator.domain.rollout import Rollout
from orchestrator.domain.snapshot import WaveFacts, open_wave
from orchestrator.errors import Conflict
from orchestrator.services import rollbacks
from orchestrator.services.looking import with_failures
from orchestrator.services.ports import Transaction
from orchestrator.services.records import RolloutRecord
from orchestrator.services.retries import is_tried_again
from schemas.rollout import PauseReason, RolloutState, WaveState
from schemas.rollout_view import Progress


def may_pass(tx: Transaction, record: RolloutRecord) -> bool:
    """Whether a rollout that its failures paused gets anywhere when it goes on.

    It does where the gates in force now let the wave pass as it stands, or some try again.
    """
    waves = tx.rollouts.waves(record.id)
    facts = (
        WaveFacts(one.idx, one.state, one.entered_at, stragglers=one.stragglers) for one in waves
    )
    wave = open_wave(tuple(facts))
    if wave is None:
        return True
    counts = tx.executions.counts(record.id, wave.index).get(wave.index, {})
    wave = with_failures(tx, record, replace(wave, counts=counts))
    return not hopeless(wave.ends, record.spec.gates) or is_tried_again(tx, record)


def next_acts(
    tx: Transaction, record: RolloutRecord, progress: Mapping[int, Progress]
) -> tuple[str, ...]:
    """The acts that are of use now.

    Args:
        tx: in which it is asked.
        record: the rollout.
        progress: of its devices, by wave.
    """
    paused = record.state is RolloutState.PAUSED
    stopped = paused and record.pause_reason is PauseReason.ERROR_THRESHOLD
    readable = not record.unreadable
    states = {state for one in progress.values() for state, n in one.states.items() if n}
    left = not paused or any(
        one.state is not WaveState.PASSED for one in tx.rollouts.waves(record.id)
    )
    standing = Standing(
        rollout=Rollout(record.state, record.pause_reason),
        is_rollback=record.takes_back is not None,
        readable=readable,
        dynamic=record.spec.dynamic,
        left=left,
        failed=bool(states & RETRIED_BY_HAND),
        may_pass=not (stopped and readable) or may_pass(tx, record),
        leads=not paused or _leads(tx, record),
    )
    return decide(standing)


def _leads(tx: Transaction, record: RolloutRecord) -> bool:
    """Whether a rollback does anything without a version that is named for it."""
    if record.spec.rollback_to is not None:
        return True
    try:
        rollbacks.check_leads(tx, record)
    except Conflict:
        return False
    return True
