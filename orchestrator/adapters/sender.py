"""Sends chunks: what devices ask for, by turns, and what is sent to all at once.

No thread and no socket: ``now`` is seconds of a steady clock, and what sends is an argument.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.domain.broadcast import Slot
from orchestrator.domain.budget import Budget
from orchestrator.domain.fairness import Portion, Turns
from orchestrator.errors import ArgosyError
from orchestrator.services.admitted import Admitted
from orchestrator.services.broadcasting import BroadcastDesk
from orchestrator.services.chunks import ChunkService
from orchestrator.services.meter import Meter, Rate
from schemas.topics import Down, broadcast, down
from schemas.transfer import HEADER_BYTES, Need, Reply

log = logging.getLogger(__name__)

PORTION_CHUNKS = 4
"""A turn: 256 KiB, handed to paho at once. The next waits until they are on the wire."""

SENT = Rate(32_768, 1800.0)
"""Chunks to one device: 2 GiB, and as many again in half an hour. The broker holds without limit
what is sent to a device that does not read, and nothing tells that it does not."""

_TOLD = Rate(1, 60.0)
_MAX_DEVICES = 200_000

_AHEAD_SECONDS = 0.02
"""A chunk to all that is due so soon goes with the one that is due."""

Publish = Callable[[str, bytes | bytearray, int], bool]
"""(topic, payload, QoS) → whether it was taken. The payload may be written over afterwards."""


@dataclass(slots=True)
class Counters:
    """Since the start."""

    unicast_bytes: int = 0
    broadcast_bytes: int = 0
    dropped_chunks: int = 0


class Sender:
    """Decides what goes out next, and reads it. Used from one thread.

    Args:
        chunks: reads them.
        admitted: who is answered.
        publish: hands a message to the connection.
        broadcasts: rounds to all; None where another process sends them.
        rate: bytes a second to all devices together; None is without limit.
        clock: seconds, never going back.
    """

    def __init__(
        self,
        chunks: ChunkService,
        admitted: Admitted,
        publish: Publish,
        *,
        broadcasts: BroadcastDesk | None = None,
        rate: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._chunks = chunks
        self._admitted = admitted
        self._publish = publish
        self._broadcasts = broadcasts
        self._budget = Budget(rate)
        self._meter = Meter(clock, _MAX_DEVICES)
        self._round_was_last = False
        self.turns = Turns()
        self.counters = Counters()

    def take(self, device: str, need: Need) -> None:
        """Let a request wait for its turn."""
        dropped = self.turns.add(device, need.sha256, need.batch, need.ranges)
        self.counters.dropped_chunks += dropped

    def left(self, device: str) -> None:
        """A device is gone: it would not get what waits for it."""
        self.counters.dropped_chunks += self.turns.drop(device)
        if self._broadcasts is not None:
            self._broadcasts.left(device)

    def lost(self) -> None:
        """The connection is: devices ask again."""
        self.turns.clear()
        if self._broadcasts is not None:
            self._broadcasts.clear()

    def limit(self, rate: float | None, now: float) -> None:
        """Go on at another rate."""
        self._budget.change(rate, now)
        if self._broadcasts is not None:
            self._broadcasts.limit(rate)

    def wait(self, now: float) -> float | None:
        """Seconds until something may be sent; None when nothing waits."""
        due = None if self._broadcasts is None else self._broadcasts.wait(now)
        if self.turns.chunks:
            due = 0.0
        return None if due is None else max(due, self._budget.wait(now))

    def send(self, now: float) -> None:
        """Send a portion, or a chunk to all, if that is due: these two take turns as well."""
        if self._budget.wait(now) > 0:
            return
        slot = None
        if self._broadcasts is not None and not (self._round_was_last and self.turns.chunks):
            slot = self._broadcasts.next(now)
        self._round_was_last = slot is not None
        if slot is not None and self._broadcasts is not None:
            for _ in range(PORTION_CHUNKS - 1):
                self._send_to_all(slot, now)
                # Waking for each chunk costs more than sending it.
                following = self._broadcasts.next(now + _AHEAD_SECONDS)
                if following is None:
                    return
                slot = following
            self._send_to_all(slot, now)
        elif (portion := self.turns.next(PORTION_CHUNKS)) is not None:
            self._send_portion(portion, now)

    def _send_portion(self, portion: Portion, now: float) -> None:
        device = portion.device
        if not self._admitted.admits(device, self.turns.waiting()):
            self.counters.dropped_chunks += len(portion) + self.turns.drop(device)
            return
        if self._meter.wait(("sent", device), SENT) > 0:
            self.counters.dropped_chunks += len(portion) + self.turns.drop(device)
            if self._meter.take(("told", device), _TOLD):
                log.warning("%s fetches too much: its requests are dropped for a while", device)
            return
        try:
            refusal = self._chunks.refusal(portion.sha256, portion.end)
            if refusal is None:
                self._budget.spend(self._send_chunks(portion), now)
                return
        except ArgosyError as error:
            log.warning("chunks of %s cannot be read: %s", portion.sha256, error)
            self.counters.dropped_chunks += len(portion)
            return
        reply = Reply(kind="chunks", sha256=portion.sha256, error=refusal)
        payload = reply.model_dump_json(exclude_none=True).encode()
        self._publish(down(device, Down.REPLY), payload, 1)

    def _send_chunks(self, portion: Portion) -> int:
        topic, sent = down(portion.device, Down.CHUNK), 0
        for index in range(portion.start, portion.end):
            message = self._chunks.message(portion.sha256, portion.batch, index)
            if self._publish(topic, message, 0):
                sent += len(message)
                self._meter.count(("sent", portion.device), SENT)
        self.counters.unicast_bytes += sent
        return sent

    def _send_to_all(self, slot: Slot, now: float) -> None:
        assert self._broadcasts is not None  # noqa: S101 - its slot it is
        try:
            refusal = self._chunks.refusal(slot.sha256, slot.index + 1)
            if refusal is not None:
                log.info("the broadcast of %s ends: %s", slot.sha256, refusal)
                self._broadcasts.end(slot.sha256)
                return
            message = self._chunks.message(slot.sha256, slot.batch, slot.index)
        except ArgosyError as error:
            log.warning("the broadcast of %s ends: %s", slot.sha256, error)
            self._broadcasts.end(slot.sha256)
            return
        if self._publish(broadcast(slot.sha256), message, 0):
            heard = max(1, slot.listeners) * (len(message) - HEADER_BYTES)
            self.counters.broadcast_bytes += heard
            self._budget.spend(heard, now)
