"""What an attacker has: a site to attack, identities that were given out, and bare sockets."""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import paho.mqtt.client as mqtt
import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from orchestrator.adapters.broker import read_gateway
from orchestrator.home import Home
from schemas.device import Birth
from schemas.topics import Up, up
from tests.fakes.edge_models import linear_onnx, release

LOOPBACK = "127.0.0.1"
WAIT = 20.0
REFUSED = -1

HARDWARE = {
    "arch": "x86_64",
    "cpus": 2,
    "ram_mb": 1024,
    "providers": ["CPUExecutionProvider"],
    "ort": "1.20",
    "agent": "0.1.0",
}


def until(condition, what: str, seconds: float = WAIT):
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what}"
        time.sleep(0.03)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def csr(key: ec.EllipticCurvePrivateKey, name: str | None = None) -> str:
    names = [x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else []
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names))
    signed = builder.sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


@dataclass
class Identity:
    """A certificate and its key, as files."""

    device: str
    certificate: Path
    key: Path
    answer: dict[str, Any] = field(default_factory=dict)


@dataclass
class Site:
    """A platform in its own processes, without the training agent."""

    folder: Path
    port: int = field(default_factory=free_port)
    mqtt_port: int = field(default_factory=free_port)
    mark: str = field(default_factory=lambda: secrets.token_hex(8))
    process: subprocess.Popen | None = None

    @property
    def home(self) -> Home:
        return Home(self.folder / "home")

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def env(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("ARGOSY_")}
        return kept | {
            "ARGOSY_HOME": str(self.home.path),
            "ARGOSY_EMBEDDED_AGENT": "false",
            "ARGOSY_HEARTBEAT_SECONDS": "1",
            "ARGOSY_ATTACKED": self.mark,
            "NO_COLOR": "1",
        }

    def start(self) -> None:
        ports = ["--port", str(self.port), "--mqtt-port", str(self.mqtt_port)]
        log = (self.folder / "up.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.cli", "up", *ports],
            env=self.env,
            stdout=log,
            stderr=log,
        )
        until(self.healthy, "the platform", 60)

    def healthy(self) -> bool:
        assert self.process.poll() is None, (self.folder / "up.log").read_text()
        try:
            answer = httpx.get(f"{self.url}/v1/health", timeout=5, trust_env=False)
            return answer.status_code == 200 and answer.json()["ok"]
        except httpx.HTTPError:
            return False

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("ARGOSY_ATTACKED") == self.mark:
                    process.kill()

    def server(self) -> psutil.Process:
        """The server among the platform's processes."""
        (found,) = (
            child
            for child in psutil.Process(self.process.pid).children(recursive=True)
            if "orchestrator.server" in child.cmdline()
        )
        return found

    def run(self, module: str, *args: str, **more) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", module, *args]
        return subprocess.run(
            command, env=self.env, capture_output=True, text=True, timeout=60, check=False, **more
        )

    def http(self, token: str | None = None, *, source: str = LOOPBACK, **headers) -> httpx.Client:
        """A client. source: its own loopback address, so that its floods are its own."""
        shown = {"authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(
            base_url=self.url,
            headers=shown | headers,
            transport=httpx.HTTPTransport(local_address=source),
            timeout=30,
        )

    @property
    def admin_token(self) -> str:
        return self.home.credentials().token

    def join_token(self, **request) -> str:
        with self.http(self.admin_token) as admin:
            answer = admin.post("/v1/tokens", json=request)
        assert answer.status_code == 201, answer.text
        return answer.json()["token"]

    def ask(self, token: str, key, name: str | None = None, **more) -> httpx.Response:
        """The request of a device that wants to be let in."""
        body = {"token": token, "csr_pem": csr(key, name), "hardware": HARDWARE}
        with self.http() as anybody:
            return anybody.post("/v1/enroll", json=body | more)

    def enroll(self, token: str | None = None, key=None, name: str | None = None) -> Identity:
        key = key or new_key()
        answer = self.ask(token or self.join_token(), key, name)
        assert answer.status_code == 201, answer.text
        found = answer.json()
        return self.write(found["device"], found["certificate_pem"], key, found)

    def write(self, device: str, pem: str, key, answer=None) -> Identity:
        stem = self.folder / f"{device}-{secrets.token_hex(4)}"
        certificate, path = stem.with_suffix(".pem"), stem.with_suffix(".key")
        certificate.write_text(pem)
        path.write_bytes(key_pem(key))
        return Identity(device, certificate, path, answer or {})

    def register(self, name: str, seed: int = 1) -> int:
        """A genuine version of a model, registered; its number."""
        version = release(linear_onnx(seed), name=name)
        with self.http(self.admin_token) as admin:
            for sha256, data in version.files.items():
                assert admin.put(f"/v1/artifacts/{sha256}", content=data).status_code == 200
            made = admin.post(
                f"/v1/models/{name}/versions",
                content=version.manifest,
                headers={"content-type": "application/json"},
            )
        assert made.status_code in {200, 201}, made.text
        return made.json()["version"]

    def device(self, device: str) -> dict[str, Any]:
        with self.http(self.admin_token) as admin:
            answer = admin.get(f"/v1/devices/{device}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def tls(self, identity: Identity | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.home.ca_pem)
        if identity is not None:
            context.load_cert_chain(identity.certificate, identity.key)
        return context

    def knock(self, identity: Identity | None, *, client_id: str = "x") -> int:
        """The reason code that the devices' listener answers, or REFUSED."""
        try:
            with (
                socket.create_connection((LOOPBACK, self.mqtt_port), 5) as raw,
                self.tls(identity).wrap_socket(raw, server_hostname=LOOPBACK) as sock,
            ):
                return connect(sock, client_id=client_id)
        except (ssl.SSLError, ConnectionError):
            return REFUSED

    def knock_inside(self, username: str | None, password: str | None) -> int:
        """The same of the server's own listener."""
        address = read_gateway(self.home)
        with socket.create_connection((LOOPBACK, address.port), 5) as sock:
            return connect(sock, username, password)

    @contextlib.contextmanager
    def peer(
        self, identity: Identity, *, client_id: str | None = None, will=None
    ) -> Iterator[Peer]:
        peer = Peer(client_id or identity.device)
        peer.paho.tls_set_context(self.tls(identity))
        if will is not None:
            peer.paho.will_set(*will, qos=1)
        with peer.connected(self.mqtt_port):
            yield peer

    @contextlib.contextmanager
    def observer(self) -> Iterator[Peer]:
        """Who sees everything that the broker lets through, with the server's own rights."""
        address = read_gateway(self.home)
        peer = Peer(f"observer-{secrets.token_hex(4)}")
        peer.paho.username_pw_set(address.username, address.password)
        with peer.connected(address.port):
            yield peer


class Peer:
    """A client of the broker, and what it hears."""

    def __init__(self, client_id: str) -> None:
        self.paho = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=mqtt.MQTTv5,
            reconnect_on_failure=False,
        )
        self.heard: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self._subscribed: queue.Queue[int] = queue.Queue()
        self.paho.on_message = lambda _c, _u, m: self.heard.put((m.topic, bytes(m.payload)))
        self.paho.on_subscribe = lambda _c, _u, mid, _r, _p: self._subscribed.put(mid)
        self.paho.on_disconnect = self._dropped
        self.drops = 0

    def _dropped(self, *_: Any) -> None:
        self.drops += 1

    @contextlib.contextmanager
    def connected(self, port: int) -> Iterator[None]:
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 0
        self.paho.connect(LOOPBACK, port, clean_start=True, properties=properties, keepalive=30)
        self.paho.loop_start()
        try:
            until(self.paho.is_connected, "CONNACK")
            yield
        finally:
            self.paho.disconnect()
            self.paho.loop_stop()

    def subscribe(self, *filters: str) -> None:
        for name in filters:
            self.paho.subscribe(name, qos=1)
        for _ in filters:
            self._subscribed.get(timeout=WAIT)

    def publish(self, topic: str, payload: bytes | str = b"x", *, retain: bool = False) -> None:
        sent = self.paho.publish(topic, payload, qos=1, retain=retain)
        sent.wait_for_publish(WAIT)
        assert sent.is_published(), topic

    def until(self, last: str) -> list[str]:
        """The topics that are heard up to ``last``: the broker keeps their order."""
        seen: list[str] = []
        while not seen or seen[-1] != last:
            seen.append(self.heard.get(timeout=WAIT)[0])
        return seen

    def vanish(self) -> None:
        """Go without a word, so that the will is published."""
        self.paho.socket().shutdown(socket.SHUT_RDWR)


def birth(session: int = 1, boot: str = "a" * 32) -> str:
    """A birth message."""
    return Birth(boot=boot, session=session, uptime=1, hardware=HARDWARE).model_dump_json()


def be_born(site: Site, peer: Peer, device: str) -> None:
    """Say that a device is there, until the platform has heard it."""
    peer.publish(up(device, Up.BIRTH), birth(), retain=True)
    until(lambda: site.device(device)["presence"] == "ONLINE", "the birth")


def connect(
    sock: socket.socket,
    username: str | None = None,
    password: str | None = None,
    *,
    client_id: str = "x",
) -> int:
    """A CONNECT of MQTT 5 by hand; the reason code of the answer."""
    flags = 0x02 | (0x80 if username is not None else 0) | (0x40 if password is not None else 0)
    fields = [client_id, *(text for text in (username, password) if text is not None)]
    payload = b"".join(len(t.encode()).to_bytes(2, "big") + t.encode() for t in fields)
    body = b"\x00\x04MQTT\x05" + bytes([flags]) + b"\x00\x3c\x00" + payload
    sock.sendall(bytes([0x10, len(body)]) + body)
    answer = sock.recv(64)
    return answer[3] if len(answer) > 3 and answer[0] == 0x20 else REFUSED
