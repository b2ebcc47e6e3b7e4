"""The broker's gate: telling the broker who is shut out, trying it, and ending sessions.

mosquitto reads its lists anew on SIGHUP: roots, server certificate, revocation list and
access list together, into a new TLS context, so that session tickets of the old one count no
more. Those who are connected stay so. It says nothing of what it read, and a revocation list
that it cannot read makes it accept everyone; hence the canaries.

The signal comes from the supervisor, whose child the broker is: it alone knows for certain
which process that is. It is asked by a file that is written last.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from orchestrator.adapters import broker
from orchestrator.adapters.authority import Canary, CertificateAuthority, RevokedSerial
from orchestrator.adapters.broker import Gateway
from orchestrator.adapters.broker_probe import Door, try_canary
from orchestrator.domain.gate import Trial, Verdict, Wanted
from orchestrator.errors import Unavailable
from orchestrator.home import Home, read_lines, write_atomic
from orchestrator.services.records import RevokedCertificate
from orchestrator.settings import LOOPBACK, Settings
from schemas.topics import Down, Up, down, up

_END_SECONDS = 5.0
_MAX_ENDED = 1_000_000
_WILDCARDS = {"0.0.0.0", "::"}  # noqa: S104 - compared with


class BrokerGuard:
    """``services.ports.Gate`` over mosquitto, or over a broker that is run elsewhere.

    Args:
        home: where the broker's files lie.
        settings: where devices connect, and the names of the server's certificate.
        gateway: how the server reaches the broker.
        authority: writes the revocation lists, makes the canaries.
    """

    def __init__(
        self,
        home: Home,
        settings: Settings,
        gateway: Gateway,
        authority: CertificateAuthority,
    ) -> None:
        self._home = home
        self._names = settings.names
        self._gateway = gateway
        self._authority = authority
        self._canaries: tuple[Canary, ...] = ()
        self._embedded = settings.embedded_broker
        own = LOOPBACK if settings.mqtt_host in _WILDCARDS else settings.mqtt_host
        host = own if self._embedded else settings.mqtt_public_host
        self._door = Door(host, settings.mqtt_port, host, home.ca_pem)

    @property
    def embedded(self) -> bool:
        """Whether the broker is a child of our supervisor."""
        return self._embedded

    def roots(self) -> tuple[str, ...]:
        """SHA-256 of the roots that are trusted now."""
        return tuple(g.sha256 for g in self._authority.trusted.trusted)

    def tell(self, wanted: Wanted, revoked: Sequence[RevokedCertificate]) -> datetime:
        """Write what the broker reads, then have it read; answers when that is due again.

        Raises:
            Unavailable: a list could not be made; the old ones stand.
            OSError: a file could not be written; likewise.
        """
        serials = [RevokedSerial(r.serial, r.at) for r in revoked]
        try:
            self._authority.settle()
            self._authority.ensure_server(self._names)
            canaries = self._authority.canaries()
            until = self._authority.publish(serials, canaries)
            self._canaries = canaries
        finally:
            # Even where a list could not be had: who is denied everything does no harm.
            if self._embedded:
                acl = broker.device_acl(wanted.shut)
                write_atomic(self._home.broker / "acl", acl.encode())
                broker.ask_reload(self._home)
        return until

    def try_canaries(self) -> Trial:
        """Knock with the canaries of every authority; the first that shows a fault counts."""
        trial = Trial(bad=None, good=None, why="no canary has been made")
        for canary in self._canaries:
            trial = try_canary(self._door, canary)
            if trial.verdict is not Verdict.HOLDS:
                return trial
        return trial

    def end(self, device: str, *, clear: bool) -> None:
        """Take a device's client id over, which ends its session (MQTT 5.0, section 3.1.4).

        Args:
            device: its id.
            clear: take away what the broker keeps for it and of it, too.

        Raises:
            Unavailable: the broker does not do it.
        """
        topics = (down(device, Down.DESIRED), up(device, Up.BIRTH)) if clear else ()
        _TakeOver(self._gateway, device, topics).run()

    def ended(self) -> frozenset[str]:
        """The serials of revoked certificates whose sessions were ended."""
        return frozenset(read_lines(self._home.broker / "ended", _MAX_ENDED))

    def keep_ended(self, serials: frozenset[str]) -> None:
        """Write down whose sessions were ended."""
        text = "".join(f"{serial}\n" for serial in sorted(serials))
        write_atomic(self._home.broker / "ended", text.encode())


class _TakeOver:
    """One connection to the broker under a device's client id."""

    def __init__(self, gateway: Gateway, device: str, topics: Sequence[str]) -> None:
        self._gateway = gateway
        self._device = device
        self._topics = topics
        self._answered = threading.Event()
        self._refused: str | None = None

    def run(self) -> None:
        """Connect, clear, leave."""
        client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=self._device, protocol=paho.MQTTv5
        )
        client.username_pw_set(self._gateway.username, self._gateway.password)
        if self._gateway.tls:
            client.tls_set(ca_certs=self._gateway.ca)
        client.on_connect = self._on_connect
        client.connect_timeout = _END_SECONDS
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = 0
        where = f"{self._gateway.host}:{self._gateway.port}"
        try:
            client.connect(
                self._gateway.host, self._gateway.port, clean_start=True, properties=properties
            )
        except OSError as error:
            msg = f"the broker at {where} cannot be reached: {error.strerror or error}"
            raise Unavailable(msg) from error
        client.loop_start()
        try:
            if not self._answered.wait(_END_SECONDS):
                msg = f"the broker at {where} does not answer"
                raise Unavailable(msg)
            if self._refused is not None:
                msg = f"the broker does not give up the session of {self._device}: {self._refused}"
                raise Unavailable(msg)
            for topic in self._topics:
                sent = client.publish(topic, b"", qos=1, retain=True)
                sent.wait_for_publish(_END_SECONDS)
                if not sent.is_published():
                    msg = f"the broker at {where} does not answer"
                    raise Unavailable(msg)
        except (RuntimeError, ValueError) as error:
            msg = f"the broker ended the connection under {self._device}: {error}"
            raise Unavailable(msg) from error
        finally:
            client.disconnect()
            client.loop_stop()

    def _on_connect(self, *args: Any) -> None:
        reason = args[3]
        self._refused = str(reason) if reason.is_failure else None
        self._answered.set()
