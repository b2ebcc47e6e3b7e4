"""Stores what devices send, by batches, and acknowledges it once it is stored."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence

from orchestrator.services.inbox import UpMessage

log = logging.getLogger(__name__)

MAX_INBOX = 50_000
MAX_UNACKED = 10_000
"""Of the inbox: so many it keeps for what was sent at QoS 1, and more the broker does not send.
One that found no room would hold its place at the broker until the next connection."""

_BATCH = 500
_BATCH_BYTES = 2 * 1024**2
"""Of one transaction: an envelope holds up to 64 windows, and others wait to write."""

_BATCH_SECONDS = 0.05

Handle = Callable[[Sequence[UpMessage]], None]
"""Commits a batch; it must not raise for a message that is merely malformed."""


class Committer:
    """The inbox of the gateway, and what empties it.

    Args:
        acknowledge: tells the broker that a message is stored.
        stop: ends what waits.
    """

    def __init__(self, acknowledge: Callable[[UpMessage], None], stop: threading.Event) -> None:
        self._acknowledge = acknowledge
        self._stop = stop
        self._inbox: queue.Queue[UpMessage] = queue.Queue(MAX_INBOX)
        self.handle: Handle = lambda _batch: None

    def keep(self, message: UpMessage, qos: int) -> None:
        """Let a message wait for the next batch.

        Raises:
            queue.Full: too many do.
        """
        if qos == 0 and self._inbox.qsize() >= MAX_INBOX - MAX_UNACKED:
            raise queue.Full
        self._inbox.put_nowait(message)

    def write(self) -> None:
        """Store batches until the stop."""
        while not self._stop.is_set():
            batch = self._next_batch()
            if batch:
                self._commit(batch)

    def _next_batch(self) -> list[UpMessage]:
        try:
            batch = [self._inbox.get(timeout=0.5)]
        except queue.Empty:
            return []
        deadline = time.monotonic() + _BATCH_SECONDS
        size = len(batch[0].payload)
        while len(batch) < _BATCH and size < _BATCH_BYTES:
            try:
                batch.append(self._inbox.get(timeout=max(0, deadline - time.monotonic())))
            except queue.Empty:
                break
            size += len(batch[-1].payload)
        return batch

    def _commit(self, batch: Sequence[UpMessage]) -> None:
        while not self._stop.is_set():
            try:
                self.handle(batch)
                break
            except Exception:
                # Not acknowledged, so nothing is lost: the broker has it, and so have we.
                log.exception("a batch of %d messages was not stored; trying again", len(batch))
                self._stop.wait(1)
        else:
            return
        for message in batch:
            self._acknowledge(message)
