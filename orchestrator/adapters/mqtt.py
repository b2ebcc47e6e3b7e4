"""The gateway: the orchestrator's connection to the broker for everything but chunks.

Four threads: paho's reads the network and only ever queues; the writer commits messages in
batches and acknowledges them after the commit, so an acknowledged message is in the database;
the answerer answers questions, and paho's own thread what time it is; the renewer answers
requests for certificates. Requests for chunks come to ``transfer_line``.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from orchestrator.adapters.answer_desk import AnswerDesk, Question
from orchestrator.adapters.broker import Gateway
from orchestrator.adapters.committer import MAX_UNACKED, Committer, Handle
from orchestrator.adapters.downlink import BrokerDownlink
from orchestrator.adapters.intake import Intake
from orchestrator.adapters.mqtt_client import make_client
from orchestrator.adapters.renewal_desk import Answer, RenewalDesk
from orchestrator.services.inbox import UpMessage
from orchestrator.services.transfer import TransferService
from schemas.clock import TimeAsk, TimeReply
from schemas.enroll import RenewAsk
from schemas.topics import ALL_UP, UP_OF_SERVER, Down, Up, UpTopic, down, parse_up
from schemas.transfer import Ask, Reply
from schemas.trust import MetadataAnswer, MetadataAsk

log = logging.getLogger(__name__)

CLIENT_ID = "argosy-gateway"
_SESSION_SECONDS = 7 * 86400
_INFLIGHT = 100
"""Messages that the broker has not answered yet; paho counts through them at each answer."""


class MqttGateway:
    """Connects, receives, answers.

    Args:
        address: the broker.
        transfer: answers what devices ask.
        admits: whether a device, by its id, is answered at all; asked by one thread.
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
        self._connection = 0
        self._stop = threading.Event()
        self._subscribed = threading.Event()
        self.downlink = BrokerDownlink(self._publish)
        self._admits = admits
        self._intake = Intake()
        self._committer = Committer(self._acknowledge, self._stop)
        self._renewals = RenewalDesk(renew, self.downlink.renewed)
        self._answers = AnswerDesk(self._answer, self._send_answer, self._stop)
        self._client = self._make_client()
        self._threads = [
            threading.Thread(target=self._guard, args=(work,), name=f"gateway {name}", daemon=True)
            for name, work in (
                ("writer", self._committer.write),
                ("answerer", self._answers.serve),
                ("renewer", self._renewals.serve),
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
        self._committer.handle = handle
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = _SESSION_SECONDS
        properties.ReceiveMaximum = MAX_UNACKED
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

    def tell(self, device: str, reply: Reply) -> None:
        """Send what a device did not ask for, unless too much waits."""
        with contextlib.suppress(queue.Full):
            self._answers.take(device, reply)

    def asking(self) -> Iterator[str]:
        """The devices that are answered next."""
        return self._answers.asking()

    def _make_client(self) -> paho.Client:
        client = make_client(self._address, CLIENT_ID, manual_ack=True)
        # Of paho's 20 a fleet that is to stop would wait for one round trip after the other.
        client.max_inflight_messages_set(_INFLIGHT)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        return client

    def _on_connect(self, client: paho.Client, *args: Any) -> None:
        reason = args[2]
        if reason.is_failure:
            log.error("the broker refuses the gateway: %s", reason)
            return
        self._connection += 1
        # A session of an older version may still have it, and would get all chunks' requests.
        client.unsubscribe(ALL_UP)
        client.subscribe([(one, 1) for one in UP_OF_SERVER])

    def _on_subscribe(self, *_args: Any) -> None:
        self._subscribed.set()
        log.info("connected to the broker at %s:%d", self._address.host, self._address.port)

    def _on_disconnect(self, *_args: Any) -> None:
        self._subscribed.clear()
        self.downlink.disconnected()
        self._answers.disconnected()
        if not self._stop.is_set():
            log.warning("lost the broker; connecting again")

    def _on_publish(self, _client: paho.Client, _data: object, mid: int, *_args: Any) -> None:
        self._answers.acknowledged(mid)
        self.downlink.acknowledged(mid)

    def _on_message(self, client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        # An exception here would end paho's thread and leave a deaf connection.
        topic = parse_up(message.topic)
        try:
            if topic is None or not self._intake.takes(topic, len(message.payload)):
                client.ack(message.mid, message.qos)
            elif topic.leaf is Up.TIME:
                client.ack(message.mid, message.qos)
                self._tell_time(topic.device, message.payload)
            elif topic.leaf in {Up.ASK, Up.META, Up.RENEW}:
                client.ack(message.mid, message.qos)
                self._ask(topic, message.payload)
            elif topic.leaf is Up.NEED:
                client.ack(message.mid, message.qos)  # from an older version's session
            else:
                payload, connection = bytes(message.payload), self._connection
                kept = UpMessage(topic, payload, message.retain, message.mid, connection)
                self._committer.keep(kept, message.qos)
        except queue.Full:
            # A request is made again; what was not acknowledged comes again.
            log.warning("too much waits: a message from %s was not taken", topic and topic.device)
        except ValueError as error:
            log.warning("malformed request from %s: %s", topic and topic.device, error)

    def _ask(self, topic: UpTopic, payload: bytes | bytearray) -> None:
        if topic.leaf is Up.RENEW:
            self._renewals.take(topic.device, RenewAsk.model_validate_json(payload))
            return
        question = Ask if topic.leaf is Up.ASK else MetadataAsk
        self._answers.take(topic.device, question.model_validate_json(payload))

    def _tell_time(self, device: str, payload: bytes | bytearray) -> None:
        # At once and from this thread: what waits would make the answer wrong.
        ask = TimeAsk.model_validate_json(payload)
        reply = TimeReply(id=ask.id, at=time.time())
        self._client.publish(down(device, Down.TIME), reply.model_dump_json().encode(), qos=0)

    def _answer(self, device: str, question: Question) -> Reply | MetadataAnswer | None:
        if not self._admits(device):
            return None
        if isinstance(question, Reply):
            return question
        if isinstance(question, MetadataAsk):
            return self._transfer.metadata(question)
        return self._transfer.reply(device, question)

    def _send_answer(self, topic: str, payload: bytes) -> int | None:
        return self._publish(topic, payload, False)  # noqa: FBT003 - retain

    def _acknowledge(self, message: UpMessage) -> None:
        # Ids belong to a connection: after a new one the broker sends it again.
        if message.mid and message.connection == self._connection:
            self._client.ack(message.mid, 1)

    def _guard(self, work: Callable[[], object]) -> None:
        while not self._stop.is_set():
            try:
                work()
            except Exception:
                log.exception("the gateway's %s failed; going on", work.__name__)
                self._stop.wait(1)

    def _publish(self, topic: str, payload: bytes, retain: bool) -> int | None:  # noqa: FBT001 - the Publish port
        if not self.connected:
            return None
        sent = self._client.publish(topic, payload, qos=1, retain=retain)
        return sent.mid if sent.rc == paho.MQTT_ERR_SUCCESS else None
