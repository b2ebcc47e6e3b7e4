"""The gateway: the orchestrator's one connection to the broker.

Four threads: paho's reads the network and only ever queues; the writer commits
messages in batches and acknowledges them after the commit, so an acknowledged message
is in the database; the sender answers requests for metadata and, within a credit, chunks;
the renewer answers requests for certificates.
"""

from __future__ import annotations

import logging
import queue
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from orchestrator.adapters.broker import Gateway
from orchestrator.adapters.downlink import BrokerDownlink
from orchestrator.adapters.intake import Intake
from orchestrator.adapters.renewal_desk import Answer, RenewalDesk
from orchestrator.services.inbox import UpMessage
from orchestrator.services.transfer import TransferService
from schemas.enroll import RenewAsk
from schemas.topics import ALL_UP, Down, Up, UpTopic, down, parse_up
from schemas.transfer import Ask, Need, Reply
from schemas.trust import MetadataAnswer, MetadataAsk

log = logging.getLogger(__name__)

CLIENT_ID = "argosy-gateway"
_BATCH = 500
_BATCH_SECONDS = 0.05
_CREDIT_CHUNKS = 256
"""Chunks (16 MiB) handed to paho and not yet on the wire: its own queue has no bound."""
_MAX_NEEDS = 10_000
_MAX_INBOX = 50_000
_MAX_UNACKED = 10_000
"""Of the inbox: so many it keeps for what was sent at QoS 1, and more the broker does not send.
One that found no room would hold its place at the broker until the next connection."""
_SESSION_SECONDS = 7 * 86400
_CONNECT_SECONDS = 15.0


Handle = Callable[[Sequence[UpMessage]], None]
"""Commits a batch; it must not raise for a message that is merely malformed."""


