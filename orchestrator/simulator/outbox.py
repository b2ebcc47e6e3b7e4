"""Messages of QoS 1 that a connection has not seen acknowledged."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.simulator import codec

MAX_UNACKED = 500
"""Messages on their way; what more there is waits for their acknowledgements."""

_MAX_PID = 65_535


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message. expiry: seconds; 0 for never."""

    topic: str
    payload: bytes
    retain: bool = False
    expiry: int = 0

    def packet(self, pid: int, *, again: bool = False) -> bytes:
        """As a PUBLISH."""
        return codec.publish(
            self.topic,
            self.payload,
            pid=pid,
            retain=self.retain,
            expiry=self.expiry,
            again=again,
        )


class Outbox:
    """Keeps messages until the broker has them, over any number of connections."""

    __slots__ = ("_pid", "_unacked", "_waiting")

    def __init__(self) -> None:
        self._unacked: dict[int, Outgoing] = {}
        self._waiting: deque[Outgoing] = deque()
        self._pid = 0

    def __len__(self) -> int:
        """Messages that the broker has not acknowledged."""
        return len(self._unacked) + len(self._waiting)

    def put(self, one: Outgoing) -> int | None:
        """Take a message in; its packet id, or None when it has to wait."""
        if len(self._unacked) >= MAX_UNACKED:
            self._waiting.append(one)
            return None
        pid = self.next_pid()
        self._unacked[pid] = one
        return pid

    def acknowledged(self, pid: int) -> tuple[int, Outgoing] | None:
        """The broker has that one; the next that may go, with its id."""
        self._unacked.pop(pid, None)
        if not self._waiting or len(self._unacked) >= MAX_UNACKED:
            return None
        one = self._waiting.popleft()
        found = self.next_pid()
        self._unacked[found] = one
        return found, one

    def unacknowledged(self) -> Iterator[tuple[int, Outgoing]]:
        """What is to be sent again on a new connection, in its order."""
        yield from list(self._unacked.items())

    def next_pid(self) -> int:
        """A packet id that is free."""
        while True:
            self._pid = self._pid % _MAX_PID + 1
            if self._pid not in self._unacked:
                return self._pid
