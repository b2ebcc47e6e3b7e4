"""The connection over which chunks go: requests in, chunks out, on one thread.

It is a connection of its own, and without a session: when its process dies, the broker gives
the requests to the others at once, while a session that waits for its client would go on being
given its part. It has no thread of paho's: a chunk is written to the socket by the call that
makes it, and the next portion waits until it is on the wire. So nothing queues up, and no two
threads contend for each chunk.
"""

from __future__ import annotations

import logging
import random
import secrets
import select
import ssl
import threading
import time
from typing import Any

import paho.mqtt.client as paho
from pydantic import ValidationError

from orchestrator.adapters.broker import Gateway
from orchestrator.adapters.intake import Intake
from orchestrator.adapters.mqtt_client import make_client
from orchestrator.adapters.peers import BEAT_SECONDS, Peers
from orchestrator.adapters.sender import Sender
from orchestrator.services.admitted import Admitted
from orchestrator.services.broadcasting import BroadcastDesk
from orchestrator.services.chunks import ChunkService
from schemas.api import TransferProcess
from schemas.topics import ALL_DEATHS, PEERS, SHARED_NEEDS, Down, Up, down, parse_up
from schemas.transfer import Ask, Need, Reply

log = logging.getLogger(__name__)

MAX_NEED_BYTES = 8 * 1024
"""Of a request; one with 64 ranges has not a fifth of it."""

_KEEPALIVE = 20
_TICK_SECONDS = 0.25
_DRAIN_SECONDS = 1.0
_LOG_SECONDS = 60.0
_CONNECT_SECONDS = 10.0
_MAX_DELAY_SECONDS = 5.0


