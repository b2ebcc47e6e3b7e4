"""Sending what waits on the disk, and forgetting it once the broker has it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from edge_client.transport import Acknowledged, Ticket

HOLD_SECONDS = 30.0
"""After a publication was refused (an ACL, a quota) nothing is sent for this long."""


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
        self._hold_until = 0.0

    def pump(self, now: float) -> None:
        """Send what may be sent."""
        if now < self._hold_until or len(self._sent) >= self._most:
            return
        under_way = set(self._sent.values())
        for message_id, body in self._waiting(self._most):
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
            self._arrived(message_id)
        else:
            self._hold_until = now + HOLD_SECONDS
        return True

    def disconnected(self) -> None:
        """Whatever was not acknowledged is sent again on the next connection."""
        self._sent.clear()

    @property
    def idle(self) -> bool:
        """Whether everything has arrived."""
        return not self._sent and not list(self._waiting(1))
