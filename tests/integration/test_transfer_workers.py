"""Several processes that answer requests for chunks, and a broadcast, on one real broker."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from orchestrator.adapters import broker
from orchestrator.adapters.authority import CertificateAuthority
from orchestrator.adapters.mqtt import MqttGateway
from orchestrator.adapters.transfer_line import TransferLine
from orchestrator.domain.broadcast import Broadcasts, Rules
from orchestrator.home import Home
from orchestrator.services.admitted import Admitted, among
from orchestrator.services.broadcasting import BroadcastDesk
from orchestrator.services.chunks import ChunkService
from orchestrator.services.transfer import TransferService
from orchestrator.settings import load
from schemas.errors import Exit
from schemas.topics import Down, Up, broadcast, down, up
from schemas.transfer import CHUNK_BYTES, Ask, Need, Reply, Way, chunk_count, decode_chunk
from tests.unit.orchestrator.platform import Platform

pytestmark = pytest.mark.integration

RATE = 12 * 2**20
WAIT = 20


def until(what, seconds: float = WAIT):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.01)


class Device:
    """Pulls one file by a window of 32, and asks again for what is missing after a silence."""

    SILENCE = 0.5

    def __init__(self, site: Site, name: str) -> None:
        self.name, self.site = name, site
        self.came: Counter[int] = Counter()
        self.data: dict[int, bytes] = {}
        self.by_broadcast: Counter[int] = Counter()
        self.replies: list[Reply] = []
        self.heard = 0.0
        self._batch = 0
        self._asked: set[int] = set()
        self._lock = threading.Lock()
        self.client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self.client.username_pw_set(site.address.username, site.address.password)
        self.client.on_message = self._take
        self.client.connect(site.address.host, site.address.port)
        self.client.loop_start()
        until(self.client.is_connected)
        ready = threading.Event()
        self.client.on_subscribe = lambda *_: ready.set()
        topics = down(name, Down.CHUNK), down(name, Down.REPLY), broadcast(site.sha256)
        self.client.subscribe([(topic, 1) for topic in topics])
        assert ready.wait(WAIT)

    @property
    def done(self) -> bool:
        return len(self.data) == self.site.count

    def pull(self) -> None:
        self.heard = time.monotonic()
        self._more()

    def look(self) -> None:
        if not self.done and time.monotonic() - self.heard > self.SILENCE:
            with self._lock:
                self._asked.clear()
            self.pull()

    def ask(self, ask: Ask) -> None:
        self.client.publish(up(self.name, Up.ASK), ask.model_dump_json(), qos=1)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def whole(self) -> bytes:
        return b"".join(self.data[index] for index in range(self.site.count))

    def _more(self) -> None:
        with self._lock:
            missing = [i for i in range(self.site.count) if i not in self.data]
            free = [i for i in missing if i not in self._asked]
            outstanding = len(missing) - len(free)
            if outstanding > 16 or not free:
                return
            wanted = free[: 32 - outstanding]
            self._asked.update(wanted)
            ranges = tuple((i, i + 1) for i in wanted)
            need = Need(kind="chunks", sha256=self.site.sha256, batch=self._batch, ranges=ranges)
            self._batch += 1
        self.client.publish(up(self.name, Up.NEED), need.model_dump_json(), qos=1)

    def _take(self, _client, _data, message) -> None:
        if message.topic == down(self.name, Down.REPLY):
            self.replies.append(Reply.model_validate_json(message.payload))
            return
        chunk = decode_chunk(message.payload)
        self.heard = time.monotonic()
        if message.topic == broadcast(self.site.sha256):
            self.by_broadcast[chunk.index] += 1
        else:
            self.came[chunk.index] += 1
        self.data[chunk.index] = chunk.data
        if self._batch:
            self._more()


class Site:
    """A prepared home with a version, its broker, and the server's own part of the transfer."""

    def __init__(self, folder) -> None:
        self.home = Home(folder)
        self.home.prepare()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        settings = load({}, home=folder, mqtt_port=port)
        CertificateAuthority.open_or_create(self.home.ca).ensure_server(settings.names)
        self.address = broker.prepare(settings, self.home)
        self.env = os.environ | settings.to_env() | {"ARGOSY_TRANSFER_RATE": str(RATE)}
        self.platform = Platform(folder)
        manifest = self.platform.manifest(content=os.urandom(100))
        self.bytes = os.urandom(60 * CHUNK_BYTES + 77)
        big = self.platform.file("golden.npz", self.bytes)
        variant = manifest.variants[0]
        golden = variant.golden.model_copy(update={"file": big})
        variants = (variant.model_copy(update={"golden": golden}),)
        self.platform.models.register(
            "digits", manifest.model_copy(update={"variants": variants}), None
        )
        self.sha256, self.count = big.sha256, chunk_count(big.size)
        self.broker = subprocess.Popen(
            [broker.find_mosquitto(), "-c", self.home.broker / "mosquitto.conf"],
            stderr=subprocess.DEVNULL,
        )
        until(lambda: socket.socket().connect_ex((self.address.host, self.address.port)) == 0)
        self.devices: list[Device] = []
        self.workers: list[subprocess.Popen] = []
        self.parts: list = []

    def line(self, desk: BroadcastDesk | None = None) -> TransferLine:
        models, artifacts = self.platform.models, self.platform.artifacts
        line = TransferLine(
            self.address,
            ChunkService(models.serves, artifacts),
            Admitted(among(self.platform.uow)),
            broadcasts=desk,
            rate=RATE,
        )
        line.start()
        self.parts.append(line)
        until(lambda: line.connected)
        return line

    def worker(self) -> subprocess.Popen:
        command = [sys.executable, "-m", "orchestrator.transfer_worker"]
        made = subprocess.Popen(command, env=self.env, stderr=subprocess.PIPE, text=True)
        self.workers.append(made)
        return made

    def join(self, count: int) -> list[Device]:
        found = [Device(self, name) for name in self.platform.enroll(count)]
        self.devices += found
        return found

    def clear(self) -> None:
        for device in self.devices:
            device.close()
        for worker in self.workers:
            worker.kill()
            worker.wait(WAIT)
            worker.stderr.close()
        for part in self.parts:
            part.stop()
        self.devices, self.workers, self.parts = [], [], []

    def close(self) -> None:
        self.broker.terminate()
        self.broker.wait(WAIT)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    made = Site(tmp_path_factory.mktemp("site"))
    yield made
    made.close()


