"""A connection to the broker: MQTT 5 over mutual TLS. paho is not seen outside.

Every connection has a client of its own: the outbox and the buffer are what survives,
so nothing waits in a queue of the library. The library's callbacks only hand events
over; an exception in one would end the network thread while it looks alive.
"""

from __future__ import annotations

import logging
import random
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge_client.chunk_socket import Tap, tapped
from edge_client.identity import Identity
from edge_client.inlet import Inlet
from edge_client.mqtt_line import backoff, connect_properties, no_delay, plain, tls_of
from edge_client.refusal import Refusal, ask_why, in_words, of_connack, of_tls
from edge_client.transport import (
    Acknowledged,
    Connected,
    Disconnected,
    Received,
    Ticket,
    TransportEvent,
)
from schemas.device import Birth, Death
from schemas.ids import BootId
from schemas.topics import Down, Up, broadcast, down, down_filter, parse_broadcast, parse_down, up

KEEPALIVE_SECONDS = 20
CONNACK_SECONDS = 10.0
STEADY_SECONDS = 10.0
"""A connection that lasted this long resets the delay before the next one."""

_NO_SUBSCRIBERS = 0x10
"""PUBACK reason: what was sent is dropped, as nobody subscribed to it (MQTT 5, 3.4.2.1).

So does a broker that has lost its sessions, until the server is back.
"""

_WITH_WILL = 4
"""DISCONNECT reason: publish the will (MQTT 5, 3.14.2.1)."""

log = logging.getLogger(__name__)


