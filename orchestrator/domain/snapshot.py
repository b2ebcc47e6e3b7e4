"""What the rollout engine looks at: a rollout in sums.

It knows executions by their number alone, so a hundred thousand cost as much as ten.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.domain.execution import IN_FLIGHT
from orchestrator.domain.judge import Ends, Served, ends
from orchestrator.domain.timers import Timers
from schemas.errors import DeviceCause
from schemas.gates import Evidence, Gates
from schemas.rollout import ExecState, OnFailure, RolloutState, WaveState


@dataclass(frozen=True, slots=True)
class Due:
    """Executions whose timer ran out, by their state and whether their device is there."""

    state: ExecState
    online: bool


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look at the telemetry of a wave has shown. last: it was the last one."""

    look: int
    last: bool
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class WaveFacts:
    """A wave; ``entered_at`` is when it took its state.

    counts: executions in each state. The rest is looked at only while the wave runs or is
    judged. barred: not over, and their device may not take part any more. retries: FAILED, of
    which another attempt is to be made. due: their timer ran out. ready: SCHEDULED, to be
    offered now, their device being there; a round takes so many. paced: more might be but for the
    pace. ahead: offers of a time to come, as the clock was set back. closed: no window is open in
    which an offer may be made. proceed: they wait, and were activated. joiners: of devices that
    matched later. later: SCHEDULED, waiting for the time of their next attempt. held: SCHEDULED,
    their device being there and at work for a rollout of
    another model; looked at once nothing else is left to do. late: of those that succeeded, what
    they came to later. causes: of failures. served: what the devices inferred that serve the
    version. looks, looked_at: how often telemetry was judged, and when last; looked: by the look
    that is being taken. ungated: it passes without soak and gates.
    """

    index: int
    state: WaveState
    entered_at: datetime
    counts: Mapping[ExecState, int] = field(default_factory=dict)
    stragglers: bool = False
    joiners: bool = False
    ungated: bool = False
    barred: int = 0
    retries: int = 0
    due: Mapping[Due, int] = field(default_factory=dict)
    ready: int = 0
    paced: bool = False
    ahead: int = 0
    closed: bool = False
    proceed: int = 0
    later: int = 0
    held: int = 0
    late: Mapping[ExecState, int] = field(default_factory=dict)
    causes: Mapping[DeviceCause, int] = field(default_factory=dict)
    served: Served = field(default_factory=Served)
    looks: int = 0
    looked_at: datetime | None = None
    looked: Looked | None = None

    @property
    def ends(self) -> Ends:
        """How its executions stand; what is tried again has not failed."""
        counts = dict(self.counts)
        if self.retries:
            counts[ExecState.FAILED] = counts.get(ExecState.FAILED, 0) - self.retries
            counts[ExecState.SCHEDULED] = counts.get(ExecState.SCHEDULED, 0) + self.retries
        return ends(counts, self.late, self.causes)

    @property
    def size(self) -> int:
        """Executions in it."""
        return sum(self.counts.values())

    @property
    def in_flight(self) -> int:
        """Those that a device may be working on."""
        return sum(self.counts.get(state, 0) for state in IN_FLIGHT)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A rollout with its waves in order.

    deaf: devices may have spoken and were not heard yet, so silence says nothing. dynamic: it
    does not end by itself, for more devices may join. on_failure: what a failed wave leads to.
    unreadable: what of its plan cannot be read, so that nothing else of it is known.
    """

    state: RolloutState
    gates: Gates
    timers: Timers
    waves: tuple[WaveFacts, ...] = ()
    deaf: bool = False
    dynamic: bool = False
    on_failure: OnFailure = OnFailure.PAUSE
    unreadable: tuple[str, ...] = ()


def open_wave(waves: tuple[WaveFacts, ...]) -> WaveFacts | None:
    """The first wave that has not passed: the only one that is ever worked on.

    The stragglers' comes after all others: devices that join late do not wait for the absent.
    """
    left = [wave for wave in waves if wave.state is not WaveState.PASSED]
    return min(left, key=lambda wave: (wave.stragglers, wave.index), default=None)
