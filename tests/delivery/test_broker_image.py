"""orchestrator/mosquitto: the broker beside the orchestrator, run here without its container."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from paho.mqtt.enums import CallbackAPIVersion

from orchestrator.adapters import broker as embedded
from orchestrator.adapters.authority import CertificateAuthority, RevokedSerial
from orchestrator.home import Home
from orchestrator.settings import load
from schemas import topics
from schemas.ids import new_id

PASSWORD = "let the gateway in"
WAIT = 15.0


def _settings_of(text: str) -> set[str]:
    """The directives, without comments and without those that name paths or ports."""
    lines = {line.strip() for line in text.splitlines()}
    places = ("listener", "user", "persistence_location", "cafile", "certfile", "keyfile")
    more = ("crlfile", "acl_file", "password_file", "log_timestamp_format")
    return {x for x in lines if x and x[0] != "#" and x.split()[0] not in places + more}


def test_it_is_configured_as_the_embedded_broker_is(repo: Path, tmp_path: Path) -> None:
    gateway = embedded.Gateway("127.0.0.1", 20_000, "gateway", "x")
    own = embedded.configuration(load({}, home=tmp_path), Home(tmp_path), gateway, "me")
    ours = (repo / "orchestrator/mosquitto/mosquitto.conf").read_text()
    assert _settings_of(ours) == _settings_of(own)


def test_its_access_lists_are_those_of_the_embedded_broker(repo: Path) -> None:
    folder = repo / "orchestrator/mosquitto"
    assert (folder / "acl").read_text() == embedded.device_acl()
    assert (folder / "acl-gateway").read_text() == embedded.gateway_acl()


@dataclass
class Peer:
    """An MQTT client that keeps what it hears."""

    client: paho.Client
    heard: list[tuple[str, bytes]] = field(default_factory=list)
    arrived: threading.Condition = field(default_factory=threading.Condition)
    joined: threading.Event = field(default_factory=threading.Event)

    def hear(self, message: paho.MQTTMessage) -> None:
        with self.arrived:
            self.heard.append((message.topic, bytes(message.payload)))
            self.arrived.notify_all()

    def wait_for(self, topic: str) -> bytes:
        with self.arrived:
            found = self.arrived.wait_for(lambda: topic in dict(self.heard), WAIT)
        assert found, f"nothing on {topic}; heard {self.heard}"
        return dict(self.heard)[topic]


@contextmanager
def _peer(port: int, set_up: Callable[[paho.Client], None], subscribe: str) -> Iterator[Peer]:
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    peer = Peer(client)
    client.on_message = lambda _c, _d, message: peer.hear(message)
    client.on_subscribe = lambda *_args: peer.joined.set()
    client.on_connect = lambda c, *_args: c.subscribe(subscribe, qos=1)
    set_up(client)
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        assert peer.joined.wait(WAIT)
        yield peer
    finally:
        client.disconnect()
        client.loop_stop()


@dataclass(frozen=True)
class Broker:
    """A running broker and the authority whose certificates it accepts."""

    authority: CertificateAuthority
    ca: Path
    mtls: int
    plain: int
    folder: Path

    def device(self) -> tuple[str, str, Callable[[paho.Client], None]]:
        """A device's id, serial, and what makes a client that device."""
        name, key = new_id("dev"), ec.generate_private_key(ec.SECP256R1())
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        pem = request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        issued = self.authority.issue_device(pem.decode(), name, 1)
        chain, private = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        chain.write_text(issued.pem)
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return name, issued.serial, lambda client: client.tls_set(self.ca, chain, private)

    def handshake(self, set_up: Callable[[paho.Client], None]) -> bool:
        """Whether the broker takes a connection by that device."""
        client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        answers: list[Any] = []
        client.on_connect = lambda *args: answers.append(args[3])
        set_up(client)
        try:
            client.connect("127.0.0.1", self.mtls)
            deadline = time.monotonic() + WAIT
            while not answers and time.monotonic() < deadline:
                if client.loop(timeout=0.2) != paho.MQTT_ERR_SUCCESS:
                    return False
        except (ssl.SSLError, ConnectionError):
            return False
        client.disconnect()
        return bool(answers) and not answers[0].is_failure


@pytest.fixture
def broker(
    tmp_path: Path,
    run_broker: Callable[..., AbstractContextManager[None]],
    free_ports: Callable[[int], list[int]],
) -> Iterator[Broker]:
    mtls, plain = free_ports(2)
    certificates = tmp_path / "ca"
    authority = CertificateAuthority.open_or_create(certificates)

    def ready() -> object:
        return authority.ensure_server(("127.0.0.1",))

    with run_broker(certificates, mtls, plain, PASSWORD, ready):
        yield Broker(authority, certificates / "ca.pem", mtls, plain, tmp_path)


def _as_gateway(client: paho.Client) -> None:
    client.username_pw_set("gateway", PASSWORD)


@pytest.mark.integration
def test_devices_reach_the_gateway_and_only_their_own_topics(broker: Broker) -> None:
    one, _, as_one = broker.device()
    two, _, as_two = broker.device()
    with (
        _peer(broker.plain, _as_gateway, topics.ALL_UP) as gateway,
        _peer(broker.mtls, as_one, "d/#") as first,
        _peer(broker.mtls, as_two, "d/#") as second,
    ):
        first.client.publish(topics.up(two, topics.Up.EXEC), b"forged", qos=1)
        first.client.publish(topics.up(one, topics.Up.EXEC), b"mine", qos=1)
        assert gateway.wait_for(topics.up(one, topics.Up.EXEC)) == b"mine"
        gateway.client.publish(topics.down(one, topics.Down.CMD), b"for one", qos=1)
        gateway.client.publish(topics.down(two, topics.Down.CMD), b"for two", qos=1)
        assert first.wait_for(topics.down(one, topics.Down.CMD)) == b"for one"
        assert second.wait_for(topics.down(two, topics.Down.CMD)) == b"for two"
        assert dict(gateway.heard).keys() == {topics.up(one, topics.Up.EXEC)}
        assert dict(first.heard).keys() == {topics.down(one, topics.Down.CMD)}


@pytest.mark.integration
def test_a_new_revocation_list_is_taken_up_by_itself(broker: Broker) -> None:
    _, _, as_good = broker.device()
    _, serial, as_bad = broker.device()
    assert broker.handshake(as_bad)
    broker.authority.write_crl([RevokedSerial(serial, datetime.now(UTC))])
    deadline = time.monotonic() + WAIT
    while broker.handshake(as_bad):
        assert time.monotonic() < deadline, "the revoked device is still let in"
        time.sleep(0.2)
    assert broker.handshake(as_good)


@pytest.mark.integration
def test_a_wrong_password_is_refused(broker: Broker) -> None:
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    answers: list[Any] = []
    client.on_connect = lambda *args: answers.append(args[3])
    client.username_pw_set("gateway", "wrong")
    client.connect("127.0.0.1", broker.plain)
    deadline = time.monotonic() + WAIT
    while not answers and time.monotonic() < deadline:
        client.loop(timeout=0.2)
    assert answers[0].is_failure
