"""How often something may happen, by key.

The generic cell rate algorithm (ITU-T I.371; a leaky bucket as a meter): one number for each
key, so that a flood of keys costs no more memory than ``max_keys`` of them. The clock is the
monotonic one: setting the machine's clock back locks nobody out.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

MAX_KEYS = 20_000
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Rate:
    """``count`` at once, and again as many in ``seconds``."""

    count: int
    seconds: float = 60.0


class Meter:
    """Counts by key. Used from one thread.

    Args:
        clock: seconds, never going back.
        max_keys: beyond these the one that was used the longest ago is forgotten.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, max_keys: int = MAX_KEYS
    ) -> None:
        self._clock = clock
        self._max = max_keys
        self._arrival: OrderedDict[tuple[str, ...], float] = OrderedDict()

    def wait(self, key: tuple[str, ...], rate: Rate) -> float:
        """Seconds until the next may come; 0 now. Counts nothing."""
        ahead = self._arrival.get(key, 0.0) - self._clock()
        wait = ahead - (rate.seconds - rate.seconds / rate.count)
        return wait if wait > _ROUNDING else 0.0

    def count(self, key: tuple[str, ...], rate: Rate) -> None:
        """One more."""
        now = self._clock()
        self._arrival[key] = max(now, self._arrival.get(key, now)) + rate.seconds / rate.count
        self._arrival.move_to_end(key)
        if len(self._arrival) > self._max:
            self._arrival.popitem(last=False)

    def take(self, key: tuple[str, ...], rate: Rate) -> bool:
        """Count one more, if it may come now."""
        if self.wait(key, rate) > 0:
            return False
        self.count(key, rate)
        return True

    def __len__(self) -> int:
        return len(self._arrival)
