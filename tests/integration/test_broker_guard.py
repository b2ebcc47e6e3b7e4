"""Revocation and rotation against a real mosquitto under a real supervisor."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from paho.mqtt.enums import CallbackAPIVersion

from orchestrator import supervisor
from orchestrator.adapters import broker
from orchestrator.adapters.authority import CertificateAuthority, Issued, open_authority
from orchestrator.adapters.authority.generations import key_pem
from orchestrator.adapters.broker_guard import BrokerGuard
from orchestrator.adapters.database import migrate
from orchestrator.adapters.process_tree import StopSignal, Supervisor
from orchestrator.adapters.unit_of_work import SqlUnitOfWork, make_engine
from orchestrator.control_loop import ControlLoop
from orchestrator.domain.gate import Verdict
from orchestrator.home import Home
from orchestrator.services.admission import AdmissionService
from orchestrator.services.authority import AuthorityService
from orchestrator.services.records import CertificateRecord, DeviceRecord
from orchestrator.services.shutting_out import ShuttingOut
from orchestrator.settings import LOOPBACK, load
from schemas.device import CertificateSeen, DeviceState, Presence
from schemas.enroll import RenewNow
from schemas.ids import new_id
from schemas.topics import Down, down, down_filter

pytestmark = pytest.mark.integration

DEADLINE = 15.0
PEM = serialization.Encoding.PEM


def until(condition: Callable[[], bool], what: str, seconds: float = DEADLINE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what}"
        time.sleep(0.01)


def now() -> datetime:
    return datetime.now(UTC)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


@dataclass
class Identity:
    """A device with what it knows: ca is the PEM file that it trusts."""

    id: str
    issued: Issued
    file: Path
    ca: Path


class Device:
    """A connected device; paho connects again by itself."""

    def __init__(self, port: int, identity: Identity) -> None:
        self.identity = identity
        self.drops: list[float] = []
        self.accepted = 0
        self.messages: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.paho = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=identity.id, protocol=mqtt.MQTTv5
        )
        context = ssl.create_default_context(cafile=identity.ca)
        context.load_cert_chain(identity.file)
        self.paho.tls_set_context(context)
        self.paho.reconnect_delay_set(1, 1)
        self.paho.on_message = lambda _c, _u, m: self.messages.put((m.topic, bytes(m.payload)))
        self.paho.on_disconnect = lambda *_: self.drops.append(time.monotonic())
        self.paho.on_connect = self._connected
        self.subscribed = threading.Event()
        self.paho.on_subscribe = lambda *_: self.subscribed.set()
        self.paho.connect(LOOPBACK, port, keepalive=30)
        self.paho.loop_start()

    def _connected(self, client: mqtt.Client, *args: Any) -> None:
        if not args[2].is_failure:
            self.accepted += 1
            client.subscribe(down_filter(self.identity.id), qos=1)


class World:
    """A home, its broker under a supervisor, and the loop that guards it."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder)
        self.home.prepare()
        self.settings = load({}, home=folder, mqtt_port=free_port(), embedded_agent="false")
        self.ca: CertificateAuthority = open_authority(self.home.ca)
        self.ca.ensure_server(self.settings.names)
        self.gateway = broker.prepare(self.settings, self.home)
        engine = make_engine(self.settings.database)
        migrate(engine)
        self.uow = SqlUnitOfWork(engine)
        self.admission = AdmissionService(self.uow, now)
        self.asked: list[tuple[str, RenewNow]] = []
        self.start_guard()
        self.stop_signal = StopSignal()
        children = [c for c in supervisor.children(self.settings, self.home) if c.name == "broker"]
        env = {**os.environ, **self.settings.to_env()}
        self.tree = Supervisor(
            children, logs=self.home.logs, env=env, mark=new_id("dev"), stop=self.stop_signal
        )
        self.thread = threading.Thread(target=self.tree.run)
        self.thread.start()

    def start_guard(self) -> None:
        """As a start of the server does it."""
        self.guard = BrokerGuard(self.home, self.settings, self.gateway, self.ca)
        self.shutting_out = ShuttingOut(self.uow, now, self.guard)
        self.authority = AuthorityService(
            self.uow,
            now,
            self.ca,
            self.shutting_out,
            embedded=True,
            renew_now=lambda device, ask: self.asked.append((device, ask)),
        )
        tasks = {"revocation": self.shutting_out.tick, "rotation": self.authority.tick}
        self.loop = ControlLoop(tasks, 0.02)
        self.loop.start()

    def stop(self) -> None:
        self.loop.stop()
        self.stop_signal.request()
        self.thread.join(15)

    def mosquitto(self) -> psutil.Process:
        conf = str(self.home.broker / "mosquitto.conf")
        return next(p for p in psutil.process_iter() if _runs(p, conf))

    def identity(self, *, seconds: float | None = None) -> Identity:
        """A device that was enrolled just now."""
        device, key = new_id("dev"), ec.generate_private_key(ec.SECP256R1())
        ca = self.ca
        if seconds is not None:
            # As the authority would have issued it a day ago, but for some seconds.
            back = now() - timedelta(days=1) + timedelta(seconds=seconds)
            ca = CertificateAuthority.open(self.home.ca, clock=lambda: back)
        issued = ca.issue_device(csr_of(key), device, 1 if seconds is not None else 7)
        file, known = self.home.path / f"{device}.pem", self.home.path / f"{device}.ca.pem"
        file.write_bytes(issued.pem.encode() + key_pem(key))
        known.write_text(self.ca.pem)
        with self.uow() as tx:
            tx.devices.add(
                DeviceRecord(
                    id=device,
                    device_class="default",
                    tags=(),
                    state=DeviceState.ACTIVE,
                    presence=Presence.ONLINE,
                    boot="b" * 32,
                    token_id="tok_x",
                    certificate_serial=issued.serial,
                    certificate_expires_at=issued.expires,
                    seen_certificate=CertificateSeen(
                        serial=issued.serial, roots=tuple(r.sha256 for r in self.ca.roots())
                    ),
                    spki_sha256=issued.spki_sha256,
                    enrolled_at=now(),
                )
            )
            tx.devices.add_certificate(
                CertificateRecord(
                    serial=issued.serial,
                    device_id=device,
                    spki_sha256=issued.spki_sha256,
                    csr_sha256="0" * 64,
                    root_sha256=issued.root_sha256,
                    pem=issued.pem,
                    issued_at=now(),
                    expires_at=issued.expires,
                )
            )
        return Identity(device, issued, file, known)

    @contextlib.contextmanager
    def connected(self, *identities: Identity) -> Iterator[list[Device]]:
        devices = [Device(self.settings.mqtt_port, identity) for identity in identities]
        try:
            for device in devices:
                assert device.subscribed.wait(DEADLINE), "a device was not let in"
            yield devices
        finally:
            for device in devices:
                device.paho.disconnect()
                device.paho.loop_stop()

    @contextlib.contextmanager
    def server(self) -> Iterator[mqtt.Client]:
        client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        client.username_pw_set(self.gateway.username, self.gateway.password)
        client.connect(LOOPBACK, self.gateway.port)
        client.loop_start()
        until(client.is_connected, "the gateway's connection")
        try:
            yield client
        finally:
            client.disconnect()
            client.loop_stop()

    def gets_in(self, identity: Identity, session: ssl.SSLSession | None = None) -> bool:
        return self.knock(identity, session)[0]

    def knock(
        self, identity: Identity, session: ssl.SSLSession | None = None
    ) -> tuple[bool, ssl.SSLSession | None, ssl.SSLContext]:
        """Whether it gets in; the TLS session by which it might again."""
        context = getattr(self, "_contexts", {}).get(identity.id)
        if context is None:
            context = ssl.create_default_context(cafile=identity.ca)
            context.load_cert_chain(identity.file)
            self._contexts = {**getattr(self, "_contexts", {}), identity.id: context}
        body = b"\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01x"
        try:
            with (
                socket.create_connection((LOOPBACK, self.settings.mqtt_port), 5) as raw,
                context.wrap_socket(raw, server_hostname=LOOPBACK, session=session) as sock,
            ):
                sock.sendall(bytes([0x10, len(body)]) + body)
                answer = sock.recv(64)
                return answer[:1] == b"\x20" and answer[3] == 0, sock.session, context
        except (ssl.SSLError, ConnectionError):
            return False, None, context

    def proven(self) -> bool:
        """Whether all that the platform wants now was told, and canaries showed it."""
        told = self.shutting_out.told
        return (
            self.shutting_out.trouble() is None
            and told.proven_at is not None
            and told.wanted is not None
            and told.wanted.roots == self.guard.roots()
        )

    def shut_out(self, identity: Identity) -> bool:
        return identity.issued.serial in self.guard.ended() and self.proven()


