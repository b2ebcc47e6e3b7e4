"""What the device sends: requests at once; reports, telemetry and figures until they arrived."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from edge_client.courier import Courier
from edge_client.journal import Journal
from edge_client.spool import Spool
from edge_client.telemetry import Buffer
from edge_client.transport import Acknowledged, Transport
from schemas.base import Wire
from schemas.enroll import RenewAsk
from schemas.topics import Up
from schemas.transfer import Ask, Need
from schemas.trust import MetadataAsk

MOST_REPORTS = 16
MOST_WINDOWS = 32
MOST_BENCHES = 4
"""Publications of a kind that may be unacknowledged at once."""


class Uplink:
    """Sends over one transport. Used from the thread that decides."""

    def __init__(
        self, transport: Transport, *, journal: Journal, buffer: Buffer, spool: Spool
    ) -> None:
        """Put together.

        Args:
            transport: the connection; its owner starts and stops it.
            journal: where reports wait.
            buffer: where telemetry windows wait.
            spool: where bench reports wait.
        """
        self.connected = False
        self._transport = transport

        def reports(limit: int) -> list[tuple[int, str]]:
            return [(report.id, report.body) for report in journal.waiting(limit)]

        self._reports = self._courier(Up.EXEC, reports, journal.arrived, MOST_REPORTS)
        self._windows = self._courier(Up.TELE, buffer.waiting, buffer.arrived, MOST_WINDOWS)
        self._benches = self._courier(Up.BENCH, spool.waiting, spool.arrived, MOST_BENCHES)
        self._all = (self._reports, self._windows, self._benches)

    @property
    def reported(self) -> bool:
        """Whether every report has arrived."""
        return self._reports.idle

    @property
    def settling(self) -> int:
        """How many windows on the disk were acknowledged already."""
        return self._windows.settling

    def need(self, need: Need) -> bool:
        """Publish a request; False when there is no connection."""
        return self.connected and self._sent(Up.NEED, need)

    def ask(self, ask: Ask) -> bool:
        """Ask about a file; False when there is no connection."""
        return self.connected and self._sent(Up.ASK, ask)

    def meta(self, ask: MetadataAsk) -> bool:
        """Ask for a metadata file; False when there is no connection."""
        return self.connected and self._sent(Up.META, ask)

    def renew(self, ask: RenewAsk) -> bool:
        """Ask for a new certificate; False when there is no connection."""
        return self.connected and self._sent(Up.RENEW, ask)

    def pump(self, now: float) -> None:
        """Send what may be sent. now: seconds of a steady clock."""
        if self.connected:
            for courier in self._all:
                courier.pump(now)

    def acknowledged(self, event: Acknowledged, now: float) -> None:
        """Take an acknowledgement."""
        any(courier.acknowledged(event, now) for courier in self._all)

    def disconnected(self) -> None:
        """Whatever is not settled is sent again on the next connection."""
        self.connected = False
        for courier in self._all:
            courier.disconnected()

    def _sent(self, leaf: Up, message: Wire) -> bool:
        body = message.model_dump_json(exclude_none=True)
        return self._transport.publish(leaf, body) is not None

    def _courier(
        self,
        leaf: Up,
        waiting: Callable[[int], Iterable[tuple[int, str]]],
        arrived: Callable[[int], None],
        most: int,
    ) -> Courier:
        return Courier(
            waiting=waiting,
            arrived=arrived,
            publish=lambda body: self._transport.publish(leaf, body),
            most=most,
        )
