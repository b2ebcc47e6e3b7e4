"""Rounds in which a file is sent once to all: one thread asks for them, another sends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from orchestrator.domain.broadcast import Announcement, Broadcasts, Slot
from schemas.transfer import BroadcastOffer, Reply

Tell = Callable[[str, Reply], object]
"""Takes an answer that was not asked for to a device."""


class BroadcastDesk:
    """``services.ports.Broadcasting``, and what its sender needs. For any thread.

    Args:
        broadcasts: decides.
        clock: seconds, never going back; the sender's too.
    """

    def __init__(self, broadcasts: Broadcasts, clock: Callable[[], float] = time.monotonic) -> None:
        self._broadcasts = broadcasts
        self._tell: Tell = lambda _device, _reply: None
        self._clock = clock
        self._lock = threading.Lock()

    def announce_by(self, tell: Tell) -> None:
        """Have rounds announced to devices that pull the file already."""
        self._tell = tell

    def asked(self, device: str, sha256: str, size: int) -> BroadcastOffer | None:
        """A device that takes broadcasts asks for a file."""
        with self._lock:
            offer, others = self._broadcasts.asked(device, sha256, size, self._clock())
        if others is not None:
            self._announce(others)
        return offer

    def left(self, device: str) -> None:
        """A device is gone."""
        with self._lock:
            self._broadcasts.left(device)

    def next(self, now: float) -> Slot | None:
        """Take the chunk that is due, if one is; a round that ends may begin another."""
        with self._lock:
            slot, told = self._broadcasts.next(now)
        for one in told:
            self._announce(one)
        return slot

    def wait(self, now: float) -> float | None:
        """Seconds until a chunk is due; None when there is no round."""
        with self._lock:
            return self._broadcasts.wait(now)

    def end(self, sha256: str) -> None:
        """A file is not served any more."""
        with self._lock:
            self._broadcasts.end(sha256)

    def clear(self) -> None:
        """The connection was lost."""
        with self._lock:
            self._broadcasts.clear()

    def limit(self, total_rate: float | None) -> None:
        """Send at most so many bytes a second to all together; None for the rules' own."""
        with self._lock:
            self._broadcasts.limit(total_rate)

    def _announce(self, round_: Announcement) -> None:
        reply = Reply(kind="broadcast", sha256=round_.sha256, broadcast=round_.offer)
        for device in round_.devices:
            self._tell(device, reply)
