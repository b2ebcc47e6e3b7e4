"""Letting waves pass by hand: without soak and gates, but not before their devices are through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from orchestrator.domain.acts import LEGAL, Act
from orchestrator.domain.rollout import WaveEvent, step_wave
from orchestrator.errors import Conflict, IllegalTransition, NotFound
from orchestrator.services import actor
from orchestrator.services.moves import announce
from orchestrator.services.ports import Transaction
from orchestrator.services.records import RolloutRecord, WaveRecord
from schemas.rollout import PauseReason, RolloutState, WaveState

_STOPPED = frozenset({WaveState.FAILED, WaveState.INCONCLUSIVE})


def promoted_already(
    rollout: RolloutRecord, waves: Sequence[WaveRecord], *, wave: int | None, full: bool
) -> str | None:
    """Why a promotion has nothing to do, so that a repeat of one does nothing; else None.

    Args:
        rollout: its record.
        waves: all of its waves.
        wave: the index of the one that is meant; None: the one that is worked on.
        full: all that are left are meant.

    Raises:
        NotFound: it has no such wave.
        Conflict: the wave that is meant is not the one that is worked on.
    """
    left = _left(waves)
    if full:
        each = bool(left) and all(_is_promoted(rollout, one) for one in left)
        return "every wave that is left is promoted already" if each else None
    if wave is None:
        return _said(rollout, left[0]) if left and _is_promoted(rollout, left[0]) else None
    named = next((one for one in waves if one.idx == wave), None)
    if named is None:
        msg = f"{rollout.id} has no wave {wave + 1}: it has {len(waves)}"
        raise NotFound(msg, hint=f"`argosy rollout get {rollout.id}` shows them")
    if named.state is WaveState.PASSED:
        return f"wave {wave + 1} has passed already; the rollout is {rollout.state}"
    if rollout.state not in LEGAL[Act.PROMOTE]:
        return None  # it never passes now, whoever promoted it
    if _is_promoted(rollout, named):
        return _said(rollout, named)
    if named is not left[0]:
        msg = f"wave {wave + 1} is not the one that is worked on: that is wave {left[0].idx + 1}"
        raise Conflict(msg, hint="promote that one, or all that are left by --full")
    return None


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
    waves = _left(tx.rollouts.waves(rollout.id))
    if not waves:
        msg = "every wave has passed: there is nothing to promote"
        raise IllegalTransition(msg)
    promoted = waves if full else waves[:1]
    for wave in promoted:
        stopped = wave.state in _STOPPED
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


def _left(waves: Sequence[WaveRecord]) -> list[WaveRecord]:
    """Those that have not passed, in the order of ``domain.snapshot.open_wave``."""
    left = [wave for wave in waves if wave.state is not WaveState.PASSED]
    return sorted(left, key=lambda wave: (wave.stragglers, wave.idx))


def _is_promoted(rollout: RolloutRecord, wave: WaveRecord) -> bool:
    by = wave.promoted_by or rollout.promoted_by
    return by is not None and wave.state not in _STOPPED


def _said(rollout: RolloutRecord, wave: WaveRecord) -> str:
    by = wave.promoted_by or rollout.promoted_by
    return (
        f"wave {wave.idx + 1} is promoted already, by {by}: it passes once its devices are through"
    )
