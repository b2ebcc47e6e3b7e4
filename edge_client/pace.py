"""How much of a transfer may be under way at once.

The window follows the product of bandwidth and round trip (the model of BBR, Cardwell
et al., CACM 2017): twice what the path holds, and some chunks for the time that programs at both
ends take; between 4 and 64.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from schemas.transfer import MAX_WINDOW

FIRST_WINDOW = 16
MIN_WINDOW = 4

SLACK_SECONDS = 0.25
MAX_SLACK = 40
"""What may be under way for the programs' sake: so long, or so many chunks."""

_MARKS = 33


@dataclass(slots=True)
class Pace:
    """Estimates of the path: least round trip (s) and rate (chunks/s)."""

    window: int = FIRST_WINDOW
    cap: int = MAX_WINDOW
    round_trip: float | None = None
    rate: float | None = None
    marks: deque[float] = field(default_factory=lambda: deque(maxlen=_MARKS))

    def arrived(self, now: float) -> None:
        """Count a chunk that came."""
        marks = self.marks
        marks.append(now)
        spacings = len(marks) - 1
        if spacings >= 2 * MIN_WINDOW:
            self.rate = spacings / max(now - marks[0], 1e-6)
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
        slack = min(MAX_SLACK, self.rate * SLACK_SECONDS)
        wanted = MIN_WINDOW + int(2 * self.rate * self.round_trip + slack)
        if wanted > self.window:
            self.window = min(self.window + 1, MAX_WINDOW)
        elif wanted < self.window:
            self.window = max(self.window - 1, MIN_WINDOW)
        if self.window > self.cap:
            self.window = self.cap
            self.cap = min(self.cap + 1, MAX_WINDOW)
