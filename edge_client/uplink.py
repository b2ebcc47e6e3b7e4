"""What the device sends: requests at once; reports, telemetry and figures until they arrived."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from edge_client.clock_sync import Sync
from edge_client.courier import Bucket, Courier, Parcel, singly
from edge_client.envelopes import Envelopes, sample_parcels
from edge_client.journal import Journal
from edge_client.machine import Clocks
from edge_client.sample_store import SampleStore
from edge_client.spool import Spool
from edge_client.telemetry_buffer import Buffer
from edge_client.time_keeper import TimeKeeper
from edge_client.transport import Acknowledged, Transport
from schemas.base import Wire
from schemas.clock import TimeAsk
from schemas.enroll import RenewAsk
from schemas.topics import Up
from schemas.transfer import Ask, Need
from schemas.trust import MetadataAsk

MOST_REPORTS = 16
MOST_ENVELOPES = 8
MOST_BENCHES = 4
"""Publications of a kind that may be unacknowledged at once."""

ENVELOPES_PER_SECOND, ENVELOPES_AT_ONCE = 4.0, 8.0
"""However often a device starts and however much it has kept."""

SAMPLES_PER_SECOND = 0.5

LOOK_SECONDS = 1.0
"""Other processes write windows too: so often is looked for them."""


class Uplink:
    """Sends over one transport. Used from the thread that decides."""

    def __init__(
        self,
        transport: Transport,
        *,
        journal: Journal,
        buffer: Buffer,
        spool: Spool,
        samples: SampleStore | None = None,
    ) -> None:
        """Put together.

        Args:
            transport: the connection; its owner starts and stops it.
            journal: where reports wait.
            buffer: where telemetry windows wait.
            spool: where bench reports wait.
            samples: where samples wait, by opt-in.
        """
        self.connected = False
        self.time: TimeKeeper = TimeKeeper(buffer, self.ask_time, Clocks())
        self._transport = transport
        self._look_at = 0.0

        def reports(limit: int) -> list[tuple[int, str]]:
            return [(report.id, report.body) for report in journal.waiting(limit)]

        self._reports = self._courier(
            Up.EXEC, singly(reports), _each(journal.arrived), MOST_REPORTS
        )
        self._benches = self._courier(
            Up.BENCH, singly(spool.waiting), _each(spool.arrived), MOST_BENCHES
        )
        self._windows = self._courier(
            Up.TELE,
            Envelopes(buffer, self._sync).waiting,
            buffer.arrived,
            MOST_ENVELOPES,
            Bucket(ENVELOPES_PER_SECOND, ENVELOPES_AT_ONCE),
        )
        self._prompt = (self._reports, self._benches)
        self._dated = [self._windows]
        if samples is not None:
            self._dated.append(
                self._courier(
                    Up.SAMPLE,
                    sample_parcels(samples, self._sync),
                    samples.arrived,
                    1,
                    Bucket(SAMPLES_PER_SECOND, 1.0),
                )
            )

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

    def ask_time(self, ask: TimeAsk) -> bool:
        """Ask what time it is; False when there is no connection."""
        body = ask.model_dump_json(exclude_none=True)
        return self.connected and self._transport.publish(Up.TIME, body, qos=0) is not None

    def pump(self, now: float) -> None:
        """Send what may be sent. now: seconds of a steady clock."""
        if not self.connected:
            return
        self.time.pump()
        for courier in self._prompt:
            courier.pump(now)
        if now >= self._look_at and self.time.ready():
            self._look_at = now + LOOK_SECONDS
            for courier in self._dated:
                courier.pump(now)

    def hurry(self) -> None:
        """There are new windows: look at once."""
        self._look_at = 0.0

    def acknowledged(self, event: Acknowledged, now: float) -> None:
        """Take an acknowledgement."""
        any(courier.acknowledged(event, now) for courier in (*self._prompt, *self._dated))

    def now_connected(self) -> None:
        """There is a connection: things may go out."""
        self.connected = True
        self.time.connected()

    def disconnected(self) -> None:
        """Whatever is not settled is sent again on the next connection."""
        self.connected = False
        for courier in (*self._prompt, *self._dated):
            courier.disconnected()

    def _sync(self, machine: bytes) -> Sync | None:
        return self.time.sync(machine)

    def _sent(self, leaf: Up, message: Wire) -> bool:
        body = message.model_dump_json(exclude_none=True)
        return self._transport.publish(leaf, body) is not None

    def _courier(
        self,
        leaf: Up,
        waiting: Callable[[Collection[int], int], Iterable[Parcel]],
        arrived: Callable[[Collection[int]], None],
        most: int,
        pace: Bucket | None = None,
    ) -> Courier:
        return Courier(
            waiting=waiting,
            arrived=arrived,
            publish=lambda body: self._transport.publish(leaf, body),
            most=most,
            pace=pace,
        )


def _each(arrived: Callable[[int], None]) -> Callable[[Collection[int]], None]:
    def all_arrived(ids: Collection[int]) -> None:
        for one in ids:
            arrived(one)

    return all_arrived
