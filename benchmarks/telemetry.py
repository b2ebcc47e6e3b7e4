"""Windows of devices into the database: a second, and CPU of each, against paho that drops them.

Before each round a broker (mosquitto, in memory) holds as many messages at QoS 1 as are measured,
one window each, from many devices; then a process on one core receives them. Ours is the gateway
and the inbox of the server over SQLite, synced at each commit: it stores each window, adds it to
the device's hour and the class's hour, and acknowledges after the commit. The baseline is paho's
loop alone, which acknowledges and throws away.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from benchmarks._harness import ROOT, Options, Report, alternate, main
from benchmarks.inbox import fill
from orchestrator.adapters.broker import Gateway, find_mosquitto
from orchestrator.adapters.database import migrate
from orchestrator.adapters.mqtt import CLIENT_ID
from orchestrator.adapters.mqtt_client import make_client
from orchestrator.adapters.unit_of_work import SqlUnitOfWork, make_engine
from schemas.topics import UP_OF_SERVER, Up, up
from schemas.window import About, Envelope, Window, encode, pack

WHAT = "windows into SQLite on one core, against paho that acknowledges and throws away"
UNITS = {"ingest_windows_per_s": "1/s", "ingest_cpu_us": "us"}
_CONFIG = """listener {port} 127.0.0.1
allow_anonymous true
persistence false
max_queued_messages 0
max_inflight_messages 0
log_type error
"""


@dataclass
class Bench:
    """A broker, and a database with devices. turn: grows with each round of ours."""

    folder: Path
    port: int
    devices: list[str]
    count: int
    turn: int = 0

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.folder / "argosy.db"

    def ours(self) -> Mapping[str, float]:
        """One round of ours; every window must be there afterwards."""
        self.publish()
        found = self._receive("ours", str(self.database))
        self.turn += 1
        with closing(sqlite3.connect(self.database)) as database:
            (stored,) = database.execute("SELECT count(*) FROM windows").fetchone()
        if stored != self.turn * self.count:
            msg = f"{stored} windows are stored and not {self.turn * self.count}"
            raise ValueError(msg)
        return found

    def bare(self) -> Mapping[str, float]:
        """One round of the baseline, with the same messages."""
        self.publish()
        return self._receive("bare")

    def details(self) -> dict[str, float]:
        """Bytes of the database, and rows of roll-ups, for each window."""
        with closing(sqlite3.connect(self.database)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            (windows,) = database.execute("SELECT count(*) FROM windows").fetchone()
            rows = {
                name: database.execute(f"SELECT count(*) FROM {name}").fetchone()[0]  # noqa: S608 - names of ours
                for name in ("device_hours", "class_hours")
            }
        size = self.database.stat().st_size
        wire = len(self.payload(0))
        return {"wire_bytes": wire, "database_bytes": size / windows, "windows": windows, **rows}

    def publish(self) -> None:
        """Have the broker hold the messages for the one who receives."""
        client = _client(self.port, CLIENT_ID)
        client.subscribe([(one, 1) for one in UP_OF_SERVER])
        time.sleep(0.3)
        client.disconnect()
        client.loop_stop()
        sender = _client(self.port, "sender")
        sent = [
            sender.publish(up(self.devices[n % len(self.devices)], Up.TELE), self.payload(n), qos=1)
            for n in range(self.count)
        ]
        for one in sent:
            one.wait_for_publish(60)
        sender.disconnect()
        sender.loop_stop()

    def payload(self, n: int) -> bytes:
        """The n-th envelope: ten classes, twenty buckets of latency, five statistics of inputs."""
        about = About(boot=b"b" * 16, model="digits", version=1, variant="int8")
        window = Window(
            about=0,
            seq=self.turn * self.count + n // len(self.devices),
            start_ms=round(time.time() * 1000),
            synced=True,
            length_ms=60_000,
            n=600,
            runs=600,
            latency=pack(dict.fromkeys(range(40, 60), 30)),
            confidence=[60] * 10,
            entropy=[60] * 10,
            classes=pack(dict.fromkeys(range(10), 60)),
            features=[[0, 0, 0] + [60] * 10] * 5,
            raw_bytes=600 * 64,
            cpu_ms=700,
            rss_mib=70,
            energy_mj=900,
            method="rapl",
        )
        return encode(Envelope(format=1, about=[about], windows=[window]))

    def _receive(self, which: str, *more: str) -> Mapping[str, float]:
        module = "benchmarks._telemetry_receiver"
        command = [sys.executable, "-m", module, which, str(self.port), str(self.count), *more]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            msg = f"the receiver failed: {done.stderr[-2000:]}"
            raise RuntimeError(msg)
        found = json.loads(done.stdout)
        return {
            "ingest_windows_per_s": self.count / found["seconds"],
            "ingest_cpu_us": 1e6 * found["cpu"] / self.count,
        }


def measure(options: Options) -> Report:
    """All figures."""
    count = 2_000 if options.quick else 30_000
    with tempfile.TemporaryDirectory(prefix="argosy-bench-") as name:
        folder = Path(name)
        devices = [f"dev_{n:016}" for n in range(100 if options.quick else 1_000)]
        engine = make_engine(f"sqlite:///{folder / 'argosy.db'}")
        migrate(engine)
        fill(SqlUnitOfWork(engine), devices)
        engine.dispose()
        with broker(folder) as port:
            bench = Bench(folder, port, devices, count)
            figures = alternate(bench.ours, bench.bare, rounds=options.rounds, units=UNITS)
            details = bench.details()
    cores = 1 if sys.platform == "linux" else os.cpu_count()
    return Report(figures, {**details, "devices": len(devices), "cores": cores})


@contextmanager
def broker(folder: Path) -> Iterator[int]:
    """A mosquitto of one's own, in memory; gives its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    conf = folder / "mosquitto.conf"
    conf.write_text(_CONFIG.format(port=port))
    with (folder / "mosquitto.log").open("wb") as log:
        process = subprocess.Popen([find_mosquitto(), "-c", str(conf)], stdout=log, stderr=log)
    try:
        _await(port)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _await(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def _client(port: int, name: str) -> paho.Client:
    client = make_client(Gateway("127.0.0.1", port, "any", "any"), name)
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = 3600 if name == CLIENT_ID else 0
    client.max_inflight_messages_set(1000)
    client.connect("127.0.0.1", port, clean_start=name != CLIENT_ID, properties=properties)
    client.loop_start()
    return client


if __name__ == "__main__":
    main(measure, what=WHAT, rounds=3)
