"""What an agent consists of, put together from one home."""

from __future__ import annotations

import datetime as dt
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from edge_client.autobench import Autobench
from edge_client.chore import in_thread
from edge_client.device import Clock, Device
from edge_client.files import forget_torn
from edge_client.hardware import hardware
from edge_client.identity import Identity, load_identity
from edge_client.inbox import Inbox
from edge_client.inlet import Inlet
from edge_client.journal import Journal
from edge_client.loop import Events, Nudge
from edge_client.metadata import MetadataClient
from edge_client.metadata_cache import MetadataCache
from edge_client.metadata_refresh import JournalFloors
from edge_client.mqtt_transport import MqttTransport
from edge_client.opening import open_buffer, open_journal, open_samples, open_spool
from edge_client.recorder import Recorder
from edge_client.rollback_desk import RollbackDesk
from edge_client.runtime import Runtime
from edge_client.sessions import SessionSettings
from edge_client.settings import Home, RunSettings
from edge_client.spool import Spool
from edge_client.standing import Standing
from edge_client.store import Store
from edge_client.telemetry import Windows
from edge_client.telemetry_buffer import Buffer
from edge_client.times import read_past
from edge_client.updater import Updater
from edge_client.uplink import Uplink
from edge_client.watchdog import Watchdog
from edge_client.wish_desk import WishDesk
from schemas.device import Birth, Hardware
from schemas.ids import BootId


@dataclass(frozen=True, slots=True)
class Boot:
    """One start of the agent. id: drawn at random. began: seconds of the steady clock."""

    id: BootId
    began: float

    @classmethod
    def now(cls) -> Boot:
        """This start."""
        return cls(secrets.token_hex(16), time.monotonic())

    def uptime(self) -> float:
        """Seconds since it; they only grow, whatever is done to the clock."""
        return time.monotonic() - self.began


class Parts:
    """The parts of one agent, not yet at work. Used from the thread that decides.

    read_only: why the journal on the disk is not the one in use; then nothing may be decided.
    """

    def __init__(
        self,
        home: Home,
        settings: RunSettings,
        *,
        boot: Boot,
        events: Events,
        birth: Callable[[int], Birth],
    ) -> None:
        """Read everything that can be wrong before anything starts.

        Args:
            home: where the device lives.
            settings: of this run.
            boot: this start.
            events: take what other threads have to say.
            birth: the birth message of a connection, by its number.

        Raises:
            EdgeError: the home is not usable.
        """
        self.boot = boot
        self.identity: Identity = load_identity(home)
        name = self.identity.record.device
        home.create()
        forget_torn(home.root, home.manifests, home.metadata, home.leaves)
        self.hardware: Hardware = hardware()
        self.windows = Windows()
        self.runtime = Runtime(self.windows, session_of(settings))
        self.runtime.times.recall(read_past(home.times))
        self.watchdog = Watchdog(home, self.runtime.busy, limit=settings.hang_seconds)
        self.journal: Journal
        self.read_only: str | None
        self.journal, self.read_only = open_journal(home, boot=boot.id)
        make = partial(Buffer, most=settings.telemetry_windows)
        self.buffer: Buffer = open_buffer(home.telemetry, make)
        self.samples = open_samples(home.samples, settings.samples)
        self.recorder = Recorder(
            home,
            boot=boot.id,
            windows=self.windows,
            buffer=self.buffer,
            every=settings.window,
        )
        self.spool: Spool = open_spool(home.bench, device=name)
        inlet = Inlet()
        self.transport = MqttTransport(
            self.identity, boot=boot.id, birth=birth, on_event=events.post, inlet=inlet
        )
        self.uplink = Uplink(
            self.transport,
            journal=self.journal,
            buffer=self.buffer,
            spool=self.spool,
            samples=self.samples,
        )
        known = partial(self.spool.knows, ort=self.hardware.ort)
        self.autobench = Autobench(home, known=known, clock=boot.uptime)
        self.device = self._device(home, settings, inlet, events)
        self.standing = Standing(
            home,
            self.identity,
            clock=self.device.clock,
            transport=self.transport,
            uplink=self.uplink,
            post=events.post,
        )
        self.updater = Updater(self.device, post=events.post)
        self.inbox = Inbox(self.device, self.updater)
        self.rollbacks = RollbackDesk(self.device, self.updater)
        self.wishes = WishDesk(self.device, self.updater)

    def close_samples(self) -> None:
        """Close the file of samples, where there is one."""
        if self.samples is not None:
            self.samples.close()

    def _device(self, home: Home, settings: RunSettings, inlet: Inlet, events: Events) -> Device:
        return Device(
            home=home,
            settings=settings,
            identity=self.identity,
            journal=self.journal,
            store=Store(home, settings.disk_quota),
            metadata=MetadataClient(
                self.identity.root_json,
                cache=MetadataCache(home.metadata),
                floors=JournalFloors(self.journal, self.identity.record.device),
                clock=_utc_now,
            ),
            runtime=self.runtime,
            clock=Clock(date=_utc_now, steady=self.boot.uptime),
            send=self.uplink.need,
            inquire=self.uplink.ask,
            ask=self.uplink.meta,
            listen=self.transport.listen,
            inlet=inlet,
            nudge=lambda: events.post(Nudge()),
            spawn=in_thread,
            server_time=self.uplink.time.server_time,
        )


def session_of(settings: RunSettings) -> SessionSettings:
    """How models are to run, as ``argosy-edge run`` was told."""
    return SessionSettings(
        threads=settings.threads,
        spinning=settings.spin,
        arena=settings.arena,
        provider=settings.provider,
        fallback=settings.provider_fallback,
    )


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
