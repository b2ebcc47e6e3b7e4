"""What the processes that answer requests for chunks tell each other, once a second.

By it each takes its share of the rate that they have together, and the server can say how
much is under way.
"""

from __future__ import annotations

import logging

from pydantic import ValidationError

from schemas.api import TransferProcess
from schemas.topics import peer

log = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
_GONE_SECONDS = 3.5
_SETTLED_SECONDS = 1.5
_MAX_PEERS = 100


class Peers:
    """The processes that were heard of lately.

    Args:
        name: of this one, whose own beats count for nothing.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.topic = peer(name)
        self._heard: dict[str, tuple[float, TransferProcess]] = {}

    def heard(self, payload: bytes | bytearray, now: float) -> None:
        """Another one said how it fares."""
        try:
            beat = TransferProcess.model_validate_json(payload)
        except ValidationError:
            log.warning("what another transfer process says is not understood: is it newer?")
            return
        if beat.name != self.name and (beat.name in self._heard or len(self._heard) < _MAX_PEERS):
            self._heard[beat.name] = now, beat

    def beats(self, now: float) -> list[TransferProcess]:
        """What the others said last."""
        self._heard = {
            n: found for n, found in self._heard.items() if now - found[0] < _GONE_SECONDS
        }
        return [beat for _, beat in self._heard.values()]

    def share(self, rate: float | None, now: float, busy_since: float | None) -> float | None:
        """This one's part of a rate that all who are busy have together.

        busy_since: when this one began to send; None when it does not. Until the others must
        have heard of that, they may count on being alone: then it takes what is everybody's.
        """
        if rate is None:
            return None
        beats = self.beats(now)
        settled = busy_since is not None and now - busy_since > _SETTLED_SECONDS
        return rate / (1 + (sum(beat.busy for beat in beats) if settled else len(beats)))
