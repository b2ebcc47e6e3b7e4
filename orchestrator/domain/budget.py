"""A token bucket in bytes: how much may be sent at once, and when more may follow.

No clock: ``now`` is seconds of any steady clock. What is sent may take the bucket into debt,
by one sending at most, and the debt is waited for: over a long time the rate is exact whatever
the sizes are.
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.transfer import CHUNK_BYTES

_BURST_SECONDS = 0.1


@dataclass(slots=True)
class Budget:
    """What may be sent by ``rate`` bytes a second; None is without limit."""

    rate: float | None = None
    level: float = 0.0
    at: float | None = None

    def wait(self, now: float) -> float:
        """Seconds until something may be sent; 0 now."""
        if self.rate is None:
            return 0.0
        self._fill(now)
        return max(0.0, -self.level / self.rate)

    def spend(self, size: float, now: float) -> None:
        """Account for what is sent now.

        Args:
            size: in bytes.
            now: seconds.
        """
        if self.rate is not None:
            self._fill(now)
            self.level -= size

    def change(self, rate: float | None, now: float) -> None:
        """Go on at another rate; what was saved or owed stays."""
        if rate != self.rate:
            if self.rate is not None:
                self._fill(now)
            self.rate, self.at = rate, now

    def _fill(self, now: float) -> None:
        rate = self.rate or 0.0
        if self.at is not None and now > self.at:
            self.level = min(self.level + (now - self.at) * rate, burst(rate))
        self.at = now


def burst(rate: float) -> float:
    """The most bytes that may be saved up at a rate."""
    return max(float(CHUNK_BYTES), rate * _BURST_SECONDS)