def _runs(process: psutil.Process, conf: str) -> bool:
    try:
        return conf in process.cmdline() and "mosquitto" in process.name()
    except psutil.Error:
        return False


def csr_of(key: ec.EllipticCurvePrivateKey) -> str:
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return request.sign(key, hashes.SHA256()).public_bytes(PEM).decode()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("guard"))
    try:
        until(made.proven, "the first proof")
        yield made
    finally:
        made.stop()


def test_a_revoked_live_device_loses_its_session_and_cannot_come_back(world: World) -> None:
    stolen, other = world.identity(), world.identity()
    with world.connected(stolen, other) as (victim, bystander), world.server() as server:
        kept = down(stolen.id, Down.DESIRED)
        server.publish(kept, b"desired", qos=1, retain=True).wait_for_publish(5)
        assert victim.messages.get(timeout=5) == (kept, b"desired")
        began = time.monotonic()
        world.admission.revoke(stolen.id, "it was stolen")
        until(lambda: bool(victim.drops), "the end of the session", 10)
        took = victim.drops[0] - began
        until(lambda: world.shut_out(stolen), "the proof")
        assert not world.gets_in(stolen)
        assert took < 5, f"the session lived {took:.2f} s longer"
        server.publish(down(other.id, Down.CMD), b"still here", qos=1)
        assert bystander.messages.get(timeout=5) == (down(other.id, Down.CMD), b"still here")
        assert bystander.drops == []
        assert victim.accepted == 1, "it came back"
        heard: queue.Queue[bytes] = queue.Queue()
        server.on_message = lambda _c, _u, m: heard.put(m.payload)
        server.subscribe(kept, qos=1)
        server.publish(kept, b"the last", qos=1)
        assert heard.get(timeout=5) == b"the last", "what was retained for it is gone"


