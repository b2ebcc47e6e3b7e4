"""Where a device stands with the broker: whether it is refused, and the next certificate."""

from __future__ import annotations

from collections.abc import Callable

from edge_client.device import Clock
from edge_client.identity import Identity
from edge_client.loop import AgentEvent
from edge_client.refusal import Refusal
from edge_client.renewal import Moment
from edge_client.renewal_work import RenewalEnded, Renewer
from edge_client.settings import Home
from edge_client.transport import Connected, Disconnected, Received, Transport
from edge_client.uplink import Uplink
from schemas.topics import Down


class Standing:
    """Of one device. Used from the thread that decides.

    refusal: how the last try to connect ended, if it was refused.
    """

    def __init__(
        self,
        home: Home,
        identity: Identity,
        *,
        clock: Clock,
        transport: Transport,
        uplink: Uplink,
        post: Callable[[RenewalEnded], None],
    ) -> None:
        """Put together. post: takes the end of a renewal by HTTPS, from another thread."""
        self.refusal: Refusal | None = None
        self._clock, self._uplink = clock, uplink
        self.renewer = Renewer(
            home,
            identity,
            moment=self._moment,
            ask=uplink.renew,
            post=post,
            adopt=transport.use,
        )

    def take(self, event: AgentEvent) -> bool:
        """Take what is about certificates; False for everything else."""
        match event:
            case Received(leaf=Down.RENEW, payload=payload):
                self.renewer.wanted(payload)
            case Received(leaf=Down.RENEWED, payload=payload):
                self.renewer.answered(payload)
            case RenewalEnded():
                self.renewer.ended(event)
            case _:
                return False
        return True

    def connected(self, event: Connected) -> None:
        """The broker accepted the device."""
        self.refusal = None
        self.renewer.connected(event.serial)

    def disconnected(self, event: Disconnected) -> None:
        """The connection is gone, or was refused."""
        self.refusal = event.refusal
        self.renewer.disconnected(event.refusal)

    def _moment(self) -> Moment:
        return Moment(
            date=self._clock.date(),
            steady=self._clock.steady(),
            connected=self._uplink.connected,
            refusal=self.refusal,
        )
