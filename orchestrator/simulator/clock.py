"""What a simulated device takes for the time: the server's, or a wrong one of its own."""

from __future__ import annotations

import time

from schemas.clock import TimeAsk, TimeReply


class Clock:
    """A device's clock.

    Args:
        wrong_hours: how far it is off, for good; None where it learns the server's time.
    """

    __slots__ = ("_asked_at", "_offset", "_wrong")

    def __init__(self, wrong_hours: float | None) -> None:
        self._wrong = wrong_hours
        self._offset: float | None = None
        self._asked_at = 0.0

    @property
    def asks(self) -> bool:
        """Whether it asks the server for the time."""
        return self._wrong is None

    @property
    def synced(self) -> bool:
        """Whether it has learned the server's time."""
        return self._offset is not None

    def wall(self) -> float:
        """Seconds since 1970, as it believes."""
        off = self._offset or 0.0 if self._wrong is None else self._wrong * 3600
        return max(1.0, time.time() + off)

    def ask(self) -> bytes:
        """A question for the time, which is sent now."""
        self._asked_at = time.time()
        return TimeAsk(id=1).model_dump_json().encode()

    def heard(self, reply: TimeReply) -> None:
        """The answer: it holds for the middle between asking and hearing."""
        if self._wrong is None:
            self._offset = reply.at - (self._asked_at + time.time()) / 2