def test_a_broker_that_is_killed_meanwhile_shuts_out_too(world: World) -> None:
    stolen, other = world.identity(), world.identity()
    assert world.gets_in(stolen)
    world.mosquitto().send_signal(signal.SIGKILL)
    world.admission.revoke(stolen.id, "")
    until(lambda: world.shutting_out.health() != "ok", "health telling of it", 5)
    until(lambda: world.shut_out(stolen), "the proof")
    assert not world.gets_in(stolen)
    assert world.gets_in(other)


def test_a_server_that_is_started_anew_goes_on(world: World) -> None:
    stolen = world.identity()
    world.loop.stop()
    world.admission.revoke(stolen.id, "")
    with world.connected(stolen) as (victim,):
        world.start_guard()
        until(lambda: bool(victim.drops), "the end of the session")
        until(lambda: world.shut_out(stolen), "the proof")
        assert not world.gets_in(stolen)
    assert stolen.issued.serial in world.guard.ended()


def test_canaries_show_a_list_that_the_broker_could_not_read(world: World) -> None:
    # mosquitto 2.0.11 lets everyone in when it cannot read the list; a later one may refuse all.
    stolen = world.identity()
    world.admission.revoke(stolen.id, "")
    until(lambda: world.shut_out(stolen), "the proof")
    world.loop.stop()
    world.home.crl_pem.write_text("garbage")
    broker.ask_reload(world.home)
    until(
        lambda: world.guard.try_canaries().verdict in {Verdict.OPEN, Verdict.SHUT},
        "the broker reading it",
    )
    told = world.shutting_out.told
    world.shutting_out._told = replace(told, proven_at=now() - timedelta(minutes=6))
    world.shutting_out.tick()
    assert "broker" in world.shutting_out.health()
    assert world.shutting_out.health() != "ok"
    world.start_guard()
    until(lambda: world.shut_out(stolen), "the proof")
    assert not world.gets_in(stolen)


def test_an_expired_certificate_is_refused_and_so_is_its_ticket_after_a_reload(
    world: World,
) -> None:
    identity = world.identity(seconds=2)
    let_in, ticket, _ = world.knock(identity)
    assert let_in
    until(lambda: now() > identity.issued.expires, "its end")
    assert not world.gets_in(identity)
    # What the hourly reload is for: with a ticket nobody looks at the certificate.
    assert world.gets_in(identity, ticket), "mosquitto does better now: tell it in the docs"
    before = world.shutting_out.told.at
    world.shutting_out._told = replace(world.shutting_out.told, until=now())
    until(lambda: world.shutting_out.told.at != before and world.proven(), "the next telling")
    assert not world.gets_in(identity, ticket)


def test_a_fleet_follows_a_rotation_without_being_cut_off(world: World) -> None:
    # The last test of this file: it leaves another authority behind.
    old, lost = world.identity(), world.identity()
    with world.connected(old, lost) as (device, left):
        world.authority.rotate()
        until(world.proven, "the broker knowing both roots")
        new = world.identity()
        assert new.issued.root_sha256 != old.issued.root_sha256
        assert world.gets_in(new)
        assert device.drops == left.drops == []
        # It knows only the old root, and the broker shows the new chain; so it comes back, too,
        # after its session was taken over.
        assert world.gets_in(old)
        until(lambda: device.accepted > 1, "the device coming back")
        until(lambda: {old.id, lost.id} <= {d for d, _ in world.asked}, "devices being asked")
        with world.uow() as tx:
            # One of them renews; the other never answers.
            record = tx.devices.get(old.id, lock=True)
            assert record is not None
            followed = tx.devices.certificate(new.issued.serial)
            assert followed is not None
            tx.devices.add_certificate(
                replace(followed, serial="abc", device_id=old.id, spki_sha256="1" * 64)
            )
            roots = tuple(r.sha256 for r in world.ca.roots())
            seen = CertificateSeen(serial="abc", roots=roots)
            tx.devices.save(replace(record, certificate_serial="abc", seen_certificate=seen))
        view = world.authority.status()
        assert lost.id in view.behind_ids
        assert old.id not in view.behind_ids
        with pytest.raises(Exception, match="not know the new root"):
            world.authority.retire()
        world.authority.retire(force=True)
        until(lambda: bool(left.drops), "the end of the lost device's session")
        until(world.proven, "the broker knowing the new root alone")
        assert not world.gets_in(lost)
        assert world.gets_in(new)
        assert not world.authority.status().rotating