@pytest.fixture
def site(place):
    yield place
    place.clear()


def test_three_processes_share_the_work_and_one_that_is_killed_stops_nobody(site):
    line = site.line()
    doomed, other = site.worker(), site.worker()
    until(lambda: len(line.beats) == 3)
    devices = site.join(6)
    started = time.monotonic()
    for device in devices[:3]:
        device.pull()
    until(lambda: all(device.done for device in devices[:3]))
    seconds = time.monotonic() - started
    # Each chunk once, by no process twice, and together they keep to the one rate.
    assert all(set(device.came.values()) == {1} for device in devices[:3])
    sent = 3 * len(site.bytes)
    until(lambda: sum(beat.unicast_bytes for beat in line.beats) >= sent)
    assert sum(beat.unicast_bytes > 0 for beat in line.beats) >= 2
    assert seconds >= 0.7 * sent / RATE
    for device in devices[3:]:
        device.pull()
    until(lambda: sum(len(device.data) for device in devices[3:]) > 40)
    doomed.send_signal(signal.SIGKILL)

    def ended() -> bool:
        for device in devices[3:]:
            device.look()
        return all(device.done for device in devices)

    until(ended)
    assert all(device.whole() == site.bytes for device in devices)
    until(lambda: len(line.beats) == 2)
    other.send_signal(signal.SIGTERM)
    assert other.wait(5) == Exit.OK


def test_devices_that_wait_for_one_file_get_it_by_one_broadcast(site):
    desk = BroadcastDesk(Broadcasts(Rules(start_from=4, device_rate=4 * 2**20, delay=0.3)))
    line = site.line(desk)
    models, artifacts = site.platform.models, site.platform.artifacts
    service = TransferService(models, artifacts, site.platform.trust, broadcasts=desk)
    gateway = MqttGateway(site.address, service, site.platform.devices.admits, lambda *_: None)
    gateway.start(lambda _batch: None)
    site.parts.append(gateway)
    desk.announce_by(gateway.tell)
    until(lambda: gateway.connected)
    *devices, alone = site.join(5)
    cuts = range(0, len(site.bytes), CHUNK_BYTES)
    chunks = [site.bytes[i : i + CHUNK_BYTES] for i in cuts]
    leaves = "".join(hashlib.sha256(chunk).hexdigest() for chunk in chunks)
    ask = Ask(kind="leaves", sha256=site.sha256, takes=(Way.BROADCAST,))
    alone.ask(Ask(kind="leaves", sha256=site.sha256))
    for device in devices:
        device.ask(ask)
    until(lambda: all(any(r.broadcast for r in device.replies) for device in devices))
    until(lambda: all(device.done for device in devices))
    for device in devices:
        assert device.whole() == site.bytes
        assert set(device.by_broadcast.values()) == {1}
        assert not device.came
        told = [reply for reply in device.replies if reply.broadcast]
        assert [reply.broadcast.batch for reply in told] == [0]
        asked = [reply for reply in device.replies if reply.kind == "leaves"]
        assert asked[0].leaves == leaves
    assert {r.kind for device in devices for r in device.replies if r.broadcast} == {
        "leaves",
        "broadcast",
    }
    assert all(reply.broadcast is None for reply in alone.replies)
    until(lambda: line.beats[0].broadcast_bytes == 4 * len(site.bytes))
    assert line.beats[0].unicast_bytes == 0


def test_a_home_that_was_never_prepared_is_one_clear_line(site, tmp_path):
    command = [sys.executable, "-m", "orchestrator.transfer_worker", "--home", tmp_path / "none"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=WAIT, check=False)
    assert found.returncode == Exit.FAILED
    assert "has not been prepared" in found.stderr
    assert "Traceback" not in found.stderr
