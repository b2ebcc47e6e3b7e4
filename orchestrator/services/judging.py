"""Takes looks: reads what both cohorts of a wave did, and judges it, holding nobody up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from orchestrator.domain.actions import Action, KeepLook, TakeLook
from orchestrator.domain.judging.verdict import judge_telemetry
from orchestrator.domain.snapshot import Looked
from orchestrator.services.looking import Look
from orchestrator.services.ports import Transaction, UnitOfWork
from orchestrator.services.records import WaveRecord

DEVICES = 300
"""Of a class and cohort, at most: beyond it more devices hardly narrow an interval."""


def take(uow: UnitOfWork, look: Look, actions: Sequence[Action], now: datetime) -> Look:
    """The view with what a look has shown, if one is to be taken.

    Nothing is written: whoever dies here has spent nothing.
    """
    wanted = next((one for one in actions if isinstance(one, TakeLook)), None)
    if wanted is None:
        return look
    with uow.read() as tx:
        cohorts = tx.executions.cohorts(look.rollout, wanted.wave, now, DEVICES)
    evidence = judge_telemetry(cohorts, look.snapshot.gates, look=wanted.look, last=wanted.last)
    looked = Looked(wanted.look, wanted.last, evidence)
    waves = tuple(
        replace(wave, looked=looked) if wave.index == wanted.wave else wave
        for wave in look.snapshot.waves
    )
    return replace(look, snapshot=replace(look.snapshot, waves=waves))


def keep(tx: Transaction, wave: WaveRecord, action: KeepLook, now: datetime) -> None:
    """Keep what a look has shown that settles nothing yet."""
    kept = replace(wave, looks=action.look, looked_at=now, evidence=action.evidence)
    tx.rollouts.save_wave(kept)
    data = {"wave": wave.idx, "state": wave.state.value, "look": action.look}
    tx.events.add("wave", wave.rollout_id, data, now)
