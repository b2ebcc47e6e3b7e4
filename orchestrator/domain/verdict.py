"""The verdict on a wave that has soaked: when it is looked at, and what follows from it.

First what needs no control cohort, which is waited for until ``evidence_seconds`` are over. Then
looks at what telemetry says of both cohorts. A look is taken in two steps, because it reads
much: the engine asks for it (``TakeLook``), and decides again once its evidence is there. What
was not saved did not happen: the same look is then taken again, and no alpha is spent twice.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from orchestrator.domain.actions import (
    Action,
    KeepLook,
    MoveRollout,
    MoveWave,
    TakeLook,
)
from orchestrator.domain.judge import judge
from orchestrator.domain.judging.figures import Verdict
from orchestrator.domain.judging.verdict import next_look, outcome
from orchestrator.domain.rollout import RolloutEvent, WaveEvent
from orchestrator.domain.snapshot import Snapshot, WaveFacts
from orchestrator.domain.timers import MAX_SECONDS
from schemas.gates import Evidence, Gates
from schemas.rollout import ExecState, OnFailure, PauseReason

_GONE = frozenset({ExecState.REMOVED, ExecState.NO_VARIANT, ExecState.SUPERSEDED})


def judged(wave: WaveFacts, snapshot: Snapshot, now: datetime) -> tuple[Action, ...]:
    """What to do with a wave in JUDGING."""
    if all(state in _GONE for state, n in wave.counts.items() if n):
        # Nobody is left to judge by: harmless of those who come later, no proof before.
        kind = WaveEvent.PASS if wave.stragglers or wave.joiners else WaveEvent.INCONCLUSIVE
        return moved(wave, snapshot, kind, gone=_told(wave))
    gates = snapshot.gates
    last = _deadline(wave, gates) <= now
    plain = judge(wave.ends, wave.served, gates, last=last)
    verdict = outcome(plain, last=last)
    if verdict in {Verdict.FAIL, Verdict.WAIT}:
        return _conclude(wave, snapshot, verdict, plain)
    if snapshot.deaf:
        return ()  # what devices said is on its way: neither silence nor missing data counts
    if not gates.telemetry or not wave.ends.counts.get(ExecState.SUCCEEDED):
        return _conclude(wave, snapshot, verdict, plain)
    return _by_telemetry(wave, snapshot, now, plain)


def _told(wave: WaveFacts) -> str:
    """How those ended that are gone, as in ``12 superseded, 1 no variant``."""
    gone = [(n, state) for state, n in sorted(wave.counts.items()) if n]
    return ", ".join(f"{n} {state.lower().replace('_', ' ')}" for n, state in gone)


def _by_telemetry(
    wave: WaveFacts, snapshot: Snapshot, now: datetime, plain: tuple[Evidence, ...]
) -> tuple[Action, ...]:
    look, gates = wave.looks + 1, snapshot.gates
    last = _deadline(wave, gates) <= now
    looked = wave.looked
    if looked is None or (looked.look, looked.last) != (look, last):
        due = last or next_look(wave.looks, wave.looked_at or wave.entered_at, gates) <= now
        return (TakeLook(wave.index, look, last),) if due else ()
    evidence = (*plain, *looked.evidence)
    verdict = outcome(evidence, last=last)
    if verdict is Verdict.WAIT:
        return (KeepLook(wave.index, look, evidence),)
    return _conclude(wave, snapshot, verdict, evidence, look)


def _deadline(wave: WaveFacts, gates: Gates) -> datetime:
    """When nothing more is waited for."""
    return wave.entered_at + timedelta(seconds=min(gates.evidence_seconds, MAX_SECONDS))


_EVENTS = {
    Verdict.PASS: WaveEvent.PASS,
    Verdict.FAIL: WaveEvent.FAIL,
    Verdict.INCONCLUSIVE: WaveEvent.INCONCLUSIVE,
}


def _conclude(
    wave: WaveFacts,
    snapshot: Snapshot,
    verdict: Verdict,
    evidence: tuple[Evidence, ...],
    look: int | None = None,
) -> tuple[Action, ...]:
    if verdict is Verdict.WAIT:
        return ()
    return moved(wave, snapshot, _EVENTS[verdict], evidence, look)


def moved(
    wave: WaveFacts,
    snapshot: Snapshot,
    kind: WaveEvent,
    evidence: tuple[Evidence, ...] = (),
    look: int | None = None,
    *,
    gone: str = "",
) -> tuple[Action, ...]:
    """Move a wave by its verdict, and the rollout with it where it does not pass.

    Args:
        wave: which.
        snapshot: of its rollout.
        kind: PASS, FAIL or INCONCLUSIVE.
        evidence: what it rests on.
        look: that it was taken by; None: by none.
        gone: how its devices ended, where none of them can be judged by.
    """
    move = MoveWave(wave.index, kind, evidence, look, gone)
    match kind:
        case WaveEvent.FAIL:
            return (move, stopped(snapshot, PauseReason.VERDICT_FAILED))
        case WaveEvent.INCONCLUSIVE:
            # Nothing bad was shown, so nothing is taken back: a person is asked.
            return (move, MoveRollout(RolloutEvent.PAUSE, PauseReason.INCONCLUSIVE))
        case _:
            return (move,)


def stopped(snapshot: Snapshot, reason: PauseReason) -> MoveRollout:
    """What a failed wave leads to: a pause, or that what was shipped is taken back."""
    if snapshot.on_failure is OnFailure.ROLL_BACK:
        return MoveRollout(RolloutEvent.ROLL_BACK)
    return MoveRollout(RolloutEvent.PAUSE, reason)
