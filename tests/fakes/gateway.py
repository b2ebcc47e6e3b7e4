"""A broker with a throw-away CA, and a gateway that serves versions over real MQTT.

The broker is mosquitto with mutual TLS and the ACL of ``schemas.topics``; the gateway
can lose, damage and withhold chunks by seed. Devices are enrolled by writing an
identity straight into a home, or by the real command in the tests of enrollment.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge_client.identity import IdentityRecord, NewIdentity, save_identity
from edge_client.settings import Home
from schemas.clock import TimeAsk, TimeReply
from schemas.device import Birth, Death
from schemas.enroll import BrokerAddress
from schemas.ids import new_id
from schemas.measure import BenchReport
from schemas.rollout import Command, ExecReport, ExecState
from schemas.sample import Sample
from schemas.sample import decode as decode_sample
from schemas.topics import (
    ACL_DEVICE_READ,
    ACL_DEVICE_WRITES,
    ACL_SHARED_READ,
    ALL_UP,
    Down,
    Up,
    broadcast,
    down,
    parse_up,
)
from schemas.transfer import (
    CHUNK_BYTES,
    Ask,
    BroadcastOffer,
    Chunk,
    Need,
    PatchOffer,
    Reply,
    Way,
    chunk_count,
    encode_chunk,
    leaves_of,
    tag_of,
)
from schemas.trust import MetadataAnswer, MetadataAsk
from tests.fakes.edge_models import Release, blocks, model_file
from tests.fakes.edge_trust import Signer
from tests.fakes.edge_windows import Told, told

SECONDS = 60.0


def until(condition: Callable[[], object], what: str, seconds: float = SECONDS):
    """Poll a real process until something holds, and give it back."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what}"
        time.sleep(0.02)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


@dataclass
class Ca:
    """A certificate authority for one test session."""

    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    certificate: x509.Certificate = field(init=False)

    def __post_init__(self) -> None:
        self.certificate = self._build("test CA", self.key.public_key(), ca=True)

    @property
    def pem(self) -> bytes:
        return _pem(self.certificate)

    def issue(self, name: str, public_key, *, server: bool = False) -> bytes:
        return _pem(self._build(name, public_key, server=server))

    def _build(self, name: str, public_key, *, ca: bool = False, server: bool = False):
        now = dt.datetime.now(dt.UTC)
        issuer = name if ca else "test CA"
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=5))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
        )
        if server:
            names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())


def mosquitto_path() -> str | None:
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    return shutil.which("mosquitto", path=path)


@dataclass
class Broker:
    """A mosquitto of our own."""

    folder: Path
    ca: Ca
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        for name in ("server", "gateway"):
            key = ec.generate_private_key(ec.SECP256R1())
            (self.folder / f"{name}.key").write_bytes(key_pem(key))
            (self.folder / f"{name}.pem").write_bytes(
                self.ca.issue(name, key.public_key(), server=name == "server")
            )
        (self.folder / "ca.pem").write_bytes(self.ca.pem)
        (self.folder / "acl").write_text(
            "user gateway\ntopic readwrite #\n\n"
            + "".join(f"pattern write {one}\n" for one in ACL_DEVICE_WRITES)
            + f"pattern read {ACL_DEVICE_READ}\n"
            f"pattern read {ACL_SHARED_READ}\n"
        )
        user = "user root\n" if os.geteuid() == 0 else ""
        (self.folder / "mosquitto.conf").write_text(
            f"{user}per_listener_settings false\n"
            f"listener {self.port} 127.0.0.1\n"
            f"cafile {self.folder}/ca.pem\ncertfile {self.folder}/server.pem\n"
            f"keyfile {self.folder}/server.key\nrequire_certificate true\n"
            "use_identity_as_username true\nuse_username_as_clientid true\n"
            f"allow_anonymous false\nacl_file {self.folder}/acl\n"
            "set_tcp_nodelay true\nmax_inflight_messages 1000\nmax_queued_messages 100000\n"
            "max_packet_size 1048576\npersistence false\n"
        )

    def start(self) -> None:
        binary = mosquitto_path()
        assert binary is not None
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [binary, "-c", str(self.folder / "mosquitto.conf")],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        until(self.listens, "the broker")

    def listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@dataclass
class Faults:
    """What goes wrong, by seed. lose, damage, double: share of chunks. withhold: chunks from this
    count on are not sent until it is None again. delay: seconds before each chunk."""

    lose: float = 0.0
    damage: float = 0.0
    double: float = 0.0
    seed: int = 7
    withhold: int | None = None
    delay: float = 0.0


