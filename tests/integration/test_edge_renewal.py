"""A real agent whose certificate is renewed, refused or revoked, before a real broker."""

from __future__ import annotations

import base64
import hashlib
import json
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import paho.mqtt.client as mqtt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from paho.mqtt.enums import CallbackAPIVersion

from edge_client.certificates import key_pem
from edge_client.identity import Identity, load_identity
from edge_client.settings import GIB, Home
from edge_client.slots import Slot, write_pointers
from edge_client.store import Store
from schemas.device import Birth
from schemas.enroll import RenewAsk, Renewed, RenewNow, RenewRequest, renewal_text
from schemas.errors import PROBLEM_TYPE, Code, Problem
from schemas.model import Manifest
from schemas.topics import ALL_UP, Down, Up, down, parse_up
from tests.fakes.edge_certificates import HOUR, answer_to, enrolled, now
from tests.fakes.edge_models import linear_onnx, pointing, release, samples
from tests.fakes.edge_trust import Signer
from tests.fakes.edge_windows import Told, told
from tests.fakes.gateway import Broker, Ca, Device, mosquitto_path, until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(mosquitto_path() is None, reason="mosquitto is not installed"),
]


OLD = release(linear_onnx(1))
STATUS = (sys.executable, "-m", "edge_client", "status", "--home")


class Platform:
    """Answers renewals, over MQTT and by HTTPS; ``issue`` makes the certificates."""

    def __init__(self, broker: Broker, folder) -> None:
        self.ca = broker.ca
        self.births: list[Birth] = []
        self.windows: list[Told] = []
        self.asked: list[str] = []
        self.requests: list[RenewRequest] = []
        self.issuer: Ca = self.ca
        self.roots = self.ca.pem
        self.refusal: Problem | None = None
        self.answering = True
        self._client = self._connect(broker)
        self._server = self._serve(folder)
        self.url = f"https://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        self._server.shutdown()
        self._server.server_close()

    def renewed(self, device: str, csr_pem: str) -> Renewed:
        return Renewed(
            csr_sha256=hashlib.sha256(csr_pem.encode()).hexdigest(),
            certificate_pem=answer_to(csr_pem, device, self.issuer).decode(),
            ca_pem=self.roots.decode(),
        )

    def renew_now(self, device: str) -> None:
        wish = RenewNow(within_seconds=0.2).model_dump_json()
        self._client.publish(down(device, Down.RENEW), wish, qos=1)

    def _connect(self, broker: Broker) -> mqtt.Client:
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="gateway", protocol=mqtt.MQTTv5)
        folder, ready = broker.folder, threading.Event()
        client.tls_set(f"{folder}/ca.pem", f"{folder}/gateway.pem", f"{folder}/gateway.key")
        client.reconnect_delay_set(1, 1)
        client.on_connect = lambda client, *_: client.subscribe(ALL_UP, qos=1)
        client.on_subscribe = lambda *_: ready.set()
        client.on_message = self._message
        client.connect("127.0.0.1", broker.port, keepalive=20)
        client.loop_start()
        assert ready.wait(10)
        return client

    def _message(self, client, _userdata, message) -> None:
        topic = parse_up(message.topic)
        if topic is None or not message.payload or message.retain:
            return
        if topic.leaf is Up.BIRTH:
            self.births.append(Birth.model_validate_json(message.payload))
        elif topic.leaf is Up.TELE:
            self.windows += told(topic.device, message.payload)
        elif topic.leaf is Up.RENEW:
            csr_pem = RenewAsk.model_validate_json(message.payload).csr_pem
            self.asked.append(csr_pem)
            if self.answering:
                answer = self.renewed(topic.device, csr_pem).model_dump_json()
                client.publish(down(topic.device, Down.RENEWED), answer, qos=1)

    def by_https(self, body: bytes) -> tuple[int, str, bytes]:
        request = RenewRequest.model_validate_json(body)
        self.requests.append(request)
        if self.refusal is not None:
            return self.refusal.status, PROBLEM_TYPE, self.refusal.model_dump_json().encode()
        old = x509.load_pem_x509_certificate(request.certificate_pem.encode())
        signed_at = request.model_dump(mode="json")["signed_at"]
        text = renewal_text(request.device, request.csr_pem, signed_at)
        proof = base64.b64decode(request.signature)
        old.public_key().verify(proof, text, ec.ECDSA(hashes.SHA256()))
        answer = self.renewed(request.device, request.csr_pem)
        return 200, "application/json", answer.model_dump_json().encode()

    def _serve(self, folder) -> ThreadingHTTPServer:
        platform = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/renew"
                body = self.rfile.read(int(self.headers["content-length"]))
                status, kind, answer = platform.by_https(body)
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_args) -> None:
                pass

        key = ec.generate_private_key(ec.SECP256R1())
        (folder / "s.key").write_bytes(key_pem(key))
        (folder / "s.pem").write_bytes(self.ca.issue("server", key.public_key(), server=True))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "s.pem", folder / "s.key")
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server


@pytest.fixture(scope="module")
def broker(tmp_path_factory) -> Iterator[Broker]:
    broker = Broker(tmp_path_factory.mktemp("broker"), Ca())
    broker.prepare()
    revoke(broker)
    with (broker.folder / "mosquitto.conf").open("a") as conf:
        conf.write(f"crlfile {broker.folder}/crl.pem\n")
    broker.start()
    yield broker
    broker.stop()


def revoke(broker: Broker, *serials: str) -> None:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(broker.ca.certificate.subject)
        .last_update(now() - HOUR)
        .next_update(now() + 24 * HOUR)
    )
    for serial in serials:
        entry = x509.RevokedCertificateBuilder(int(serial, 16), now() - HOUR).build()
        builder = builder.add_revoked_certificate(entry)
    crl = builder.sign(broker.ca.key, hashes.SHA256())
    temp = broker.folder / "crl.new"
    temp.write_bytes(crl.public_bytes(serialization.Encoding.PEM))
    temp.replace(broker.folder / "crl.pem")
    if broker.process is not None:
        broker.process.send_signal(signal.SIGHUP)


