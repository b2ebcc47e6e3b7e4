"""The gateway on a real mosquitto: nothing acknowledged before it is stored, nothing lost."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import threading
import time

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from orchestrator.adapters import broker
from orchestrator.adapters.artifacts import ArtifactStore
from orchestrator.adapters.authority import CertificateAuthority
from orchestrator.adapters.mqtt import MqttGateway
from orchestrator.adapters.transfer_line import TransferLine
from orchestrator.errors import Unavailable
from orchestrator.home import Home
from orchestrator.services.admitted import Admitted
from orchestrator.services.chunks import ChunkService
from orchestrator.services.transfer import TransferService
from orchestrator.settings import load
from schemas.clock import TimeAsk, TimeReply
from schemas.enroll import RenewAsk, Renewed
from schemas.ids import new_id
from schemas.topics import Down, Up, down, up
from schemas.transfer import CHUNK_BYTES, Ask, Need, Reply, decode_chunk
from schemas.trust import MetadataAnswer, MetadataAsk

pytestmark = pytest.mark.integration

DEVICE = new_id("dev")
WAIT = 10


def until(what, seconds: float = WAIT):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.02)


class Inbox:
    """Stores what it is handed, unless it is told to fail."""

    def __init__(self) -> None:
        self.stored, self.tried, self.fail = [], 0, False

    def handle(self, batch) -> None:
        self.tried += len(batch)
        if self.fail:
            msg = "the database does not answer"
            raise Unavailable(msg)
        self.stored += [message.payload for message in batch]


class Registry:
    """Has every file for devices."""

    def serves(self, _sha256: str) -> bool:
        return True


class Metadata:
    """Has one metadata file."""

    def metadata(self, name: str) -> bytes | None:
        return b"{}" if name == "timestamp.json" else None


class Site:
    """A broker, an artifact store, and a client that may speak for any device."""

    def __init__(self, folder) -> None:
        self.home = Home(folder)
        self.home.prepare()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        settings = load({}, home=folder, mqtt_port=port)
        authority = CertificateAuthority.open_or_create(self.home.ca)
        authority.ensure_server(settings.names)
        self.address = broker.prepare(settings, self.home)
        self.artifacts = ArtifactStore(self.home.artifacts)
        self.broker = None
        self.shut_out = set()
        self.passed_over = []
        self.got = []
        self.device = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self.device.username_pw_set(self.address.username, self.address.password)
        self.device.on_message = lambda _c, _d, message: self.got.append(message)

    def start_broker(self) -> None:
        command = [broker.find_mosquitto(), "-c", self.home.broker / "mosquitto.conf"]
        self.broker = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        until(lambda: socket.socket().connect_ex((self.address.host, self.address.port)) == 0)

    def connect_device(self) -> None:
        self.device.connect(self.address.host, self.address.port)
        self.device.loop_start()
        until(self.device.is_connected)
        self.device.subscribe(down(DEVICE, Down.REPLY), qos=1)
        self.device.subscribe(down(DEVICE, Down.CHUNK), qos=0)
        self.device.subscribe(down(DEVICE, Down.RENEWED), qos=1)
        self.device.subscribe(down(DEVICE, Down.META), qos=1)
        self.device.subscribe(down(DEVICE, Down.TIME), qos=0)

    def gateway(self, inbox: Inbox) -> MqttGateway:
        made = MqttGateway(
            self.address,
            TransferService(Registry(), self.artifacts, Metadata()),
            self.admits,
            self.renew,
        )
        made.start(inbox.handle)
        until(lambda: made.connected)
        return made

    def line(self, rate: float | None = None) -> TransferLine:
        chunks = ChunkService(Registry().serves, self.artifacts)
        made = TransferLine(self.address, chunks, Admitted(self.admitted), rate=rate)
        made.start()
        until(lambda: made.connected)
        return made

    def ask(self, payload: bytes, leaf: Up = Up.ASK) -> None:
        self.device.publish(up(DEVICE, leaf), payload, qos=1)

    def put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self.artifacts.put([data], digest, len(data))
        return digest

    def admitted(self, devices) -> set[str]:
        return {device for device in devices if self.admits(device)}

    def admits(self, device: str) -> bool:
        if device in self.shut_out:
            self.passed_over.append(Up.ASK)
        return device not in self.shut_out

    def renew(self, device: str, ask: RenewAsk) -> Renewed | None:
        """The same answer whenever the same is asked, and none to whoever is shut out."""
        if device in self.shut_out:
            self.passed_over.append(Up.RENEW)
            return None
        return Renewed(csr_sha256=hashlib.sha256(ask.csr_pem.encode()).hexdigest())

    def tell(self, *texts: bytes) -> None:
        for text in texts:
            self.device.publish(up(DEVICE, Up.TELE), text, qos=1).wait_for_publish(WAIT)

    def close(self) -> None:
        self.device.disconnect()
        self.device.loop_stop()
        if self.broker is not None:
            self.broker.terminate()
            self.broker.wait(WAIT)


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    made.start_broker()
    made.connect_device()
    yield made
    made.close()


def times(site) -> list[bytes]:
    return [message.payload for message in site.got if message.topic == down(DEVICE, Down.TIME)]


def test_the_time_is_told_at_once_and_not_without_end(site):
    gateway = site.gateway(Inbox())
    before = time.time()
    site.device.publish(up(DEVICE, Up.TIME), TimeAsk(id=7).model_dump_json().encode())
    site.device.publish(up(DEVICE, Up.TIME), b"what time is it?")
    for number in range(200):
        site.device.publish(up(DEVICE, Up.TIME), TimeAsk(id=number).model_dump_json().encode())
    until(lambda: len(times(site)) >= 118)
    replies = [TimeReply.model_validate_json(text) for text in times(site)]
    assert replies[0].id == 7
    assert before <= replies[0].at <= time.time()
    assert len(replies) < 150, "one device asks for no more than its share"
    gateway.stop()


def test_what_comes_while_the_gateway_is_away_is_delivered_later(site):
    inbox = Inbox()
    site.gateway(inbox).stop()
    site.tell(*(b"%d" % i for i in range(20)))
    again = site.gateway(inbox)
    until(lambda: len(inbox.stored) == 20)
    assert inbox.stored == [b"%d" % i for i in range(20)]
    again.stop()


def test_what_was_not_stored_is_not_acknowledged_and_comes_again(site):
    failing = Inbox()
    failing.fail = True
    first = site.gateway(failing)
    site.tell(b"a", b"b", b"c")
    until(lambda: failing.tried >= 1)
    first.stop()
    assert failing.stored == []
    inbox = Inbox()
    second = site.gateway(inbox)
    until(lambda: len(inbox.stored) >= 3)
    assert sorted(set(inbox.stored)) == [b"a", b"b", b"c"]
    second.stop()


def test_a_database_that_comes_back_gets_everything_without_a_restart(site):
    inbox = Inbox()
    inbox.fail = True
    gateway = site.gateway(inbox)
    site.tell(b"a", b"b")
    until(lambda: inbox.tried >= 1)
    inbox.fail = False
    until(lambda: sorted(set(inbox.stored)) == [b"a", b"b"])
    gateway.stop()


def test_a_killed_broker_is_found_again_and_goes_on(site):
    inbox = Inbox()
    gateway = site.gateway(inbox)
    site.broker.kill()
    site.broker.wait()
    until(lambda: not gateway.connected)
    site.start_broker()
    until(lambda: gateway.connected and site.device.is_connected(), 20)
    site.tell(b"after")
    until(lambda: inbox.stored == [b"after"])
    assert gateway.downlink.desired(DEVICE, b"doc") is False
    until(lambda: gateway.downlink.desired(DEVICE, b"doc"))
    gateway.stop()


def test_chunks_come_in_order_and_whole(site):
    data = bytes(range(256)) * (256 * 300)
    digest = site.put(data)
    line = site.line()
    count = len(data) // CHUNK_BYTES
    for batch, start in enumerate(range(0, count, 60)):
        until(lambda start=start: len(site.got) >= start - 60)
        span = (start, min(start + 60, count))
        need = Need(kind="chunks", sha256=digest, batch=batch, ranges=(span,))
        site.ask(need.model_dump_json().encode(), Up.NEED)
    until(lambda: len(site.got) == count, 30)
    chunks = [decode_chunk(message.payload) for message in site.got]
    assert [chunk.index for chunk in chunks] == list(range(count))
    assert b"".join(chunk.data for chunk in chunks) == data
    line.stop()


def test_chunks_that_wait_at_the_stop_are_sent_yet(site):
    digest = site.put(bytes(60 * CHUNK_BYTES))
    line = site.line(rate=40 * CHUNK_BYTES)
    need = Need(kind="chunks", sha256=digest, ranges=((0, 25),))
    site.ask(need.model_dump_json().encode(), Up.NEED)
    until(lambda: site.got)
    line.stop()
    until(lambda: len(site.got) == 25)


def test_a_rate_holds_whatever_devices_ask_for(site):
    digest = site.put(bytes(64 * CHUNK_BYTES))
    line = site.line(rate=40 * CHUNK_BYTES)
    need = Need(kind="chunks", sha256=digest, ranges=((0, 64),)).model_dump_json().encode()
    started = time.monotonic()
    site.ask(need, Up.NEED)
    until(lambda: len(site.got) == 64)
    # 64 chunks, of which a tenth of a second's worth and the last portion go at once.
    assert time.monotonic() - started >= (64 - 4 - 4) / 40
    line.stop()


def test_what_cannot_be_had_is_refused_and_malformed_requests_do_no_harm(site):
    digest = site.put(b"small")
    line = site.line()
    for noise in (b"", b"{", b'{"kind":"chunks"}', b"\xff" * 1000):
        site.ask(noise, Up.NEED)
    for sha256, end in (("0" * 64, 1), (digest, 2)):
        need = Need(kind="chunks", sha256=sha256, ranges=((0, end),))
        site.ask(need.model_dump_json().encode(), Up.NEED)
    until(lambda: len(site.got) == 2)
    errors = [Reply.model_validate_json(message.payload).error for message in site.got]
    assert errors == ["no version that is not revoked has such a file", "the file has 1 chunks"]
    assert line.connected
    line.stop()


def test_a_killed_broker_is_found_again_by_the_transfer(site):
    digest = site.put(b"small")
    line = site.line()
    site.broker.kill()
    site.broker.wait()
    until(lambda: not line.connected)
    site.start_broker()
    until(lambda: line.connected and site.device.is_connected(), 20)
    site.device.subscribe(down(DEVICE, Down.CHUNK), qos=0)
    need = Need(kind="chunks", sha256=digest, ranges=((0, 1),)).model_dump_json().encode()
    site.ask(need, Up.NEED)
    until(lambda: site.got)
    line.stop()


def test_questions_are_answered_and_malformed_ones_do_no_harm(site):
    gateway = site.gateway(Inbox())
    for noise in (b"", b"{", b'{"kind":"leaves"}', b"\xff" * 1000):
        site.ask(noise)
    site.ask(Ask(kind="leaves", sha256="0" * 64).model_dump_json().encode())
    site.ask(Ask(kind="leaves", sha256=site.put(b"small")).model_dump_json().encode())
    until(lambda: len(site.got) == 2)
    missing, there = (Reply.model_validate_json(message.payload) for message in site.got)
    assert missing.error
    assert there.leaves == hashlib.sha256(b"small").hexdigest()
    assert gateway.connected
    gateway.stop()


def test_a_request_for_a_certificate_is_answered_each_time_and_a_malformed_one_does_no_harm(site):
    gateway = site.gateway(Inbox())
    for noise in (b"{", b'{"csr_pem":"' + b"x" * 9000 + b'"}'):
        site.device.publish(up(DEVICE, Up.RENEW), noise, qos=1)
    for count, text in enumerate(("a", "b", "b"), 1):
        ask = RenewAsk(csr_pem=text).model_dump_json().encode()
        site.device.publish(up(DEVICE, Up.RENEW), ask, qos=1)
        until(lambda count=count: len(site.got) == count)
    answers = [Renewed.model_validate_json(message.payload) for message in site.got]
    assert [one.csr_sha256 for one in answers] == [
        hashlib.sha256(text).hexdigest() for text in (b"a", b"b", b"b")
    ]
    gateway.stop()


def test_a_request_for_metadata_is_answered_also_when_there_is_none(site):
    gateway = site.gateway(Inbox())
    for count, name in enumerate(("timestamp.json", "9.root.json"), 1):
        ask = MetadataAsk(name=name).model_dump_json().encode()
        site.device.publish(up(DEVICE, Up.META), ask, qos=1)
        until(lambda count=count: len(site.got) == count)
    there, missing = (MetadataAnswer.model_validate_json(one.payload) for one in site.got)
    assert (there.name, there.text) == ("timestamp.json", "{}")
    assert (missing.name, missing.text, missing.error) == ("9.root.json", None, None)
    gateway.stop()


def test_who_is_shut_out_gets_no_answer_to_anything(site):
    gateway, line = site.gateway(Inbox()), site.line()
    site.shut_out.add(DEVICE)
    question = Ask(kind="leaves", sha256="0" * 64).model_dump_json().encode()
    need = Need(kind="chunks", sha256="0" * 64, ranges=((0, 1),)).model_dump_json().encode()
    site.ask(question)
    site.ask(RenewAsk(csr_pem="a").model_dump_json().encode(), Up.RENEW)
    until(lambda: sorted(site.passed_over) == [Up.ASK, Up.RENEW])
    site.ask(need, Up.NEED)
    until(lambda: len(site.passed_over) == 3)
    site.shut_out.clear()
    site.ask(question)
    until(lambda: site.got)
    assert [message.topic for message in site.got] == [down(DEVICE, Down.REPLY)]
    line.stop()
    gateway.stop()


def test_stopping_leaves_no_thread(site):
    before = set(threading.enumerate())
    gateway, line = site.gateway(Inbox()), site.line()
    assert len(set(threading.enumerate()) - before) == 5
    line.stop()
    gateway.stop()
    assert set(threading.enumerate()) - before == set()