class Gateway:
    """The server's side, as far as devices see it."""

    def __init__(self, broker: Broker, signer: Signer) -> None:
        self.broker, self.signer = broker, signer
        self.faults = Faults()
        self.reports: list[ExecReport] = []
        self.windows: list[Told] = []
        self.samples: list[tuple[str, Sample]] = []
        self.ahead = 0.0
        self.benches: list[tuple[str, BenchReport]] = []
        self.births: list[Birth] = []
        self.deaths: list[Death] = []
        self.needs: list[Need] = []
        self.asks: list[Ask] = []
        self.patches: dict[str, PatchOffer] = {}
        self.patch_retries = 0
        self.broadcasts: BroadcastOffer | None = None
        self.broadcasted: list[int] = []
        self.sent: list[tuple[str, int]] = []
        self._random = random.Random(self.faults.seed)  # noqa: S311 - faults by seed
        self._manifests: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.silent = False
        self._files: dict[str, bytes] = {}
        self._stopped = threading.Event()
        self._client = self._connect()

    def add(self, release: Release, version: int = 1) -> None:
        self.signer.add(release.manifest, "digits", version)
        self._manifests[release.sha256] = release.manifest
        self._files |= release.files

    def misbehave(self, faults: Faults) -> None:
        self.faults = faults
        self._random = random.Random(faults.seed)  # noqa: S311 - likewise

    def offer(self, device: str, document: bytes) -> None:
        info = self._client.publish(down(device, Down.DESIRED), document, qos=1, retain=True)
        info.wait_for_publish(5)

    def cancel(self, device: str, execution: str, attempt: int = 1) -> None:
        command = Command(kind="cancel", execution=execution, attempt=attempt)
        self._client.publish(down(device, Down.CMD), command.model_dump_json(), qos=1)

    def send(self, device: str, leaf: Down, payload: bytes) -> None:
        self._client.publish(down(device, leaf), payload, qos=1)

    def states(self, execution: str) -> list[ExecState]:
        return [r.state for r in self.reports if r.execution == execution]

    def wait(self, execution: str, state: ExecState, seconds: float = SECONDS) -> ExecReport:
        def found() -> ExecReport | None:
            return next(
                (r for r in self.reports if r.execution == execution and r.state is state), None
            )

        return until(found, f"{state}; got {self.states(execution)}", seconds)

    def close(self) -> None:
        self._stopped.set()
        self._client.disconnect()
        self._client.loop_stop()

    def _connect(self) -> mqtt.Client:
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="gateway", protocol=mqtt.MQTTv5)
        folder = self.broker.folder
        client.tls_set(f"{folder}/ca.pem", f"{folder}/gateway.pem", f"{folder}/gateway.key")
        client.reconnect_delay_set(1, 1)
        ready = threading.Event()

        def on_connect(client, *_):
            client.subscribe(ALL_UP, qos=1)

        client.on_connect = on_connect
        client.on_subscribe = lambda *_: ready.set()
        client.on_message = self._message
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 600
        client.connect(
            "127.0.0.1", self.broker.port, keepalive=20, clean_start=False, properties=properties
        )
        client.loop_start()
        assert ready.wait(5)
        return client

    def _message(self, _client, _userdata, message) -> None:
        topic = parse_up(message.topic)
        if topic is None:
            return
        kinds: dict[Up, tuple[Any, list[Any]]] = {
            Up.EXEC: (ExecReport, self.reports),
            Up.BIRTH: (Birth, self.births),
            Up.DEATH: (Death, self.deaths),
        }
        if topic.leaf is Up.TIME:
            asked = TimeAsk.model_validate_json(message.payload)
            reply = TimeReply(id=asked.id, at=time.time() + self.ahead)
            self._client.publish(down(topic.device, Down.TIME), reply.model_dump_json())
        elif topic.leaf is Up.TELE:
            self.windows += told(topic.device, message.payload)
        elif topic.leaf is Up.SAMPLE:
            self.samples.append((topic.device, decode_sample(message.payload)))
        elif topic.leaf is Up.BENCH:
            report = BenchReport.model_validate_json(message.payload)
            self.benches.append((topic.device, report))
        elif topic.leaf is Up.META:
            self._tell(topic.device, MetadataAsk.model_validate_json(message.payload).name)
        elif topic.leaf is Up.ASK:
            ask = Ask.model_validate_json(message.payload)
            self.asks.append(ask)
            self._answer(topic.device, ask)
        elif topic.leaf is Up.NEED:
            need = Need.model_validate_json(message.payload)
            self.needs.append(need)
            self._send_chunks(topic.device, need)
        else:
            kind, kept = kinds[topic.leaf]
            kept.append(kind.model_validate_json(message.payload))

    def _tell(self, device: str, name: str) -> None:
        self.asked.append(name)
        if not self.silent:
            data = self.signer.files.get(name)
            answer = MetadataAnswer(name=name, text=None if data is None else data.decode())
            self._client.publish(down(device, Down.META), answer.model_dump_json(), qos=1)

    def _answer(self, device: str, ask: Ask) -> None:
        if ask.kind == "manifest":
            found = self._manifests.get(ask.sha256)
            reply = Reply(kind="manifest", sha256=ask.sha256, error="no such manifest")
            if found is not None:
                reply = Reply(kind="manifest", sha256=ask.sha256, manifest=found.decode())
        elif ask.sha256 not in self._files:
            reply = Reply(kind="leaves", sha256=ask.sha256, error="no such file")
        else:
            data = self._files[ask.sha256]
            leaves = b"".join(leaves_of(blocks(data))).hex()
            reply = Reply(kind="leaves", sha256=ask.sha256, leaves=leaves, size=len(data))
            reply = reply.model_copy(update=self._ways(ask))
        self._client.publish(down(device, Down.REPLY), reply.model_dump_json(), qos=1)

    def _ways(self, ask: Ask) -> dict[str, object]:
        """What is offered besides the pull."""
        offers: dict[str, object] = {}
        patch = self.patches.get(ask.sha256)
        if patch is not None and Way.PATCH in ask.takes and patch.base in ask.held:
            if self.patch_retries:
                self.patch_retries -= 1
                offers["retry_in"] = 0.2
            else:
                offers["patch"] = patch
        if self.broadcasts is not None and Way.BROADCAST in ask.takes:
            offers["broadcast"] = self.broadcasts
        return offers

    def patch(self, wanted: bytes, base: bytes, patch: bytes) -> None:
        """Offer a patch from one file to another."""
        file = model_file("patch", patch)
        self._files[file.sha256] = patch
        self.patches[hashlib.sha256(wanted).hexdigest()] = PatchOffer(
            base=hashlib.sha256(base).hexdigest(),
            sha256=file.sha256,
            size=file.size,
            leaves_sha256=file.leaves_sha256,
        )

    def tell_of_broadcast(self, device: str, sha256: str, offer: BroadcastOffer) -> None:
        """In the middle of a pull."""
        reply = Reply(kind="broadcast", sha256=sha256, broadcast=offer)
        self._client.publish(down(device, Down.REPLY), reply.model_dump_json(), qos=1)

    def broadcast(self, sha256: str, batch: int = 0, chunks: Iterable[int] | None = None) -> None:
        """Send a file's chunks to all who listen; lost and damaged as by ``faults``."""
        size = len(self._files[sha256])
        for index in range(chunk_count(size)) if chunks is None else chunks:
            self.broadcasted.append(index)
            for data in self._spoil(self._part(sha256, index)):
                chunk = Chunk(batch, index, tag_of(sha256), data)
                self._client.publish(broadcast(sha256), encode_chunk(chunk), qos=0)

    def _part(self, sha256: str, index: int) -> bytes:
        return self._files[sha256][index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]

    def _spoil(self, data: bytes) -> list[bytes]:
        """A chunk as often, and as sound, as it goes out."""
        if self._random.random() < self.faults.lose:
            return []
        if self._random.random() < self.faults.damage:
            data = bytes([data[0] ^ 0xFF]) + data[1:]
        return [data, data] if self._random.random() < self.faults.double else [data]

    def _send_chunks(self, device: str, need: Need) -> None:
        for first, last in need.ranges:
            for index in range(first, last):
                if self.faults.withhold is not None and len(self.sent) >= self.faults.withhold:
                    return
                if self.faults.delay:
                    self._stopped.wait(self.faults.delay)
                self.sent.append((need.sha256, index))
                for data in self._spoil(self._part(need.sha256, index)):
                    chunk = Chunk(need.batch, index, tag_of(need.sha256), data)
                    self._client.publish(down(device, Down.CHUNK), encode_chunk(chunk), qos=0)


