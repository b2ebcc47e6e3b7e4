"""Where devices' requests for a new certificate wait until they are answered.

On a thread of their own: issuing may ask another authority over the network, and neither
chunks nor what is stored shall wait for that.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from orchestrator.errors import Unavailable
from schemas.enroll import RenewAsk, Renewed

log = logging.getLogger(__name__)

MAX_WAITING = 10_000
_WAIT_SECONDS = 0.5

Answer = Callable[[str, RenewAsk], Renewed | None]
"""(device, request) → its answer, or None where it gets none."""

Send = Callable[[str, Renewed], bool]


class RenewalDesk:
    """One request waits for each device, the latest: a device that asks in a loop delays nobody.

    Args:
        answer: decides; it may take its time.
        send: takes the answer to the device. One that is lost is asked for again.
    """

    def __init__(self, answer: Answer, send: Send) -> None:
        self._answer = answer
        self._send = send
        self._waiting: dict[str, RenewAsk] = {}
        self._changed = threading.Condition()

    def take(self, device: str, ask: RenewAsk) -> None:
        """Let a request wait.

        Raises:
            queue.Full: too many do.
        """
        with self._changed:
            if device not in self._waiting and len(self._waiting) >= MAX_WAITING:
                raise queue.Full
            self._waiting[device] = ask
            self._changed.notify()

    def serve(self) -> bool:
        """Answer the request that waits the longest; False when none came within a while."""
        with self._changed:
            if not self._waiting:
                self._changed.wait(_WAIT_SECONDS)
            if not self._waiting:
                return False
            device = next(iter(self._waiting))
            ask = self._waiting.pop(device)
        try:
            answer = self._answer(device, ask)
        except Unavailable as error:
            log.warning("%s is not answered now, and will ask again: %s", device, error)
            return True
        if answer is not None and not self._send(device, answer):
            log.warning("the new certificate of %s could not be sent; it will ask again", device)
        return True