class TransferLine:
    """Answers requests for chunks, beside any number of others that do.

    Args:
        address: the broker.
        chunks: reads them.
        admitted: who is answered.
        broadcasts: rounds that this process sends.
        rate: bytes a second, to all devices together and by all such processes together.
    """

    def __init__(
        self,
        address: Gateway,
        chunks: ChunkService,
        admitted: Admitted,
        *,
        broadcasts: BroadcastDesk | None = None,
        rate: float | None = None,
    ) -> None:
        self._address = address
        self._rate = rate
        self._peers = Peers(secrets.token_hex(4))
        self._sender = Sender(chunks, admitted, self._publish, broadcasts=broadcasts, rate=rate)
        self._intake = Intake()
        self._client = self._make_client()
        self._subscribed = False
        self._busy_since: float | None = None
        self._logged = (time.monotonic(), 0, 0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="transfer", daemon=True)
        self.beats: tuple[TransferProcess, ...] = ()
        """How this process fares, and then the others that were heard of; a second old."""

    @property
    def connected(self) -> bool:
        """Whether requests are heard now."""
        return self._subscribed

    def start(self) -> None:
        """Connect in the background, and again whenever the broker is lost."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more requests, send what waits for a moment, and disconnect."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=_DRAIN_SECONDS + 2)

    def _make_client(self) -> paho.Client:
        client = make_client(self._address, f"argosy-transfer-{self._peers.name}")
        client.max_queued_messages_set(1000)
        client.connect_timeout = _CONNECT_SECONDS
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        return client

    def _run(self) -> None:
        delay = 0.0
        while not self._stop.is_set():
            self._client = self._make_client()
            try:
                self._client.connect(self._address.host, self._address.port, _KEEPALIVE)
                self._serve()
                if self._subscribed and self._stop.is_set():
                    self._drain()
            except (OSError, ValueError) as error:
                log.warning("the broker does not answer transfers: %s", error)
            except Exception:
                log.exception("the transfer failed; connecting again")
            delay = 1.0 if self._subscribed else min(delay + 1, _MAX_DELAY_SECONDS)
            self._end()
            self._stop.wait(delay + random.random())  # noqa: S311 - so that not all come at once

    def _serve(self) -> None:
        next_beat = 0.0
        poller, watched = select.poll(), None
        while not self._stop.is_set():
            now = time.monotonic()
            begins = self._sender.turns.chunks > 0 and self._busy_since is None
            if now >= next_beat or begins:
                next_beat = now + BEAT_SECONDS
                self._client.loop_misc()
                self._beat(now)
            sock = self._client.socket()
            if sock is None:
                return
            if sock is not watched:
                poller.register(sock, select.POLLIN)
                watched = sock
            if not self._once(poller, sock, now):
                return

    def _once(self, poller: select.poll, sock: Any, now: float) -> bool:
        """Read, write and send what can be; False when the connection is lost."""
        writing = self._client.want_write()
        wait = None if writing or not self._subscribed else self._sender.wait(now)
        timeout = _TICK_SECONDS if wait is None else min(wait, _TICK_SECONDS)
        # What TLS has decrypted already does not wake a poll.
        pending = isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
        poller.modify(sock, select.POLLIN | (select.POLLOUT if writing else 0))
        found = poller.poll(0 if pending else timeout * 1000)
        event = found[0][1] if found else 0
        if (event & ~select.POLLOUT or pending) and self._client.loop_read():
            return False
        if event & select.POLLOUT and self._client.loop_write():
            return False
        if self._subscribed and not self._client.want_write():
            self._sender.send(time.monotonic())
        return True

    def _drain(self) -> None:
        self._client.unsubscribe(SHARED_NEEDS)
        poller = select.poll()
        deadline = time.monotonic() + _DRAIN_SECONDS
        sock = self._client.socket()
        if sock is None:
            return
        poller.register(sock, select.POLLIN)
        while (now := time.monotonic()) < deadline:
            idle = not self._sender.turns.chunks and not self._client.want_write()
            if idle or not self._once(poller, sock, now):
                return

    def _end(self) -> None:
        lost = self._subscribed and not self._stop.is_set()
        self._subscribed = False
        self._client.disconnect()
        self._sender.lost()
        if lost:
            log.warning("lost the broker; connecting again")

    def _publish(self, topic: str, payload: bytes | bytearray, qos: int) -> bool:
        return self._client.publish(topic, payload, qos).rc == paho.MQTT_ERR_SUCCESS

    def _on_connect(self, client: paho.Client, *args: Any) -> None:
        reason = args[2]
        if reason.is_failure:
            log.error("the broker refuses transfers: %s", reason)
            return
        # At QoS 0: what is lost on the way here is asked for again, as a lost chunk is.
        client.subscribe([(SHARED_NEEDS, 0), (ALL_DEATHS, 0), (PEERS, 0)])

    def _on_subscribe(self, *_args: Any) -> None:
        self._subscribed = True
        log.info("answers requests for chunks as %s", self._peers.name)

    def _on_message(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        topic = parse_up(message.topic)
        if topic is None:
            now = time.monotonic()
            self._peers.heard(message.payload, now)
            self._take_share(now)
        elif topic.leaf is Up.DEATH:
            self._sender.left(topic.device)
        elif topic.leaf is Up.NEED and self._intake.takes(topic, len(message.payload)):
            if len(message.payload) > MAX_NEED_BYTES:
                log.warning("a request of %s is too long and dropped", topic.device)
                return
            self._take_need(topic.device, message.payload)

    def _take_need(self, device: str, payload: bytes | bytearray) -> None:
        try:
            self._sender.take(device, Need.model_validate_json(payload))
        except ValidationError as error:
            log.warning("malformed request from %s: %s", device, error.errors()[0]["msg"])
            if (refusal := refuse_old(payload)) is not None:
                body = refusal.model_dump_json(exclude_none=True).encode()
                self._publish(down(device, Down.REPLY), body, 1)

    def _beat(self, now: float) -> None:
        own = self._figures()
        self._busy_since = (self._busy_since or now) if own.busy else None
        self.beats = (own, *self._peers.beats(now))
        self._take_share(now)
        if self._subscribed:
            self._publish(self._peers.topic, own.model_dump_json().encode(), 0)
        self._log(own, now)

    def _take_share(self, now: float) -> None:
        self._sender.limit(self._peers.share(self._rate, now, self._busy_since), now)

    def _figures(self) -> TransferProcess:
        counters, turns = self._sender.counters, self._sender.turns
        before = self.beats[0] if self.beats else None
        sent = counters.unicast_bytes + counters.broadcast_bytes
        moved = before is not None and before.unicast_bytes + before.broadcast_bytes != sent
        return TransferProcess(
            name=self._peers.name,
            busy=moved or turns.chunks > 0,
            unicast_bytes=counters.unicast_bytes,
            broadcast_bytes=counters.broadcast_bytes,
            dropped_chunks=counters.dropped_chunks,
            waiting_chunks=turns.chunks,
            waiting_devices=turns.devices,
        )

    def _log(self, own: TransferProcess, now: float) -> None:
        at, unicast, broadcast = self._logged
        if now - at < _LOG_SECONDS:
            return
        self._logged = now, own.unicast_bytes, own.broadcast_bytes
        if (unicast, broadcast) != (own.unicast_bytes, own.broadcast_bytes):
            log.info(
                "in %.0f s: %.1f MB sent device by device, %.1f MB by broadcast; %d chunks wait "
                "for %d devices",
                now - at,
                (own.unicast_bytes - unicast) / 1e6,
                (own.broadcast_bytes - broadcast) / 1e6,
                own.waiting_chunks,
                own.waiting_devices,
            )


def refuse_old(payload: bytes | bytearray) -> Reply | None:
    """What an agent is told that asks for manifests and leaves here, as was done before ``Ask``.

    Without an answer it would ask for ever; after some of these its update fails, and says why.
    """
    try:
        asked = Ask.model_validate_json(payload)
    except ValidationError:
        return None
    why = "this server is newer than the device's agent: install a newer one on the device"
    return Reply(kind=asked.kind, sha256=asked.sha256, error=why)
