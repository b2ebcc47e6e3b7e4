"""The rollout engine: what to do next, from a snapshot of one rollout.

``decide`` is level-triggered: it looks at what is, never at what it did before. Asked
twice about the same snapshot it answers the same, and asked about the outcome of its
own answer it moves on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from orchestrator.domain.execution import FAILURES, IN_FLIGHT
from orchestrator.domain.judge import DeviceFacts, Verdict, judge
from orchestrator.domain.rollout import RolloutEvent, WaveEvent
from schemas.rollout import (
    EXEC_TERMINAL,
    Evidence,
    ExecState,
    Gates,
    PauseReason,
    RolloutState,
    WaveState,
)


@dataclass(frozen=True, slots=True)
class ExecutionFacts:
    """One execution and its device, as the database has them now.

    updated_at: the last change of state or progress. online: the device is connected.
    usable: the device may take part (active, not revoked). installed: it already serves
    exactly what is wanted. fits: it may have some variant; why_not: where not, every
    reason. window_at: when its last telemetry of the new version came.
    """

    id: str
    device: str
    state: ExecState
    updated_at: datetime
    online: bool
    usable: bool = True
    installed: bool = False
    fits: bool = True
    why_not: str = ""
    n: int = 0
    errors: int = 0
    labelled: int = 0
    correct: int = 0
    window_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class WaveFacts:
    """A wave; ``entered_at`` is when it took its state."""

    index: int
    state: WaveState
    entered_at: datetime
    executions: tuple[ExecutionFacts, ...]
    stragglers: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A rollout with its waves in order."""

    state: RolloutState
    gates: Gates
    offer_seconds: float
    step_seconds: float
    straggler_seconds: float
    waves: tuple[WaveFacts, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Offer:
    """Send the desired state to the device."""

    execution: str


@dataclass(frozen=True, slots=True)
class End:
    """End the execution from the server's side."""

    execution: str
    state: ExecState
    detail: str


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Take an offer back from a device that vanished; it is offered again when it is there."""

    execution: str


@dataclass(frozen=True, slots=True)
class Straggle:
    """Move executions of devices that are not there to the stragglers' wave."""

    executions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MoveWave:
    """Apply an event to a wave, with the evidence for it."""

    index: int
    event: WaveEvent
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class MoveRollout:
    """Apply an event to the rollout."""

    event: RolloutEvent
    reason: PauseReason | None = None


Action = Offer | End | Withdraw | Straggle | MoveWave | MoveRollout


def decide(snapshot: Snapshot, now: datetime) -> tuple[Action, ...]:
    """What to do now; nothing unless the rollout is running.

    Only the first wave that has not passed is ever worked on.
    """
    if snapshot.state is not RolloutState.RUNNING:
        return ()
    wave = next((w for w in snapshot.waves if w.state is not WaveState.PASSED), None)
    if wave is None:
        return (MoveRollout(RolloutEvent.FINISH),)
    match wave.state:
        case WaveState.PENDING:
            return (MoveWave(wave.index, WaveEvent.BEGIN),)
        case WaveState.RUNNING:
            return _run(wave, snapshot, now)
        case WaveState.SOAKING:
            return _soak(wave, snapshot.gates, now)
        case WaveState.JUDGING:
            return _judge(wave, snapshot.gates, now)
        case _:
            # Failed or inconclusive while running: an operator resumed, so look again.
            return (MoveWave(wave.index, WaveEvent.REJUDGE),)


def _run(wave: WaveFacts, snapshot: Snapshot, now: datetime) -> tuple[Action, ...]:
    if _too_many_failures(wave, snapshot.gates):
        rate = _failures(wave) / len(wave.executions)
        evidence = Evidence(
            metric="failure_rate",
            value=rate,
            threshold=snapshot.gates.max_failure_rate,
            n=len(wave.executions),
            ok=False,
        )
        return (
            MoveWave(wave.index, WaveEvent.FAIL, (evidence,)),
            MoveRollout(RolloutEvent.PAUSE, PauseReason.ERROR_THRESHOLD),
        )
    work = [a for e in wave.executions for a in _advance(e, snapshot, now)]
    if work:
        return tuple(work)
    return _settle(wave, snapshot, now)


def _too_many_failures(wave: WaveFacts, gates: Gates) -> bool:
    """Whether the wave cannot pass any more, whatever the rest of it does."""
    return _failures(wave) > gates.max_failure_rate * len(wave.executions)


def _failures(wave: WaveFacts) -> int:
    return sum(e.state in FAILURES for e in wave.executions)


def _advance(execution: ExecutionFacts, snapshot: Snapshot, now: datetime) -> tuple[Action, ...]:
    if execution.state in EXEC_TERMINAL:
        return ()
    if not execution.usable:
        return (End(execution.id, ExecState.REMOVED, "the device may no longer take part"),)
    silent = now - _last_sign(execution)
    match execution.state:
        case ExecState.SCHEDULED:
            return _first_contact(execution)
        case ExecState.OFFERED if silent > timedelta(seconds=snapshot.offer_seconds):
            if not execution.online:
                return (Withdraw(execution.id),)
            detail = f"no answer to the offer in {snapshot.offer_seconds:g} s"
            return (End(execution.id, ExecState.TIMED_OUT, detail),)
        case ExecState.OFFERED:
            return ()
        case state if silent > timedelta(seconds=snapshot.step_seconds):
            detail = f"no progress in {state} for {snapshot.step_seconds:g} s"
            return (End(execution.id, ExecState.TIMED_OUT, detail),)
        case _:
            return ()


def _last_sign(execution: ExecutionFacts) -> datetime:
    """When the device last showed that it gets on.

    On probation it judges for itself and reports the end; until then its telemetry shows
    that the new version serves.
    """
    if execution.state is ExecState.PROBATION and execution.window_at is not None:
        return max(execution.updated_at, execution.window_at)
    return execution.updated_at


def _first_contact(execution: ExecutionFacts) -> tuple[Action, ...]:
    if not execution.fits:
        detail = execution.why_not or "no variant fits"
        return (End(execution.id, ExecState.NO_VARIANT, detail),)
    if execution.installed:
        return (End(execution.id, ExecState.ALREADY_INSTALLED, "it already serves this version"),)
    return (Offer(execution.id),) if execution.online else ()


def _settle(wave: WaveFacts, snapshot: Snapshot, now: datetime) -> tuple[Action, ...]:
    counts = Counter(e.state for e in wave.executions)
    if any(counts[state] for state in IN_FLIGHT):
        return ()
    waiting = tuple(e.id for e in wave.executions if e.state is ExecState.SCHEDULED)
    if not waiting:
        return (MoveWave(wave.index, WaveEvent.SETTLED),)
    if wave.stragglers:
        if now - wave.entered_at <= timedelta(seconds=snapshot.straggler_seconds):
            return ()
        detail = f"not seen in {snapshot.straggler_seconds:g} s"
        return tuple(End(e, ExecState.REMOVED, detail) for e in waiting)
    if len(waiting) == len(wave.executions):
        return ()  # nobody was there yet: a wave without devices proves nothing
    return (Straggle(waiting),)


def _soak(wave: WaveFacts, gates: Gates, now: datetime) -> tuple[Action, ...]:
    if now - wave.entered_at < timedelta(seconds=gates.soak_seconds):
        return ()
    return (MoveWave(wave.index, WaveEvent.SOAKED),)


def _judge(wave: WaveFacts, gates: Gates, now: datetime) -> tuple[Action, ...]:
    gone = {ExecState.REMOVED, ExecState.NO_VARIANT, ExecState.SUPERSEDED}
    if all(e.state in gone for e in wave.executions):
        # Nobody is left to judge by: harmless behind a wave that passed, no proof before.
        kind = WaveEvent.PASS if wave.stragglers else WaveEvent.INCONCLUSIVE
        return _verdict(wave.index, kind, ())
    judgement = judge(_facts(wave), gates, wave.entered_at, now)
    match judgement.verdict:
        case Verdict.WAIT:
            return ()
        case Verdict.PASS:
            return _verdict(wave.index, WaveEvent.PASS, judgement.evidence)
        case Verdict.FAIL:
            return _verdict(wave.index, WaveEvent.FAIL, judgement.evidence)
        case Verdict.INCONCLUSIVE:
            return _verdict(wave.index, WaveEvent.INCONCLUSIVE, judgement.evidence)


_PAUSES = {
    WaveEvent.FAIL: PauseReason.VERDICT_FAILED,
    WaveEvent.INCONCLUSIVE: PauseReason.INCONCLUSIVE,
}


def _verdict(index: int, kind: WaveEvent, evidence: tuple[Evidence, ...]) -> tuple[Action, ...]:
    move = MoveWave(index, kind, evidence)
    if kind in _PAUSES:
        return (move, MoveRollout(RolloutEvent.PAUSE, _PAUSES[kind]))
    return (move,)


def _facts(wave: WaveFacts) -> Mapping[str, DeviceFacts]:
    return {
        e.device: DeviceFacts(e.state, e.n, e.errors, e.labelled, e.correct)
        for e in wave.executions
    }
