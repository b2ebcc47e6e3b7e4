"""Whether devices are heard, so that their silence says something."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

from orchestrator.services.ports import Clock

_JUMP_SECONDS = 5.0
"""The two clocks of a machine differ by less between two looks, unless one of them was set."""


def _always() -> bool:
    return True


class Hearing:
    """Knows since when devices are heard without a break. Used from one thread.

    What devices said while the server was down, or the broker away, comes once both are back,
    and their timers ran on meanwhile; a clock that was set lets them run out as well. So for a
    while after each of these, silence is not held against anybody.

    Args:
        clock: the date.
        connected: whether the broker passes on what devices say.
        grace: seconds, in which every device that is there has spoken.
        monotonic: seconds that pass, whatever the date.
    """

    def __init__(
        self,
        clock: Clock,
        connected: Callable[[], bool] = _always,
        grace: float = 0.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock, self._connected, self._monotonic = clock, connected, monotonic
        self._grace = grace
        self._last: tuple[datetime, float] | None = None
        self._from = 0.0

    def deaf(self) -> bool:
        """Whether devices may have spoken and were not heard yet."""
        date, now = self._clock(), self._monotonic()
        connected = self._connected()
        if not connected or self._last is None or _jumped(self._last, (date, now)):
            self._from = now + self._grace
        self._last = date, now
        return not connected or now < self._from


def _jumped(before: tuple[datetime, float], now: tuple[datetime, float]) -> bool:
    by_date = (now[0] - before[0]).total_seconds()
    return abs(by_date - (now[1] - before[1])) > _JUMP_SECONDS
