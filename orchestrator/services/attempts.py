"""Attempts to get in that failed: a line in the log for each kind, and not for each attempt."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.services import keys
from orchestrator.services.ports import Clock

log = logging.getLogger(__name__)

QUIET = timedelta(minutes=1)
MAX_KINDS = 1000
_MAX_ADDRESS = 64


@dataclass(slots=True)
class _Heard:
    said_at: datetime
    unsaid: int = 0


class FailedAttempts:
    """Says who failed to get in: the address and the id in the token, never the token.

    The same address with the same id is named once a minute, with how often it came
    since; of addresses at most ``MAX_KINDS`` are remembered.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._heard: OrderedDict[tuple[str, str], _Heard] = OrderedDict()

    def note(self, token: str | None, address: str, why: str) -> None:
        """Take note of one; the log hears of it unless it just did."""
        key_id = (keys.id_of(token) if token else None) or ("unreadable" if token else "none")
        kind, now = (address[:_MAX_ADDRESS], key_id), self._clock()
        with self._lock:
            heard = self._heard.get(kind)
            if heard is not None and now - heard.said_at < QUIET:
                heard.unsaid += 1
                return
            unsaid = heard.unsaid if heard else 0
            self._heard[kind] = _Heard(now)
            self._heard.move_to_end(kind)
            while len(self._heard) > MAX_KINDS:
                self._heard.popitem(last=False)
        more = f", and {unsaid} more of these since" if unsaid else ""
        log.warning("refused %s with token %s: %s%s", kind[0], key_id, why, more)
