"""What a download needs of the connection, and a question that is asked until it is answered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edge_client.chore import Spawn, at_once
from edge_client.errors import TransferError
from edge_client.inlet import Inlet
from edge_client.transfer import Bucket
from schemas.transfer import Ask, Need

ASK_AGAIN_SECONDS = 3.0
SEND_AGAIN_SECONDS = 1.0
"""After a request that could not be sent: without a connection there is no hurry."""

MAX_ERRORS = 5


@dataclass(slots=True)
class Asking:
    """A question that is asked again until it is answered."""

    every: float = ASK_AGAIN_SECONDS
    next_at: float = 0.0
    errors: int = 0

    def due(self, now: float) -> bool:
        """Whether to ask now; if so, the next time is set."""
        if now < self.next_at:
            return False
        self.next_at = now + self.every
        return True

    def unsent(self, now: float) -> None:
        """The question could not be sent; ask again soon, not at once."""
        self.next_at = now + SEND_AGAIN_SECONDS

    def refused(self, why: str) -> None:
        """Count an answer that says no.

        Raises:
            TransferError: it was one too many.
        """
        self.errors += 1
        if self.errors >= MAX_ERRORS:
            msg = f"the server has it not: {why[:200]}"
            raise TransferError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What a download needs of the connection, and of the thread that drives it.

    need, ask: publish; False when there is no connection. listen: to the broadcast of a
    file; None to none. inlet: where chunks arrive. clock: steady seconds. nudge: has ``pump``
    called soon, from any thread. spawn: for what takes long. bandwidth, bucket: the device's
    own limit.
    """

    need: Callable[[Need], bool]
    ask: Callable[[Ask], bool]
    listen: Callable[[str | None], None] = lambda _sha256: None
    inlet: Inlet
    clock: Callable[[], float]
    nudge: Callable[[], None] = lambda: None
    spawn: Spawn = at_once
    bandwidth: int | None = None
    bucket: Bucket | None = None
