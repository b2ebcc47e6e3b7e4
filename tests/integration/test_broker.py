"""The generated configuration against a real mosquitto: who gets in, who hears what."""

from __future__ import annotations

import contextlib
import queue
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from orchestrator.adapters import broker
from orchestrator.adapters.authority import CertificateAuthority, Issued, RevokedSerial
from orchestrator.home import Home
from orchestrator.settings import LOOPBACK, Settings, load
from schemas.ids import new_id
from schemas.topics import Down, Up, down, down_filter, up

pytestmark = pytest.mark.integration

DEADLINE = 10.0
REFUSED_BY_TLS = -1


def until(condition: Callable[[], bool], what: str, seconds: float = DEADLINE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what}"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0


@dataclass
class Identity:
    device: str
    issued: Issued
    certificate: Path
    key: Path


class Platform:
    """A home with a CA, and mosquitto on it."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder)
        self.home.prepare()
        self.settings: Settings = load({}, home=folder, mqtt_port=free_port())
        self.ca = CertificateAuthority.open_or_create(self.home.ca)
        self.ca.ensure_server(self.settings.names)
        self.gateway = broker.prepare(self.settings, self.home)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        config = self.home.broker / "mosquitto.conf"
        with (self.home.logs / "broker.log").open("ab") as log:
            self.process = subprocess.Popen(
                [broker.find_mosquitto(), "-c", config], stdout=log, stderr=log
            )
        for port in (self.settings.mqtt_port, self.gateway.port):
            until(partial(listens, port), f"port {port}")

    def stop(self, with_signal: int = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(with_signal)
            self.process.wait(10)

    def enroll(self, ca: CertificateAuthority | None = None) -> Identity:
        device = new_id("dev")
        key = ec.generate_private_key(ec.SECP256R1())
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        pem = request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        issued = (ca or self.ca).issue_device(pem.decode(), device, 7)
        certificate, key_path = (self.home.path / f"{device}.{end}" for end in ("pem", "key"))
        certificate.write_text(issued.pem)
        key_path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return Identity(device, issued, certificate, key_path)

    def tls(self, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.home.ca_pem)
        if certificate is not None:
            context.load_cert_chain(certificate, key)
        return context

    def knock(self, identity: Identity | None) -> int:
        """The reason code of the answer to CONNECT, or REFUSED_BY_TLS."""
        context = self.tls(*((identity.certificate, identity.key) if identity else (None, None)))
        try:
            with (
                socket.create_connection((LOOPBACK, self.settings.mqtt_port), 5) as raw,
                context.wrap_socket(raw, server_hostname=LOOPBACK) as sock,
            ):
                return exchange(sock)
        except (ssl.SSLError, ConnectionError):
            return REFUSED_BY_TLS

    def knock_plain(self, username: str | None, password: str | None) -> int:
        with socket.create_connection((LOOPBACK, self.gateway.port), 5) as sock:
            return exchange(sock, username, password)

    @contextlib.contextmanager
    def server(self) -> Iterator[Client]:
        client = Client("server")
        client.paho.username_pw_set(self.gateway.username, self.gateway.password)
        with client.connected(self.gateway.port):
            yield client

    @contextlib.contextmanager
    def device(
        self, identity: Identity, *, client_id: str | None = None, session: int = 0
    ) -> Iterator[Client]:
        client = Client(client_id or identity.device)
        client.paho.tls_set_context(self.tls(identity.certificate, identity.key))
        with client.connected(self.settings.mqtt_port, session=session):
            yield client


def exchange(sock: socket.socket, username: str | None = None, password: str | None = None) -> int:
    flags = 0x02 | (0x80 if username is not None else 0) | (0x40 if password is not None else 0)
    fields = ["x", *(t for t in (username, password) if t is not None)]
    payload = b"".join(len(t.encode()).to_bytes(2, "big") + t.encode() for t in fields)
    body = b"\x00\x04MQTT\x05" + bytes([flags]) + b"\x00\x3c\x00" + payload
    sock.sendall(bytes([0x10, len(body)]) + body)
    answer = sock.recv(64)
    if not answer:
        return REFUSED_BY_TLS
    assert answer[0] == 0x20
    return answer[3]


class Client:
    """paho with what it received in a queue."""

    def __init__(self, client_id: str) -> None:
        self.paho = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv5
        )
        self.messages: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.subscribed: queue.Queue[int] = queue.Queue()
        self.paho.on_message = lambda _c, _u, m: self.messages.put((m.topic, bytes(m.payload)))
        self.paho.on_subscribe = lambda _c, _u, mid, _r, _p: self.subscribed.put(mid)
        self.drops = 0
        self.paho.on_disconnect = self._dropped

    def _dropped(self, *_args: Any) -> None:
        self.drops += 1

    @contextlib.contextmanager
    def connected(self, port: int, *, session: int = 0) -> Iterator[None]:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = session
        self.paho.connect(
            LOOPBACK, port, clean_start=session == 0, properties=properties, keepalive=30
        )
        self.paho.loop_start()
        try:
            until(self.paho.is_connected, "CONNACK")
            yield
        finally:
            self.paho.disconnect()
            self.paho.loop_stop()

    def subscribe(self, *filters: str) -> None:
        options = SubscribeOptions(qos=1)
        for name in filters:
            self.paho.subscribe(name, options=options)
        for _ in filters:
            self.subscribed.get(timeout=DEADLINE)

    def publish(self, topic: str, payload: bytes = b"x", *, retain: bool = False) -> None:
        self.paho.publish(topic, payload, qos=1, retain=retain).wait_for_publish(DEADLINE)

    def topics_until(self, last: str) -> list[str]:
        seen: list[str] = []
        while not seen or seen[-1] != last:
            seen.append(self.messages.get(timeout=DEADLINE)[0])
        return seen


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    made = Platform(tmp_path_factory.mktemp("broker") / "home with a space")
    made.start()
    yield made
    made.stop()


@pytest.fixture
def own_platform(tmp_path: Path) -> Iterator[Platform]:
    made = Platform(tmp_path)
    made.start()
    yield made
    made.stop()


def test_a_device_with_our_certificate_gets_in(platform: Platform) -> None:
    assert platform.knock(platform.enroll()) == 0


def test_nobody_gets_in_without_a_certificate(platform: Platform) -> None:
    assert platform.knock(None) == REFUSED_BY_TLS


def test_a_certificate_of_another_authority_is_refused(platform: Platform, tmp_path: Path) -> None:
    stranger = CertificateAuthority.open_or_create(tmp_path / "other")
    assert platform.knock(platform.enroll(stranger)) == REFUSED_BY_TLS


def test_the_servers_certificate_is_none_of_a_device(platform: Platform) -> None:
    device = platform.enroll()
    device.certificate, device.key = platform.home.server_pem, platform.home.server_key
    assert platform.knock(device) == REFUSED_BY_TLS


@pytest.mark.parametrize("password", [None, "", "wrong"])
def test_the_loopback_listener_wants_the_password(platform: Platform, password: str | None) -> None:
    assert platform.knock_plain("gateway", platform.gateway.password) == 0
    assert platform.knock_plain("gateway", password) > 0
    assert platform.knock_plain(None, None) > 0
    assert platform.knock_plain(platform.enroll().device, platform.gateway.password) > 0


def test_a_device_writes_its_own_up_topics_alone(platform: Platform) -> None:
    ours, theirs = platform.enroll(), platform.enroll()
    with platform.server() as server, platform.device(ours) as device:
        server.subscribe("#")
        device.publish(up(theirs.device, Up.TELE))
        device.publish(down(theirs.device, Down.DESIRED), retain=True)
        device.publish(down(ours.device, Down.DESIRED), retain=True)
        device.publish("m/shared/chunk")
        device.publish("elsewhere")
        last = up(ours.device, Up.TELE)
        device.publish(last)
        assert server.topics_until(last) == [last]


def test_a_device_hears_its_own_down_topics_alone(platform: Platform) -> None:
    ours, theirs = platform.enroll(), platform.enroll()
    with platform.server() as server, platform.device(ours) as device:
        device.subscribe(
            "#",
            "d/+/down/#",
            "d/+/up/#",
            down_filter(theirs.device),
            up(theirs.device, Up.TELE),
            down_filter(ours.device),
        )
        server.publish(down(theirs.device, Down.CMD))
        server.publish(down(theirs.device, Down.DESIRED), retain=True)
        server.publish(up(theirs.device, Up.TELE))
        last = down(ours.device, Down.CMD)
        server.publish(last)
        assert set(device.topics_until(last)) == {last}
    with platform.device(ours) as device:
        device.subscribe("d/+/down/#", down_filter(ours.device))
        with platform.server() as server:
            server.publish(last)
        assert set(device.topics_until(last)) == {last}, "no retained message of another device"


def test_using_anothers_client_id_does_not_drop_the_other(platform: Platform) -> None:
    ours, theirs = platform.enroll(), platform.enroll()
    with platform.device(theirs) as victim, platform.server() as server:
        victim.subscribe(down_filter(theirs.device))
        with (
            platform.device(ours, client_id=theirs.device),
            platform.device(ours, client_id="server"),
        ):
            last = down(theirs.device, Down.CMD)
            server.publish(last)
            assert victim.topics_until(last) == [last]
        assert victim.drops == server.drops == 0


def test_a_large_message_ends_the_connection_of_its_sender(platform: Platform) -> None:
    with platform.device(platform.enroll()) as device:
        device.paho.publish(up("dev_x", Up.TELE), b"x" * (1024 * 1024 + 1), qos=0)
        until(lambda: device.drops > 0, "the end of the connection")


def test_a_revoked_certificate_is_refused_after_a_reload(own_platform: Platform) -> None:
    revoked, kept = own_platform.enroll(), own_platform.enroll()
    assert own_platform.knock(revoked) == 0
    own_platform.ca.write_crl([RevokedSerial(revoked.issued.serial, datetime.now(UTC))])
    assert own_platform.process is not None
    own_platform.process.send_signal(signal.SIGHUP)
    until(lambda: own_platform.knock(revoked) == REFUSED_BY_TLS, "the revocation")
    assert own_platform.knock(kept) == 0


def test_a_killed_broker_keeps_what_it_had_saved(own_platform: Platform) -> None:
    identity = own_platform.enroll()
    with own_platform.device(identity, session=3600) as device:
        device.subscribe(down_filter(identity.device))
    desired, cmd = down(identity.device, Down.DESIRED), down(identity.device, Down.CMD)
    with own_platform.server() as server:
        server.publish(desired, b"retained-payload", retain=True)
        server.publish(cmd, b"queued-payload")
    saved = own_platform.home.broker / "data" / "mosquitto.db"
    until(
        lambda: saved.exists() and b"queued-payload" in saved.read_bytes(),
        "an autosave",
    )
    own_platform.stop(signal.SIGKILL)
    own_platform.start()
    with own_platform.device(identity, session=3600) as device:
        got = {device.messages.get(timeout=DEADLINE) for _ in range(2)}
    assert got == {(desired, b"retained-payload"), (cmd, b"queued-payload")}
    with own_platform.device(identity) as device:
        device.subscribe(down_filter(identity.device))
        assert device.messages.get(timeout=DEADLINE) == (desired, b"retained-payload")


def test_preparing_again_keeps_the_password_and_the_free_port(own_platform: Platform) -> None:
    before = own_platform.gateway
    taken = broker.prepare(own_platform.settings, own_platform.home)
    assert taken.password == before.password
    assert taken.port != before.port, "the running broker holds the old one"
    own_platform.stop()
    assert broker.prepare(own_platform.settings, own_platform.home) == taken
