"""The rollout engine: what to do next, from a summary of one rollout.

``decide`` is level-triggered: it looks at what is, never at what it did before. Asked
twice about the same snapshot it answers the same, and asked about the outcome of its
own answer it moves on. It knows executions by their number alone: what it answers is about
sets of them, so a hundred thousand cost as much as ten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from orchestrator.domain.execution import FAILURES, IN_FLIGHT
from orchestrator.domain.judge import Served, Verdict, judge
from orchestrator.domain.rollout import RolloutEvent, WaveEvent
from orchestrator.domain.timers import MAX_SECONDS, Timers, expired
from schemas.gates import Evidence, Gates
from schemas.rollout import ExecState, PauseReason, RolloutState, WaveState


@dataclass(frozen=True, slots=True)
class Due:
    """Executions whose timer ran out, by their state and whether their device is there."""

    state: ExecState
    online: bool


@dataclass(frozen=True, slots=True)
class WaveFacts:
    """A wave; ``entered_at`` is when it took its state.

    counts: executions in each state. The rest is looked at only while the wave runs or is
    judged. barred: not over, and their device may not take part any more. retries: FAILED, of
    which another attempt is to be made. due: their timer ran out. ready: SCHEDULED, to be
    offered now, their device being there; a round takes so many. later: SCHEDULED, waiting
    for the time of their next attempt. held: SCHEDULED, their device being there and at work for
    a rollout of another model; looked at once nothing else is left to do. served: what the
    devices inferred that serve the version.
    """

    index: int
    state: WaveState
    entered_at: datetime
    counts: Mapping[ExecState, int] = field(default_factory=dict)
    stragglers: bool = False
    barred: int = 0
    retries: int = 0
    due: Mapping[Due, int] = field(default_factory=dict)
    ready: int = 0
    later: int = 0
    held: int = 0
    served: Served = field(default_factory=Served)

    @property
    def size(self) -> int:
        """Executions in it."""
        return sum(self.counts.values())

    @property
    def failures(self) -> int:
        """Those that failed for good."""
        return sum(self.counts.get(state, 0) for state in FAILURES) - self.retries

    @property
    def in_flight(self) -> int:
        """Those that a device may be working on."""
        return sum(self.counts.get(state, 0) for state in IN_FLIGHT)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A rollout with its waves in order.

    deaf: devices may have spoken and were not heard yet, so silence says nothing.
    """

    state: RolloutState
    gates: Gates
    timers: Timers
    waves: tuple[WaveFacts, ...] = ()
    deaf: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """End the executions of devices that may not take part any more."""

    wave: int


@dataclass(frozen=True, slots=True)
class Retry:
    """Make another attempt of what failed by what may pass."""

    wave: int


@dataclass(frozen=True, slots=True)
class Extend:
    """Wait on for devices on probation whose telemetry shows that the version serves."""

    wave: int


@dataclass(frozen=True, slots=True)
class Expire:
    """Move what is due to ``becomes``: SCHEDULED takes an offer back, to be made again."""

    wave: int
    due: Due
    becomes: ExecState


@dataclass(frozen=True, slots=True)
class Offer:
    """Send the desired state to devices that are there."""

    wave: int


@dataclass(frozen=True, slots=True)
class Sift:
    """End what needs no device to be there: no variant fits, or it has the version already."""

    wave: int


@dataclass(frozen=True, slots=True)
class Straggle:
    """Move what is SCHEDULED, its device not being there, to the stragglers' wave."""

    wave: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """End what is still SCHEDULED in the stragglers' wave, its device not being there."""

    wave: int


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


SetAction = Bar | Retry | Extend | Expire | Offer | Sift | Straggle | GiveUp
Action = SetAction | MoveWave | MoveRollout


def open_wave(waves: tuple[WaveFacts, ...]) -> WaveFacts | None:
    """The first wave that has not passed: the only one that is ever worked on."""
    return next((wave for wave in waves if wave.state is not WaveState.PASSED), None)


def decide(snapshot: Snapshot, now: datetime) -> tuple[Action, ...]:
    """What to do now; nothing unless the rollout is running."""
    if snapshot.state is not RolloutState.RUNNING:
        return ()
    wave = open_wave(snapshot.waves)
    if wave is None:
        return (MoveRollout(RolloutEvent.FINISH),)
    match wave.state:
        case WaveState.PENDING:
            return (MoveWave(wave.index, WaveEvent.BEGIN), Sift(wave.index))
        case WaveState.RUNNING:
            return _run(wave, snapshot, now)
        case WaveState.SOAKING:
            return _soak(wave, snapshot.gates, now)
        case WaveState.JUDGING:
            return _judge(wave, snapshot, now)
        case _:
            # Failed or inconclusive while running: an operator resumed, so look again.
            return (MoveWave(wave.index, WaveEvent.REJUDGE),)


