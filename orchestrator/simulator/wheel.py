"""Timers for ten thousand devices: what is due in the same slot of time is kept in one list.

A hashed timing wheel (Varghese and Lauck, SOSP 1987) whose slots are a dictionary: setting a timer
costs one append, and the event loop sees one timer, not ten thousand. Timers are not cancelled:
who sets one looks, when it fires, whether it is still meant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

SLOT_SECONDS = 0.02

Timer = tuple[Callable[..., None], tuple[Any, ...]]


class Wheel:
    """Timers in slots of ``SLOT_SECONDS``.

    Args:
        now: steady seconds at the start.
    """

    def __init__(self, now: float) -> None:
        self._start = now
        self._slots: dict[int, list[Timer]] = {}
        self._next = 1

    def __len__(self) -> int:
        """How many timers are set."""
        return sum(map(len, self._slots.values()))

    def after(self, seconds: float, now: float, act: Callable[..., None], *args: Any) -> None:
        """Have ``act(*args)`` called after so many seconds, never earlier."""
        slot = int((now + max(seconds, 0.0) - self._start) / SLOT_SECONDS) + 1
        self._slots.setdefault(max(slot, self._next), []).append((act, args))

    def due(self, now: float) -> list[Timer]:
        """Take out what is due, in the order of its slots."""
        last = int((now - self._start) / SLOT_SECONDS)
        found: list[Timer] = []
        if last - self._next > len(self._slots):
            # After a stall the slots that exist are fewer than those that passed.
            for slot in sorted(slot for slot in self._slots if slot <= last):
                found += self._slots.pop(slot)
        else:
            for slot in range(self._next, last + 1):
                found += self._slots.pop(slot, ())
        self._next = max(self._next, last + 1)
        return found