@pytest.fixture
def platform(broker, tmp_path) -> Iterator[Platform]:
    platform = Platform(broker, tmp_path)
    yield platform
    platform.close()


@pytest.fixture
def start(broker, platform, tmp_path) -> Iterator[Callable[..., Device]]:
    devices: list[Device] = []
    np.savez(tmp_path / "source.npz", x=samples(20))

    def start(**life) -> Device:
        home = Home(tmp_path / "home")
        root = Signer().root_json()
        identity = enrolled(
            home, broker.ca, port=broker.port, server=platform.url, root_json=root, **life
        )
        install(home)
        source = ("--source", str(tmp_path / "source.npz"), "--rate", "50")
        options = (*source, "--window", "0.3", "--no-bench")
        device = Device(home, identity.record.device, options)
        device.start()
        devices.append(device)
        return device

    yield start
    for device in devices:
        device.kill()


def install(home: Home) -> None:
    """Have the device serve a model already."""
    file = Manifest.model_validate_json(OLD.manifest).variants[0].file
    Store(home, GIB).save_manifest(OLD.sha256, OLD.manifest)
    (home.blobs / file.sha256).write_bytes(OLD.onnx)
    slot = Slot(
        model="digits",
        version=1,
        variant="fp32",
        sha256=file.sha256,
        manifest_sha256=OLD.sha256,
    )
    write_pointers(home.pointer, pointing(active=slot))


def live(device: Device) -> dict:
    """What the agent says of itself; empty until it does."""
    path = device.home.live
    return json.loads(path.read_text()) if path.exists() else {}


def settled(device: Device, before: Identity) -> Identity | None:
    identity = load_identity(device.home)
    fresh = identity.seen.serial != before.seen.serial
    return identity if fresh and not identity.unproven else None


def test_a_device_renews_over_mqtt_when_it_is_told_to_and_when_it_is_due(platform, start):
    device = start()
    first = load_identity(device.home)
    until(lambda: platform.births, "the first birth")
    assert platform.births[0].certificate == first.seen
    platform.renew_now(device.id)
    second = until(lambda: settled(device, first), "a new certificate")
    assert second.record.expires_at == second.life.end
    until(lambda: platform.births[-1].certificate == second.seen, "a birth with it")
    assert platform.births[-1].session == platform.births[0].session + 1
    until(lambda: not first.key.exists(), "the end of the old key")
    assert not device.home.renewal.exists()
    assert len(platform.asked) == 1
    sent = len(platform.windows)
    until(lambda: len(platform.windows) > sent, "telemetry over the new connection")
    device.terminate()
    numbers = sorted({window.seq for window in platform.windows})
    assert numbers == list(range(numbers[0], numbers[-1] + 1))  # none was lost by the change
    for secret in (first, second):
        assert "PRIVATE KEY" not in device.log(), secret


def test_what_is_due_is_renewed_and_a_question_that_was_cut_off_is_asked_again(platform, start):
    platform.answering = False
    device = start(start=now() - 20 * HOUR, end=now() + HOUR)
    first = load_identity(device.home)
    until(lambda: platform.asked, "a question")
    device.kill()
    platform.answering = True
    device.start()
    until(lambda: settled(device, first), "a new certificate")
    assert len(set(platform.asked)) == 1  # the same key, so that no answer is wasted


def test_an_expired_certificate_is_renewed_by_https_with_the_old_key(platform, start):
    device = start(start=now() - 20 * HOUR, end=now() - HOUR)
    first = load_identity(device.home)
    second = until(lambda: settled(device, first), "a new certificate")
    assert platform.requests
    assert platform.asked == []
    until(lambda: platform.births, "a birth")
    assert platform.births[-1].certificate == second.seen


def test_a_new_certificate_that_the_broker_refuses_is_left_for_the_old_one(platform, start):
    platform.issuer = Ca()
    platform.roots += platform.issuer.pem
    device = start()
    first = load_identity(device.home)
    until(lambda: platform.births, "the first birth")
    platform.renew_now(device.id)
    until(lambda: len(platform.births) > 1, "a birth after the fall-back")
    assert load_identity(device.home).seen == first.seen
    assert {birth.certificate for birth in platform.births} == {first.seen}
    assert "does not take the new certificate" in device.log()
    assert "back to the old" in until(lambda: live(device)["renewal_problem"], "the reason")


def test_a_revoked_device_says_so_and_goes_on(broker, platform, start):
    device = start()
    identity = load_identity(device.home)
    until(lambda: platform.births, "the first birth")
    device.kill()
    revoke(broker, identity.seen.serial)
    device.start()
    until(lambda: "has been revoked" in device.log(), "the reason in the log")
    until(lambda: live(device).get("refused") == "revoked", "its status")
    text = subprocess.run(
        [*STATUS, str(device.home.root)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    assert f"argosy token create --device {device.id}" in text
    assert platform.requests == []  # it does not ask for what it will not get
    before = live(device)["windows_waiting"]
    until(lambda: live(device)["windows_waiting"] > before, "inference that goes on")


def test_a_server_that_refuses_for_good_is_not_asked_again_soon(platform, start):
    detail = "the device has been revoked"
    platform.refusal = Problem(title="Revoked", status=403, code=Code.REVOKED, detail=detail)
    device = start(start=now() - 20 * HOUR, end=now() - HOUR)
    assert detail in until(lambda: live(device).get("renewal_problem"), "the reason")
    assert len(platform.requests) == 1