class MqttTransport:
    """A connection that is made again for ever."""

    def __init__(
        self,
        identity: Identity,
        *,
        boot: BootId,
        birth: Callable[[int], Birth],
        on_event: Callable[[TransportEvent], None],
        inlet: Inlet,
    ) -> None:
        """Prepare.

        Args:
            identity: the device's, with the broker's address.
            boot: of this start of the agent.
            birth: the birth message of a connection, by its number.
            on_event: called from the network thread; must be quick.
            inlet: takes chunks, in the network thread.
        """
        self._identity, self._boot, self._birth = identity, boot, birth
        self._on_event = on_event
        self._device = identity.record.device
        self._seen = identity.seen
        self._session = 0
        self._inlet = inlet
        self._chunks = down(self._device, Down.CHUNK)
        self._broadcast: str | None = None
        self._tap = Tap(self._chunk)
        self._tap.listen({self._chunks})
        self._client: mqtt.Client | None = None
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._anew = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)

    def start(self) -> None:
        """Begin to connect."""
        self._thread.start()

    def use(self, identity: Identity) -> None:
        """Connect anew with another certificate of the same device.

        The session at the broker stays: what it holds for the device comes on the next
        connection, and what it has not acknowledged is sent again.
        """
        self._identity = identity
        self._anew.set()
        self._wake.set()

    def stop(self, timeout: float) -> None:
        """Have the broker publish the will, and leave."""
        self._stop.set()
        self._anew.set()
        client = self._client
        if client is not None:
            client.disconnect(ReasonCode(PacketTypes.DISCONNECT, identifier=_WITH_WILL))
        self._wake.set()
        if self._thread.ident is not None:  # the agent may end before it began to connect
            self._thread.join(timeout)

    def publish(self, leaf: Up, payload: str | bytes, *, qos: Literal[0, 1] = 1) -> Ticket | None:
        """Send; None when there is no connection."""
        session, client = self._session, self._client
        if client is None:
            return None
        info = client.publish(up(self._device, leaf), payload, qos=qos)
        return (session, info.mid) if info.rc == mqtt.MQTT_ERR_SUCCESS else None

    def listen(self, sha256: str | None) -> None:
        """Hear the broadcast of a file, on this connection and the next ones; None: of none."""
        before, self._broadcast = self._broadcast, None if sha256 is None else broadcast(sha256)
        client, wanted = self._client, self._broadcast
        self._tap.listen({self._chunks} if wanted is None else {self._chunks, wanted})
        if client is not None and wanted != before:
            if before is not None:
                client.unsubscribe(before)
            if wanted is not None:
                client.subscribe(wanted, qos=0)

    def announce(self) -> None:
        """Publish the birth message, which expires when heartbeats stop."""
        client = self._client
        if client is not None:
            self._send_birth(client, self._session)

    @property
    def alive(self) -> bool:
        """Whether the thread that keeps the connection up is running."""
        return self._thread.is_alive()

    def _run(self) -> None:
        attempt = 0
        while not self._stop.is_set():
            began = time.monotonic()
            self._anew.clear()
            ended = _Ended()
            try:
                self._connection(self._identity, ended)
            except (OSError, ValueError) as error:
                ended.reason = plain(error)
                ended.refusal = of_tls(error) if isinstance(error, ssl.SSLError) else None
            except Exception as error:  # the thread must outlive any fault of the library
                log.exception("connection ended by a fault")
                ended.reason = f"{type(error).__name__}: {error}"
            self._client = None
            if self._stop.is_set():
                return
            self._emit(Disconnected(self._why(ended), ended.refusal))
            attempt = 0 if time.monotonic() - began > STEADY_SECONDS else attempt + 1
            refused = ended.refusal is not None
            delay = backoff(attempt, random.random(), refused=refused)  # noqa: S311 - spreads load
            if self._anew.wait(delay):
                attempt = 0

    @property
    def _leaving(self) -> bool:
        return self._anew.is_set() or self._stop.is_set()

    def _why(self, ended: _Ended) -> str:
        if ended.refusal is not None:
            return in_words(ended.refusal, self._device)
        return ended.reason or "stopped"

    def _connection(self, identity: Identity, ended: _Ended) -> None:
        """Make one connection and keep it, until it has ended."""
        self._session += 1
        client = self._new_client(identity, self._session, ended)
        broker = identity.record.broker
        client.connect(
            broker.host,
            broker.port,
            keepalive=KEEPALIVE_SECONDS,
            clean_start=False,
            properties=connect_properties(),
        )
        client.loop_start()
        deadline = time.monotonic() + CONNACK_SECONDS
        while ended.reason is None and not self._leaving:
            self._wake.wait(1.0)
            self._wake.clear()
            if ended.network is None and time.monotonic() > deadline:
                ended.reason = "the broker did not answer"
            if ended.network is not None and not ended.network.is_alive():
                ended.reason = ended.reason or "the network thread ended"
        if self._leaving:
            self._leave(client, ended)
        self._client = None
        client.on_disconnect = None
        client.disconnect()
        if ended.network is None and ended.refusal is None and not self._leaving:
            # It hung up before it answered: perhaps TLS has said why.
            ended.refusal = ask_why(broker.host, broker.port, tls_of(identity))

    def _leave(self, client: mqtt.Client, ended: _Ended) -> None:
        """Let what is queued go out before the connection ends. ``stop`` has said goodbye."""
        if not self._stop.is_set():
            client.disconnect()
        self._linger(ended)
        if not self._stop.is_set():
            ended.reason = "connecting with another certificate"

    def _linger(self, ended: _Ended) -> None:
        """Let what is queued go out before the process ends."""
        deadline = time.monotonic() + 1.0
        while ended.reason is None and time.monotonic() < deadline:
            self._wake.wait(0.05)

    def _new_client(self, identity: Identity, session: int, ended: _Ended) -> mqtt.Client:
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._device,
            protocol=mqtt.MQTTv5,
            reconnect_on_failure=False,
        )
        client.suppress_exceptions = True
        client.tls_set_context(tapped(tls_of(identity), self._tap))
        will = Death(boot=self._boot, session=session)
        client.will_set(up(self._device, Up.DEATH), will.model_dump_json(), qos=1)
        client.on_socket_open = no_delay

        def on_connect(_c: Any, _u: Any, _f: Any, code: ReasonCode, _p: Any) -> None:
            ended.network = threading.current_thread()
            if code.is_failure:
                ended.reason = f"the broker refused the connection: {code}"
                ended.refusal = of_connack(code.value)
            else:
                client.subscribe(down_filter(self._device), qos=1)
                if self._broadcast is not None:
                    client.subscribe(self._broadcast, qos=0)
                self._client, self._seen = client, identity.seen
                self._send_birth(client, session)
                self._emit(Connected(session, identity.seen.serial))
            self._wake.set()

        def on_disconnect(_c: Any, _u: Any, _f: Any, code: ReasonCode, _p: Any) -> None:
            self._client = None
            ended.reason = ended.reason or f"connection lost: {code}"
            self._wake.set()

        def on_message(_c: Any, _u: Any, message: mqtt.MQTTMessage) -> None:
            topic = parse_down(message.topic)
            if topic is not None and topic.device == self._device:
                if topic.leaf is Down.CHUNK:
                    self._chunk(message.topic, memoryview(message.payload))
                else:
                    self._emit(Received(topic.leaf, bytes(message.payload)))
            elif parse_broadcast(message.topic) and message.topic != self._broadcast:
                # A run was killed while it listened, and the broker has kept its session.
                log.info("leaving %s, to which nothing listens any more", message.topic)
                client.unsubscribe(message.topic)

        def on_publish(_c: Any, _u: Any, mid: int, code: ReasonCode, _p: Any) -> None:
            heard = code.value != _NO_SUBSCRIBERS
            self._emit(Acknowledged((session, mid), heard and not code.is_failure, heard))

        client.on_connect = on_connect
        client.on_disconnect = on_disconnect
        client.on_message = on_message
        client.on_publish = on_publish
        return client

    def _send_birth(self, client: mqtt.Client, session: int) -> None:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho's own
        heartbeat = self._identity.record.heartbeat_seconds
        properties.MessageExpiryInterval = max(1, int(3 * heartbeat))
        birth = self._birth(session).model_copy(update={"certificate": self._seen})
        body = birth.model_dump_json(exclude_none=True)
        client.publish(up(self._device, Up.BIRTH), body, qos=1, retain=True, properties=properties)

    def _chunk(self, topic: str, payload: memoryview) -> None:
        try:
            self._inlet.take(payload, broadcast=topic != self._chunks)
        except Exception:  # likewise: the library's loop would end
            log.exception("a chunk could not be taken")

    def _emit(self, event: TransportEvent) -> None:
        try:
            self._on_event(event)
        except Exception:  # a fault in a handler must not end the network thread
            log.exception("an event could not be handled")


@dataclass(slots=True)
class _Ended:
    """How a connection is doing. network: the library's thread, once it answered."""

    reason: str | None = None
    refusal: Refusal | None = None
    network: threading.Thread | None = None
