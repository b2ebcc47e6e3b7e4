"""Who is sent to next: devices take turns, each with a few chunks of what it asked for first.

Round robin over devices, and a bounded queue for each (deficit round robin, Shreedhar and
Varghese, SIGCOMM 1995, with portions of one size): who asks for much waits for itself, and
delays any other by one portion a turn.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from schemas.transfer import MAX_WINDOW

MAX_OF_DEVICE = 2 * MAX_WINDOW
"""Chunks of one device that wait. It may have ``MAX_WINDOW`` outstanding; what is beyond twice
that was given up by itself, and the oldest goes."""

MAX_DEVICES = 20_000
"""Devices that wait. Who finds no place asks again after its timer."""


@dataclass(frozen=True, slots=True)
class Portion:
    """Consecutive chunks for a device: from ``start`` up to, not with, ``end``."""

    device: str
    sha256: str
    batch: int
    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start


class Turns:
    """What waits to be sent. Used from one thread.

    Args:
        max_of_device: chunks of one device that wait at most.
        max_devices: devices that wait at most.
    """

    def __init__(self, max_of_device: int = MAX_OF_DEVICE, max_devices: int = MAX_DEVICES) -> None:
        self._max_of_device = max_of_device
        self._max_devices = max_devices
        self._queues: OrderedDict[str, deque[Portion]] = OrderedDict()
        self._waiting: dict[str, int] = {}
        self.chunks = 0
        """Chunks that wait, of all devices."""

    @property
    def devices(self) -> int:
        """Devices that wait."""
        return len(self._queues)

    def waiting(self) -> Iterable[str]:
        """The devices that wait, in the order of their turns."""
        return self._queues.keys()

    def add(self, device: str, sha256: str, batch: int, ranges: Sequence[tuple[int, int]]) -> int:
        """Queue what a device asks for; answers how many chunks were dropped for it.

        What it asks for again while it waits is sent once: its timer may run out before its turn
        comes, and where many wait for long, repeats would take most of what there is to send.
        """
        queue = self._queues.get(device)
        if queue is None:
            if len(self._queues) >= self._max_devices:
                return sum(end - start for start, end in ranges)
            queue = self._queues[device] = deque()
            self._waiting[device] = 0
        elif queue:
            self._withdraw(device, queue, sha256, ranges)
        for start, end in ranges:
            queue.append(Portion(device, sha256, batch, start, end))
            self._count(device, end - start)
        return self._shorten(device, queue)

    def _withdraw(
        self, device: str, queue: deque[Portion], sha256: str, ranges: Sequence[tuple[int, int]]
    ) -> None:
        again = {index for start, end in ranges for index in range(start, end)}
        for portion in [queue.popleft() for _ in range(len(queue))]:
            span = range(portion.start, portion.end)
            if portion.sha256 != sha256 or again.isdisjoint(span):
                queue.append(portion)
                continue
            left = [index for index in span if index not in again]
            self._count(device, len(left) - len(portion))
            for start in [i for i in left if i - 1 not in left]:
                end = next(i for i in range(start + 1, portion.end + 1) if i not in left)
                queue.append(Portion(device, sha256, portion.batch, start, end))

    def next(self, most: int) -> Portion | None:
        """Take what is to be sent next: at most so many chunks; None when nothing waits."""
        if not self._queues:
            return None
        device, queue = next(iter(self._queues.items()))
        first = queue.popleft()
        if len(first) > most:
            cut = first.start + most
            queue.appendleft(Portion(device, first.sha256, first.batch, cut, first.end))
            first = Portion(device, first.sha256, first.batch, first.start, cut)
        self._count(device, -len(first))
        if queue:
            self._queues.move_to_end(device)
        else:
            self._forget(device)
        return first

    def drop(self, device: str) -> int:
        """Forget what a device waits for; answers how many chunks that were."""
        waiting = self._waiting.get(device, 0)
        if device in self._queues:
            self._count(device, -waiting)
            self._forget(device)
        return waiting

    def clear(self) -> None:
        """Forget everything."""
        self._queues.clear()
        self._waiting.clear()
        self.chunks = 0

    def _shorten(self, device: str, queue: deque[Portion]) -> int:
        dropped = 0
        while self._waiting[device] > self._max_of_device and len(queue) > 1:
            oldest = len(queue.popleft())
            self._count(device, -oldest)
            dropped += oldest
        return dropped

    def _count(self, device: str, chunks: int) -> None:
        self._waiting[device] += chunks
        self.chunks += chunks

    def _forget(self, device: str) -> None:
        del self._queues[device]
        del self._waiting[device]
