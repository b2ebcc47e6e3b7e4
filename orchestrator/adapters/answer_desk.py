"""Where devices' questions wait until they are answered: manifests, leaves, metadata."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from itertools import islice

from orchestrator.errors import Unavailable
from schemas.topics import Down, down
from schemas.transfer import Ask, Reply
from schemas.trust import MetadataAnswer, MetadataAsk

log = logging.getLogger(__name__)

MAX_OF_DEVICE = 8
"""Questions of one device that wait; it asks one thing after the other."""

MAX_DEVICES = 20_000
MAX_UNACKED = 64
"""Answers that the broker has not acknowledged: each may be 0.5 MiB, and paho queues any number."""

_NEXT = 500
"""Devices about which the database is asked together."""

_WAIT_SECONDS = 0.5
_PATIENCE_SECONDS = 5.0

Question = Ask | MetadataAsk | Reply
"""A reply is one that was not asked for: it answers itself."""

Answer = Callable[[str, Question], Reply | MetadataAnswer | None]
"""(device, question) → its answer, or None for who gets none; raises ``Unavailable``."""

Send = Callable[[str, bytes], int | None]
"""(topic, payload) → message id, or None when nothing can be sent now."""


class AnswerDesk:
    """Devices take turns with one question each: who asks for much delays nobody else.

    Args:
        answer: decides.
        send: takes the answer to the device, at QoS 1. One that is lost is asked for again.
        stop: ends what waits.
    """

    def __init__(self, answer: Answer, send: Send, stop: threading.Event) -> None:
        self._answer = answer
        self._send = send
        self._stop = stop
        self._waiting: OrderedDict[str, deque[Question]] = OrderedDict()
        self._unacked: set[int] = set()
        self._changed = threading.Condition()

    def take(self, device: str, question: Question) -> None:
        """Let a question wait.

        Raises:
            queue.Full: too many do, of this device or of all.
        """
        with self._changed:
            asked = self._waiting.get(device)
            if asked is None:
                if len(self._waiting) >= MAX_DEVICES:
                    raise queue.Full
                asked = self._waiting[device] = deque()
            if question in asked:
                return
            if len(asked) >= MAX_OF_DEVICE:
                raise queue.Full
            asked.append(question)
            self._changed.notify_all()

    def asking(self) -> Iterator[str]:
        """The devices whose turn is next, a few hundred at most."""
        with self._changed:
            following = list(islice(self._waiting, _NEXT))
        yield from following

    def acknowledged(self, mid: int) -> None:
        """The broker has the message of that id."""
        with self._changed:
            self._unacked.discard(mid)
            self._changed.notify_all()

    def disconnected(self) -> None:
        """What is on its way will be asked for again."""
        with self._changed:
            self._unacked.clear()
            self._changed.notify_all()

    def serve(self) -> None:
        """Answer until the stop."""
        while not self._stop.is_set():
            taken = self._next()
            if taken is not None:
                self._one(*taken)

    def _next(self) -> tuple[str, Question] | None:
        with self._changed:
            if not self._waiting:
                self._changed.wait(_WAIT_SECONDS)
            if not self._waiting:
                return None
            device, asked = next(iter(self._waiting.items()))
            question = asked.popleft()
            if asked:
                self._waiting.move_to_end(device)
            else:
                del self._waiting[device]
            return device, question

    def _one(self, device: str, question: Question) -> None:
        try:
            answer = self._answer(device, question)
        except Unavailable as error:
            log.warning("%s is not answered now, and will ask again: %s", device, error)
            return
        if answer is None:
            return
        leaf = Down.META if isinstance(answer, MetadataAnswer) else Down.REPLY
        payload = answer.model_dump_json(exclude_none=True).encode()
        self._wait_for_room()
        mid = self._send(down(device, leaf), payload)
        if mid is not None:
            with self._changed:
                self._unacked.add(mid)

    def _wait_for_room(self) -> None:
        """Until fewer are on their way; not for ever: an acknowledgement can overtake ``send``."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        with self._changed:
            while len(self._unacked) >= MAX_UNACKED and not self._stop.is_set():
                if time.monotonic() >= deadline:
                    self._unacked.clear()
                self._changed.wait(_WAIT_SECONDS)
