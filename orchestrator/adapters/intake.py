"""How much of one device is listened to, so that none fills the queues or the database alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from orchestrator.services.meter import Meter, Rate
from schemas.topics import Up, UpTopic

log = logging.getLogger(__name__)

STORED = Rate(20_000, 1000.0)
"""What is stored: 20 a second for ever, and at once whatever a device may have kept while it
was offline."""

ASKED = Rate(2_000, 10.0)
"""Requests: 200 a second, which is some 100 MB a second of a file."""

QUESTIONS = Rate(300, 60.0)
"""About files and metadata: an answer has up to 0.5 MiB, and the broker keeps them all for a device
that does not read."""

SAMPLES = Rate(500, 1000.0)
"""Inputs that were set aside: one in two seconds for ever, and at once what was kept offline."""

TIMES = Rate(120, 120.0)
"""Of asking what time it is, which costs a publication each."""

MAX_BYTES = 256 * 1024
"""Of one message."""

_TOLD = Rate(1, 60.0)
_MAX_DEVICES = 200_000
_RATES = {
    Up.ASK: ("questions", QUESTIONS),
    Up.META: ("questions", QUESTIONS),
    Up.NEED: ("asked", ASKED),
    Up.RENEW: ("asked", ASKED),
    Up.SAMPLE: ("samples", SAMPLES),
    Up.TIME: ("times", TIMES),
}


class Intake:
    """Says whether the next message of a device is taken. Used from paho's thread alone.

    Args:
        clock: seconds, never going back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._meter = Meter(clock, _MAX_DEVICES)

    def takes(self, topic: UpTopic, size: int) -> bool:
        """Whether a message is taken; one that is not is as if it had never been sent.

        Args:
            topic: where it came.
            size: its bytes.
        """
        kind, rate = _RATES.get(topic.leaf, ("stored", STORED))
        if self._meter.take((kind, topic.device), rate) and size <= MAX_BYTES:
            return True
        if self._meter.take(("told", topic.device), _TOLD):
            what = "sends too much" if size <= MAX_BYTES else f"sends {size} bytes at once"
            log.warning("%s %s: messages on %s are dropped", topic.device, what, topic.leaf)
        return False