def because(actions: Sequence[Action]) -> str | None:
    """Why a rollout is paused by these actions, in words; None if it is not."""
    for one in actions:
        if isinstance(one, MoveWave) and one.event in _STOPS:
            figures = [e for e in one.evidence if e.ok is False]
            figures = figures or [e for e in one.evidence if e.ok is None]
            said = "; ".join(_figure(e) for e in figures) or "nobody is left to judge by"
            return f"wave {one.index + 1} {_STOPS[one.event]}: {said}"
    return None


_STOPS = {WaveEvent.FAIL: "failed", WaveEvent.INCONCLUSIVE: "is inconclusive"}


def _figure(evidence: Evidence) -> str:
    name = evidence.metric.replace("_", " ")
    limit = "at most" if evidence.metric.endswith("_rate") else "at least"
    value = "has no data" if evidence.value is None else f"{evidence.value:.4g}"
    return f"{name} {value}, {limit} {evidence.threshold:.4g} is asked for"


def cannot_pass(wave: WaveFacts, gates: Gates) -> bool:
    """Whether the wave cannot pass any more, whatever the rest of it does."""
    return wave.failures > gates.max_failure_rate * wave.size


def _run(wave: WaveFacts, snapshot: Snapshot, now: datetime) -> tuple[Action, ...]:
    if cannot_pass(wave, snapshot.gates):
        evidence = Evidence(
            metric="failure_rate",
            value=wave.failures / wave.size,
            threshold=snapshot.gates.max_failure_rate,
            n=wave.size,
            ok=False,
        )
        return (
            MoveWave(wave.index, WaveEvent.FAIL, (evidence,)),
            MoveRollout(RolloutEvent.PAUSE, PauseReason.ERROR_THRESHOLD),
        )
    return _advance(wave, deaf=snapshot.deaf) or _settle(wave, snapshot, now)


def _advance(wave: WaveFacts, *, deaf: bool) -> tuple[Action, ...]:
    """What moves single executions, by sets."""
    actions: list[Action] = []
    if wave.barred:
        actions.append(Bar(wave.index))
    if wave.retries:
        actions.append(Retry(wave.index))
    due = [] if deaf else [one for one, n in wave.due.items() if n]
    if any(one.state is ExecState.PROBATION for one in due):
        # A device judges for itself and reports the end; until then its telemetry is the sign
        # that it gets on. What this extends is not due any more when the next action comes.
        actions.append(Extend(wave.index))
    for one in sorted(due, key=lambda d: (d.state, d.online)):
        becomes = expired(one.state, online=one.online)
        if becomes is not None:
            actions.append(Expire(wave.index, one, becomes))
    if wave.ready:
        actions.append(Offer(wave.index))
    return tuple(actions)


def _settle(wave: WaveFacts, snapshot: Snapshot, now: datetime) -> tuple[Action, ...]:
    if wave.in_flight:
        return ()
    waiting = wave.counts.get(ExecState.SCHEDULED, 0)
    if not waiting:
        return (MoveWave(wave.index, WaveEvent.SETTLED),)
    if wave.later:
        return ()  # its next attempt is near, whether anybody is there or not
    if wave.stragglers:
        patience = timedelta(seconds=min(snapshot.timers.straggler, MAX_SECONDS))
        over = now - wave.entered_at > patience
        gone = waiting > wave.held
        return (GiveUp(wave.index),) if gone and over and not snapshot.deaf else ()
    if wave.held:
        return ()  # what its devices do for others has timers of its own
    if waiting == wave.size:
        return ()  # nobody was there yet: a wave without devices proves nothing
    return (Straggle(wave.index),)


def _soak(wave: WaveFacts, gates: Gates, now: datetime) -> tuple[Action, ...]:
    if now - wave.entered_at < timedelta(seconds=gates.soak_seconds):
        return ()
    return (MoveWave(wave.index, WaveEvent.SOAKED),)


_GONE = frozenset({ExecState.REMOVED, ExecState.NO_VARIANT, ExecState.SUPERSEDED})


def _judge(wave: WaveFacts, snapshot: Snapshot, now: datetime) -> tuple[Action, ...]:
    if all(state in _GONE for state, n in wave.counts.items() if n):
        # Nobody is left to judge by: harmless behind a wave that passed, no proof before.
        kind = WaveEvent.PASS if wave.stragglers else WaveEvent.INCONCLUSIVE
        return _verdict(wave.index, kind, ())
    judgement = judge(wave.counts, wave.served, snapshot.gates, wave.entered_at, now)
    match judgement.verdict:
        case Verdict.WAIT:
            return ()
        case Verdict.PASS:
            return _verdict(wave.index, WaveEvent.PASS, judgement.evidence)
        case Verdict.FAIL:
            return _verdict(wave.index, WaveEvent.FAIL, judgement.evidence)
        case Verdict.INCONCLUSIVE if snapshot.deaf:
            return ()
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
