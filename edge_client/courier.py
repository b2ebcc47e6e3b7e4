"""Sending what waits on the disk, and forgetting it once the broker has it for good.

A broker says that it has a message when it has it in memory. One that is killed loses what it
had not written yet (mosquitto writes every ``autosave_interval``, 5 s with us), and its clients
their connection. So what was acknowledged is kept for a while longer, and sent once more when the
connection ends meanwhile; the server knows repeats by their numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from edge_client.transport import Acknowledged, Ticket

HOLD_SECONDS = 30.0
"""After a publication was refused (an ACL, a quota) nothing is sent for this long."""

UNHEARD_SECONDS = 2.0
"""The same after the broker had nobody to give it to: the server has yet to come back to it."""

SETTLE_SECONDS = 10.0
"""From the acknowledgement of a message until it is forgotten."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """One publication. ids: of what is in it, on the disk."""

    ids: tuple[int, ...]
    body: str | bytes


@dataclass(slots=True)
class Bucket:
    """So many a second, and ``most`` at once (a token bucket). now: seconds of a steady clock."""

    rate: float
    most: float
    _level: float = -1.0
    _at: float = 0.0

    def allows(self, now: float) -> bool:
        """Whether one may go now."""
        if self._level < 0:
            self._level = self.most
        else:
            self._level = min(self.most, self._level + self.rate * max(0.0, now - self._at))
        self._at = now
        return self._level >= 1

    def take(self) -> None:
        """One went."""
        self._level -= 1


class Courier:
    """Keeps at most ``most`` messages on their way, oldest first, in order."""

    def __init__(
        self,
        *,
        waiting: Callable[[Collection[int], int], Iterable[Parcel]],
        arrived: Callable[[Collection[int]], None],
        publish: Callable[[str | bytes], Ticket | None],
        most: int,
        pace: Bucket | None = None,
    ) -> None:
        """Put together.

        Args:
            waiting: the oldest parcels on the disk of what is not among these ids, at most so many.
            arrived: forgets by ids.
            publish: sends one; None when there is no connection.
            most: how many may be unacknowledged.
            pace: how many may be sent.
        """
        self._waiting, self._arrived, self._publish, self._most = waiting, arrived, publish, most
        self._pace = pace
        self._sent: dict[Ticket, tuple[int, ...]] = {}
        self._settling: dict[tuple[int, ...], float] = {}
        self._hold_until = 0.0

    def pump(self, now: float) -> None:
        """Send what may be sent, and forget what the broker has for good."""
        self._settle(now)
        free = self._most - len(self._sent)
        if now < self._hold_until or free <= 0 or not self._allowed(now):
            return
        for parcel in self._waiting(self._under_way(), free):
            if not self._allowed(now):
                return
            ticket = self._publish(parcel.body)
            if ticket is None:
                return
            self._sent[ticket] = parcel.ids
            if self._pace is not None:
                self._pace.take()

    def acknowledged(self, event: Acknowledged, now: float) -> bool:
        """Take an acknowledgement; False when it is for another courier."""
        ids = self._sent.pop(event.ticket, None)
        if ids is None:
            return False
        if event.ok:
            self._settling[ids] = now
        else:
            self._hold_until = now + (HOLD_SECONDS if event.heard else UNHEARD_SECONDS)
        return True

    def disconnected(self) -> None:
        """Whatever is not settled is sent again on the next connection."""
        self._sent.clear()
        self._settling.clear()

    @property
    def settling(self) -> int:
        """How many things were acknowledged, and are kept for a while longer."""
        return sum(len(ids) for ids in self._settling)

    @property
    def idle(self) -> bool:
        """Whether everything was acknowledged."""
        return not self._sent and not list(self._waiting(self._under_way(), 1))

    def _allowed(self, now: float) -> bool:
        return self._pace is None or self._pace.allows(now)

    def _under_way(self) -> set[int]:
        groups = (*self._sent.values(), *self._settling)
        return {one for ids in groups for one in ids}

    def _settle(self, now: float) -> None:
        over = [ids for ids, since in self._settling.items() if now - since >= SETTLE_SECONDS]
        if over:
            self._arrived([one for ids in over for one in ids])
            for ids in over:
                del self._settling[ids]


def singly(
    waiting: Callable[[int], Iterable[tuple[int, str]]],
) -> Callable[[Collection[int], int], list[Parcel]]:
    """Parcels of one thing each. waiting: the oldest things on the disk, at most so many."""

    def parcels(under_way: Collection[int], limit: int) -> list[Parcel]:
        found = waiting(limit + len(under_way))
        return [Parcel((one,), body) for one, body in found if one not in under_way][:limit]

    return parcels
