"""What a run of the simulator has seen: counted as it happens, told as a line and as JSON."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from schemas.rollout import ExecState


@dataclass(slots=True)
class Burst:
    """Things that happen to many devices: how many, and when the first and the last.

    by_second: how many in each second since 1970.
    """

    count: int = 0
    first: float = 0.0
    last: float = 0.0
    by_second: Counter[int] = field(default_factory=Counter)

    def add(self, at: float) -> None:
        """Count one."""
        self.first = self.first or at
        self.last = at
        self.count += 1
        self.by_second[int(at)] += 1

    def view(self) -> dict[str, Any]:
        """As JSON. per_second: over the time from the first to the last; peak: the best second."""
        seconds = self.last - self.first
        return {
            "count": self.count,
            "first": round(self.first, 3),
            "last": round(self.last, 3),
            "seconds": round(seconds, 3),
            "per_second": round(self.count / seconds, 1) if seconds > 0 else None,
            "peak": max(self.by_second.values(), default=0),
        }


class Figures:
    """Counts of one run."""

    def __init__(self) -> None:
        self.offers: dict[str, Burst] = {}
        self.stops: dict[str, Burst] = {}
        self.stopped_at: dict[str, float] = {}
        self.states: dict[int, ExecState] = {}
        self.reports = self.reports_lost = self.windows = self.malformed = 0
        self.lost_connections = self.refused = 0

    def offered(self, rollout: str) -> None:
        """A device was offered something new by a rollout."""
        self.offers.setdefault(rollout, Burst()).add(time.time())

    def told(self, rollout: str) -> None:
        """A device was told to give up what a rollout gave it."""
        self.stops.setdefault(rollout, Burst()).add(time.time())

    def stopped(self, rollout: str, at: float) -> None:
        """A rollout was stopped, at that time by the platform's clock."""
        self.stopped_at.setdefault(rollout, at)

    def moved(self, number: int, state: ExecState) -> None:
        """A device's newest execution is in that state."""
        self.states[number] = state

    def lost(self, *, refused: bool) -> None:
        """A connection ended."""
        self.lost_connections += 1
        self.refused += refused

    def by_state(self) -> dict[str, int]:
        """How many devices are in which state."""
        counted = Counter(self.states.values())
        return {state.value: counted[state] for state in ExecState if counted[state]}

    def view(self, *, devices: int, online: int, seconds: float) -> dict[str, Any]:
        """The summary, as JSON."""
        stops = {}
        for rollout, burst in self.stops.items():
            stopped = self.stopped_at.get(rollout)
            after = None if stopped is None else round(burst.last - stopped, 3)
            stops[rollout] = {**burst.view(), "seconds_after_stop": after}
        return {
            "devices": devices,
            "online": online,
            "seconds": round(seconds, 1),
            "offers": {rollout: burst.view() for rollout, burst in self.offers.items()},
            "stops": stops,
            "states": self.by_state(),
            "reports": self.reports,
            "reports_lost": self.reports_lost,
            "windows": self.windows,
            "malformed": self.malformed,
            "lost_connections": self.lost_connections,
            "refused": self.refused,
        }