def enrolled_home(
    folder: Path, ca: Ca, signer: Signer, port: int, *, heartbeat: float = 5.0
) -> tuple[Home, str]:
    """A home with an identity, as the enroll command leaves it."""
    device = new_id("dev")
    key = ec.generate_private_key(ec.SECP256R1())
    home = Home(folder)
    save_identity(
        home,
        NewIdentity(
            record=IdentityRecord(
                device=device,
                device_class="default",
                broker=BrokerAddress(host="127.0.0.1", port=port),
                heartbeat_seconds=heartbeat,
                server="http://127.0.0.1:1",
            ),
            key_pem=key_pem(key),
            certificate_pem=ca.issue(device, key.public_key()),
            ca_pem=ca.pem,
            root_json=signer.root_json(),
        ),
    )
    return home, device


@dataclass
class Device:
    """A device whose agent runs as a real process."""

    home: Home
    id: str
    options: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "edge_client", "run", "--home", str(self.home.root)]
        with (self.home.root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *self.options, *more], stdout=log, stderr=subprocess.STDOUT
            )
        return self.process

    def kill(self) -> None:
        """SIGKILL: nothing is saved, nobody is told."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
        if self.process is not None:
            self.process.wait(10)

    def terminate(self, seconds: float = 3.0) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def log(self) -> str:
        return (self.home.root / "log").read_text()