class MqttGateway:
    """Connects, receives, answers.

    Args:
        address: the broker.
        transfer: answers what devices need.
        admits: whether a device, by its id, is answered at all.
        renew: answers requests for a new certificate.
    """

    def __init__(
        self,
        address: Gateway,
        transfer: TransferService,
        admits: Callable[[str], bool],
        renew: Answer,
    ) -> None:
        self._address = address
        self._transfer = transfer
        self._inbox: queue.Queue[UpMessage] = queue.Queue(_MAX_INBOX)
        self._connection = 0
        self._needs: queue.Queue[tuple[str, Ask | Need | MetadataAsk]] = queue.Queue(_MAX_NEEDS)
        self._credit = threading.BoundedSemaphore(_CREDIT_CHUNKS)
        self._chunk_mids: set[int] = set()
        self._mids_lock = threading.Lock()
        self._stop = threading.Event()
        self._subscribed = threading.Event()
        self.downlink = BrokerDownlink(self._publish)
        self._admits = admits
        self._intake = Intake()
        self._desk = RenewalDesk(renew, self.downlink.renewed)
        self._client = self._make_client()
        self._threads = [
            threading.Thread(target=self._guard, args=(work,), name=f"gateway {name}", daemon=True)
            for name, work in (
                ("writer", self._write),
                ("sender", self._send),
                ("renewer", self._desk.serve),
            )
        ]

    @property
    def connected(self) -> bool:
        """Whether devices are heard now."""
        return self._client.is_connected() and self._subscribed.is_set()

    def start(self, handle: Handle) -> None:
        """Connect in the background and go on connecting whenever the broker is lost.

        handle: takes batches of messages (births, deaths, reports, windows).
        """
        self._handle = handle
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = _SESSION_SECONDS
        properties.ReceiveMaximum = _MAX_UNACKED
        self._client.connect_async(
            self._address.host,
            self._address.port,
            keepalive=20,
            clean_start=False,
            properties=properties,
        )
        self._client.loop_start()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Disconnect; what was not acknowledged comes again at the next start."""
        self._stop.set()
        self._client.disconnect()
        self._client.loop_stop()
        for thread in self._threads:
            thread.join(timeout=2)

    def _make_client(self) -> paho.Client:
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=CLIENT_ID,
            protocol=paho.MQTTv5,
            manual_ack=True,
        )
        client.username_pw_set(self._address.username, self._address.password)
        if self._address.tls:
            client.tls_set(ca_certs=self._address.ca)
        client.reconnect_delay_set(min_delay=1, max_delay=5)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_socket_open = _no_delay
        return client

    def _on_connect(self, client: paho.Client, *args: Any) -> None:
        reason = args[2]
        if reason.is_failure:
            log.error("the broker refuses the gateway: %s", reason)
            return
        self._connection += 1
        client.subscribe(ALL_UP, qos=1)

    def _on_subscribe(self, *_args: Any) -> None:
        self._subscribed.set()
        log.info("connected to the broker at %s:%d", self._address.host, self._address.port)

    def _on_disconnect(self, *_args: Any) -> None:
        self._subscribed.clear()
        self.downlink.disconnected()
        with self._mids_lock:
            lost = len(self._chunk_mids)
            self._chunk_mids.clear()
        for _ in range(lost):
            self._credit.release()
        if not self._stop.is_set():
            log.warning("lost the broker; connecting again")

    def _on_publish(self, _client: paho.Client, _data: object, mid: int, *_args: Any) -> None:
        with self._mids_lock:
            chunk = mid in self._chunk_mids
            self._chunk_mids.discard(mid)
        if chunk:
            self._credit.release()
        else:
            self.downlink.acknowledged(mid)

    def _on_message(self, client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        # An exception here would end paho's thread and leave a deaf connection.
        try:
            topic = parse_up(message.topic)
            if topic is None or not self._intake.takes(topic, len(message.payload)):
                client.ack(message.mid, message.qos)
            elif topic.leaf is Up.NEED:
                client.ack(message.mid, message.qos)
                self._needs.put_nowait((topic.device, Need.model_validate_json(message.payload)))
            elif topic.leaf is Up.ASK:
                client.ack(message.mid, message.qos)
                self._needs.put_nowait((topic.device, Ask.model_validate_json(message.payload)))
            elif topic.leaf is Up.RENEW:
                client.ack(message.mid, message.qos)
                self._desk.take(topic.device, RenewAsk.model_validate_json(message.payload))
            elif topic.leaf is Up.META:
                client.ack(message.mid, message.qos)
                asked = topic.device, MetadataAsk.model_validate_json(message.payload)
                self._needs.put_nowait(asked)
            else:
                self._keep(topic, message)
        except queue.Full:
            # A request is made again; what was not acknowledged comes again.
            log.warning("too much waits: a message from %s was not taken", topic and topic.device)
        except ValueError as error:
            log.warning("malformed request from %s: %s", topic and topic.device, error)

    def _keep(self, topic: UpTopic, message: paho.MQTTMessage) -> None:
        if message.qos == 0 and self._inbox.qsize() >= _MAX_INBOX - _MAX_UNACKED:
            raise queue.Full
        payload, connection = bytes(message.payload), self._connection
        self._inbox.put_nowait(UpMessage(topic, payload, message.retain, message.mid, connection))

    def _guard(self, work: Callable[[], object]) -> None:
        while not self._stop.is_set():
            try:
                work()
            except Exception:
                log.exception("the gateway's %s failed; going on", work.__name__)
                self._stop.wait(1)

    def _write(self) -> None:
        while not self._stop.is_set():
            batch = self._next_batch()
            if batch:
                self._commit(batch)

    def _next_batch(self) -> list[UpMessage]:
        try:
            batch = [self._inbox.get(timeout=0.5)]
        except queue.Empty:
            return []
        deadline = time.monotonic() + _BATCH_SECONDS
        while len(batch) < _BATCH:
            try:
                batch.append(self._inbox.get(timeout=max(0, deadline - time.monotonic())))
            except queue.Empty:
                break
        return batch

    def _commit(self, batch: Sequence[UpMessage]) -> None:
        while not self._stop.is_set():
            try:
                self._handle(batch)
                break
            except Exception:
                # Not acknowledged, so nothing is lost: the broker has it, and so have we.
                log.exception("a batch of %d messages was not stored; trying again", len(batch))
                self._stop.wait(1)
        else:
            return
        for message in batch:
            # Ids belong to a connection: after a new one the broker sends it again.
            if message.mid and message.connection == self._connection:
                self._client.ack(message.mid, 1)

    def _send(self) -> None:
        while not self._stop.is_set():
            try:
                device, need = self._needs.get(timeout=0.5)
            except queue.Empty:
                continue
            if not self._admits(device):
                continue
            if isinstance(need, MetadataAsk):
                self._answer(device, Down.META, self._transfer.metadata(need))
                continue
            if isinstance(need, Ask):
                self._answer(device, Down.REPLY, self._transfer.answer(device, need))
                continue
            reply = self._transfer.reply(need)
            if reply is not None:
                self._answer(device, Down.REPLY, reply)
                continue
            for chunk in self._transfer.chunks(need):
                if not self._publish_chunk(device, chunk):
                    break

    def _answer(self, device: str, leaf: Down, answer: Reply | MetadataAnswer) -> None:
        payload = answer.model_dump_json(exclude_none=True).encode()
        self._publish(down(device, leaf), payload, False)  # noqa: FBT003 - retain

    def _publish_chunk(self, device: str, payload: bytes) -> bool:
        while not self._credit.acquire(timeout=0.5):
            if self._stop.is_set() or not self.connected:
                return False
        with self._mids_lock:
            # Held across publish(), or its callback could come before the id is noted.
            sent = self._client.publish(down(device, Down.CHUNK), payload, qos=0)
            ok = sent.rc == paho.MQTT_ERR_SUCCESS and not sent.is_published()
            if ok:
                self._chunk_mids.add(sent.mid)
        if not ok:
            self._credit.release()
        return sent.rc == paho.MQTT_ERR_SUCCESS

    def _publish(self, topic: str, payload: bytes, retain: bool) -> int | None:  # noqa: FBT001 - the Publish port
        if not self.connected:
            return None
        sent = self._client.publish(topic, payload, qos=1, retain=retain)
        return sent.mid if sent.rc == paho.MQTT_ERR_SUCCESS else None


def _no_delay(_client: paho.Client, _data: object, sock: Any) -> None:
    # Without it Nagle's algorithm holds small packets back: 2.7 times slower at QoS 1.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
