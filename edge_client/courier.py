"""Sending what waits on the disk, and forgetting it once the broker has it for good.

A broker says that it has a message when it has it in memory. One that is killed loses what it
had not written yet (mosquitto writes every ``autosave_interval``, 5 s with us), and its clients
their connection. So what was acknowledged is kept for a while longer, and sent once more when the
connection ends meanwhile; the server knows repeats by their numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from edge_client.transport import Acknowledged, Ticket

HOLD_SECONDS = 30.0
"""After a publication was refused (an ACL, a quota) nothing is sent for this long."""

UNHEARD_SECONDS = 2.0
"""The same after the broker had nobody to give it to: the server has yet to come back to it."""

SETTLE_SECONDS = 10.0
"""From the acknowledgement of a message until it is forgotten."""


class Courier:
    """Keeps at most ``most`` messages on their way, oldest first, in order."""

    def __init__(
        self,
        *,
        waiting: Callable[[int], Iterable[tuple[int, str]]],
        arrived: Callable[[int], None],
        publish: Callable[[str], Ticket | None],
        most: int,
    ) -> None:
        """Put together.

        Args:
            waiting: the oldest messages on the disk, at most that many: (id, body).
            arrived: forgets one by its id.
            publish: sends one; None when there is no connection.
            most: how many may be unacknowledged.
        """
        self._waiting, self._arrived, self._publish, self._most = waiting, arrived, publish, most
        self._sent: dict[Ticket, int] = {}
        self._settling: dict[int, float] = {}
        self._hold_until = 0.0

    def pump(self, now: float) -> None:
        """Send what may be sent, and forget what the broker has for good."""
        self._settle(now)
        if now < self._hold_until or len(self._sent) >= self._most:
            return
        under_way = {*self._sent.values(), *self._settling}
        for message_id, body in self._waiting(self._most + len(self._settling)):
            if message_id in under_way:
                continue
            ticket = self._publish(body)
            if ticket is None or len(self._sent) >= self._most:
                return
            self._sent[ticket] = message_id

    def acknowledged(self, event: Acknowledged, now: float) -> bool:
        """Take an acknowledgement; False when it is for another courier."""
        message_id = self._sent.pop(event.ticket, None)
        if message_id is None:
            return False
        if event.ok:
            self._settling[message_id] = now
        else:
            self._hold_until = now + (HOLD_SECONDS if event.heard else UNHEARD_SECONDS)
        return True

    def disconnected(self) -> None:
        """Whatever is not settled is sent again on the next connection."""
        self._sent.clear()
        self._settling.clear()

    @property
    def settling(self) -> int:
        """How many were acknowledged, and are kept for a while longer."""
        return len(self._settling)

    @property
    def idle(self) -> bool:
        """Whether everything was acknowledged."""
        waiting = self._waiting(len(self._settling) + 1)
        return not self._sent and all(one in self._settling for one, _ in waiting)

    def _settle(self, now: float) -> None:
        for message_id, since in list(self._settling.items()):
            if now - since >= SETTLE_SECONDS:
                self._arrived(message_id)
                del self._settling[message_id]
