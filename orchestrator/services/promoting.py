"""Letting waves pass by hand: without soak and gates, but not before their devices are through."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from orchestrator.domain.rollout import WaveEvent, step_wave
from orchestrator.errors import IllegalTransition
from orchestrator.services import actor
from orchestrator.services.moves import announce
from orchestrator.services.ports import Transaction
from orchestrator.services.records import RolloutRecord
from schemas.rollout import PauseReason, RolloutState, WaveState


def promote(
    tx: Transaction, rollout: RolloutRecord, *, full: bool, now: datetime
) -> tuple[RolloutRecord, list[int]]:
    """Let the wave that is worked on pass, or with ``full`` all that are left.

    What a verdict paused goes on; what an operator paused stays so.

    Returns:
        The rollout, and the waves by their number from 1.

    Raises:
        IllegalTransition: every wave has passed.
    """
    by = actor.current()
    waves = [wave for wave in tx.rollouts.waves(rollout.id) if wave.state is not WaveState.PASSED]
    if not waves:
        msg = "every wave has passed: there is nothing to promote"
        raise IllegalTransition(msg)
    promoted = waves if full else waves[:1]
    for wave in promoted:
        stopped = wave.state in {WaveState.FAILED, WaveState.INCONCLUSIVE}
        state = step_wave(wave.state, WaveEvent.REJUDGE) if stopped else wave.state
        entered = now if state is not wave.state else wave.entered_at
        again = replace(wave, state=state, entered_at=entered, promoted_by=by)
        tx.rollouts.save_wave(again)
        if stopped:
            data = {"wave": wave.idx, "state": state.value}
            tx.events.add("wave", rollout.id, data, now)
    record = replace(
        rollout,
        revision=rollout.revision + 1,
        promoted_by=by if full else rollout.promoted_by,
    )
    if rollout.pause_reason not in {None, PauseReason.OPERATOR}:
        record = replace(record, state=RolloutState.RUNNING, pause_reason=None, reason=None)
    tx.rollouts.save(record)
    announce(tx, record, now)
    return record, [wave.idx + 1 for wave in promoted]
