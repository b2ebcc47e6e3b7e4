"""Where chunks arrive: checked and written in the thread that brings them, then told of.

So their bytes are handed from thread to thread nowhere, and few are in memory, however fast they
come. The deciding thread learns what came, and decides what to ask for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from edge_client.partial import Partial, Placed
from edge_client.transfer import Came
from schemas.transfer import CHUNK_BYTES, chunk_of, tag_of

MOST_UNTOLD = 4096
"""Chunks of which the deciding thread has not heard; beyond it more are dropped unread."""

NUDGE_SECONDS = 0.02
"""On a slow link each chunk is told at once; on a fast one so often, or when there is to ask."""


class Sink:
    """Takes the chunks of one file, from any thread."""

    def __init__(
        self, partial: Partial, *, clock: Callable[[], float], nudge: Callable[[], None]
    ) -> None:
        """Put together.

        Args:
            partial: the file.
            clock: steady seconds.
            nudge: called when there is something to be told, from the thread that brought it:
                after as many chunks as are expected, after some time, with what is damaged,
                and at the end.
        """
        self.error: OSError | None = None
        self._every = 1
        self._told_at = 0.0
        self._partial, self._clock, self._nudge = partial, clock, nudge
        self._untold: deque[Came] = deque()
        self._nudged = False

    def take(
        self, index: int, data: bytes | memoryview, batch: int | None, *, fetched: bool = True
    ) -> bool:
        """Take a chunk.

        Args:
            index: which.
            data: its bytes.
            batch: of the request that it answers; None for none.
            fetched: whether it came over the network.

        Returns:
            Whether it is there now.
        """
        partial = self._partial
        if not 0 <= index < len(partial.leaves) or len(self._untold) >= MOST_UNTOLD:
            return False
        try:
            placed = partial.place(index, data)
        except OSError as error:
            self.error = error
            self._tell()
            return False
        if placed is Placed.GONE:
            return False
        sound, now = placed is not Placed.CORRUPT, self._clock()
        size = len(data) if fetched else 0
        self._untold.append(Came(index, size, sound, now, batch))
        enough = len(self._untold) >= self._every or now - self._told_at >= NUDGE_SECONDS
        if enough or not sound or not partial.missing:
            self._tell()
        return sound

    def expect(self, every: int) -> None:
        """Tell after so many chunks, at once if they are there already: no other may come."""
        self._every = every
        if len(self._untold) >= every:
            self._tell()

    def told(self) -> list[Came]:
        """What came since the last time."""
        self._nudged, self._told_at = False, self._clock()
        came = []
        while self._untold:
            came.append(self._untold.popleft())
        return came

    def _tell(self) -> None:
        if not self._nudged:
            self._nudged = True
            self._nudge()


class Inlet:
    """Leads what the network brings to the file that waits for it."""

    def __init__(self) -> None:
        self._sinks: dict[bytes, Sink] = {}

    def open(self, sha256: str, sink: Sink) -> None:
        """Let the chunks of a file go to ``sink``."""
        self._sinks = {**self._sinks, tag_of(sha256): sink}

    def close(self, sha256: str) -> None:
        """Drop the chunks of a file from now on."""
        tag = tag_of(sha256)
        self._sinks = {one: sink for one, sink in self._sinks.items() if one != tag}

    def take(self, payload: bytes | memoryview, *, broadcast: bool = False) -> None:
        """Take a message with a chunk; one that is malformed or nobody waits for is dropped.

        broadcast: it answers no request of this device.
        """
        chunk = chunk_of(payload)
        if chunk is None or len(chunk.data) > CHUNK_BYTES:
            return
        sink = self._sinks.get(chunk.tag)
        if sink is not None:
            sink.take(chunk.index, chunk.data, None if broadcast else chunk.batch)
