"""How much of a transfer may be under way at once.

The window follows the product of bandwidth and round trip (the model of BBR, Cardwell
et al., CACM 2017): twice what the path holds, between 4 and 64 chunks.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise

from schemas.transfer import MAX_WINDOW

FIRST_WINDOW = 16
MIN_WINDOW = 4


@dataclass(slots=True)
class Pace:
    """Estimates of the path: least round trip (s) and rate (chunks/s)."""

    window: int = FIRST_WINDOW
    cap: int = MAX_WINDOW
    round_trip: float | None = None
    rate: float | None = None
    marks: deque[float] = field(default_factory=lambda: deque(maxlen=33))

    def arrived(self, now: float) -> None:
        """Count a chunk that came."""
        self.marks.append(now)
        spacings = [b - a for a, b in pairwise(self.marks)]
        if len(spacings) >= 2 * MIN_WINDOW:
            self.rate = len(spacings) / max(sum(spacings), 1e-6)
            self._fit()

    def answered(self, seconds: float) -> None:
        """Count the time from a request to its first chunk."""
        self.round_trip = min(seconds, self.round_trip or seconds)

    def stalled(self) -> None:
        """Halve the window: nothing came for too long."""
        self.cap = self.window = max(MIN_WINDOW, self.window // 2)
        self.marks.clear()

    def _fit(self) -> None:
        if self.rate is None or self.round_trip is None:
            return
        wanted = 2 * MIN_WINDOW + int(2 * self.rate * self.round_trip)
        if wanted > self.window:
            self.window = min(self.window + 1, MAX_WINDOW)
        elif wanted < self.window:
            self.window = max(self.window - 1, MIN_WINDOW)
        if self.window > self.cap:
            self.window = self.cap
            self.cap = min(self.cap + 1, MAX_WINDOW)
