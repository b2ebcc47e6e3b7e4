"""What 20 devices served is what the server has counted, through kills of everything."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil
import pytest

from edge_client.enroll_command import Options, Voice, enroll_device
from edge_client.settings import Home
from tests.attacks.intruder import Site
from tests.fakes.edge_models import linear_onnx, release
from tests.fakes.edge_traffic import Ledger, install, send, serves
from tests.fakes.gateway import Device, until

pytestmark = pytest.mark.integration

DEVICES, PROGRAMS, SERVERS = 20, 4, 4
WINDOW = "1"
VOICE = Voice(say=lambda _text: None, pending=lambda _pending: None)
RELEASE = release(linear_onnx(1, log_input=True))

PROGRAM = """
import collections, json, sys
import numpy as np
from edge_client import Edge
from edge_client.errors import InferenceError, InputError

models = [Edge(home).model("digits") for home in sys.argv[1:]]
print("ready", flush=True)
for line in sys.stdin:
    rng, n, errors, rejected = np.random.default_rng(int(line)), 0, 0, 0
    classes = collections.Counter()
    for model in models:
        for _ in range(int(rng.integers(20, 60))):
            kind = rng.integers(10)
            x = rng.uniform(0.1, 3, size=(1, 5 if kind == 0 else 4)).astype(np.float32)
            if kind == 1:
                x[0, 0] = -1  # of which the model takes the logarithm
            try:
                classes[int(model.predict(x).classes[0])] += 1
                n += 1
            except InputError:
                rejected += 1
            except InferenceError:
                n += 1
                errors += 1
    print(json.dumps([n, errors, rejected, classes]), flush=True)
for model in models:
    model.close()
"""


def _classes(found: dict[str, int]) -> Counter[int]:
    return Counter({int(number): n for number, n in found.items()})


@dataclass
class Program:
    """A program that infers on some of the devices, in a process of its own."""

    homes: list[Home]
    process: subprocess.Popen[str] = field(init=False)

    def start(self) -> None:
        homes = [str(home.root) for home in self.homes]
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *homes],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ready(self) -> None:
        assert self.process.stdout.readline() == "ready\n"

    def send(self, seed: int) -> Ledger:
        self.process.stdin.write(f"{seed}\n")
        self.process.stdin.flush()
        n, errors, rejected, classes = json.loads(self.process.stdout.readline())
        return Ledger(n, errors, rejected, _classes(classes))

    def end(self, how: signal.Signals | None) -> None:
        """None: by itself, at the end of its input."""
        if how is None:
            self.process.stdin.close()
        else:
            self.process.send_signal(how)
        self.process.wait(20)


@pytest.fixture
def site(mosquitto, tmp_path) -> Iterator[Site]:
    site = Site(tmp_path)
    try:
        site.start()
        yield site
    finally:
        site.stop()


@dataclass
class Fleet:
    """The devices, the programs on them, and what those served."""

    devices: list[Device]
    programs: list[Program]
    sockets: dict[str, Path]
    ledger: Ledger = field(default_factory=Ledger)
    draw: random.Random = field(default_factory=lambda: random.Random(20))  # noqa: S311 - by seed

    def start(self) -> None:
        for program in self.programs:
            program.start()
        for program in self.programs:
            program.ready()

    def serve(self) -> None:
        """A round of inferences on all devices; when it returns, every one was answered."""
        with ThreadPoolExecutor(PROGRAMS) as pool:
            seeds = [self.draw.randrange(2**31) for _ in self.programs]
            for one in pool.map(Program.send, self.programs, seeds):
                self.ledger.add(one)
        for device in self.devices:
            if device.id in self.sockets:
                path = self.sockets[device.id]
                until(partial(serves, path), f"{path} of {device.log()[-300:]}")
                self.ledger.add(send(path, 30, self.draw.randrange(2**31)))

    def end(self, device: Device, how: signal.Signals) -> None:
        device.process.send_signal(how)
        device.process.wait(20)
        if device.id in self.sockets:
            self.sockets[device.id].unlink(missing_ok=True)


@pytest.fixture
def folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="x-") as made:  # a socket's path is short
        yield made


@pytest.fixture
def fleet(site, tmp_path, folder) -> Iterator[Fleet]:
    token = site.join_token(max_uses=DEVICES)
    assert site.register("digits") == 1
    devices = []
    for number in range(DEVICES):
        home = Home(tmp_path / f"d{number}")
        options = Options(token=token, server=site.url, wait=10, force=False)
        name = enroll_device(home, options, VOICE).record.device
        install(home, RELEASE)
        devices.append(Device(home, name, ("--no-bench", "--window", WINDOW)))
    sockets = {}
    for number, device in enumerate(devices[:SERVERS]):
        sockets[device.id] = Path(folder) / str(number)
        device.options += ("--serve", f"unix:{sockets[device.id]}")
    homes = [device.home for device in devices]
    fleet = Fleet(devices, [Program(homes[n::PROGRAMS]) for n in range(PROGRAMS)], sockets)
    try:
        for device in devices:
            device.start()
        fleet.start()
        yield fleet
    finally:
        for device in devices:
            device.kill()
        for program in fleet.programs:
            with contextlib.suppress(AttributeError):
                program.process.kill()


def broker_of(site: Site) -> psutil.Process:
    (found,) = (
        child
        for child in psutil.Process(site.process.pid).children(recursive=True)
        if child.name() == "mosquitto"
    )
    return found


def counted(site: Site) -> tuple[Ledger, int]:
    """What the server says, and of how many samples it knows no more than that they were."""
    with site.http(site.admin_token) as admin:
        answer = admin.get("/v1/telemetry/summary", params={"model": "digits", "version": 1})
    assert answer.status_code == 200, answer.text
    total, lost = Ledger(), 0
    for one in answer.json()["items"]:
        assert one["dropped"] == 0
        total.add(Ledger(one["n"], one["errors"], one["rejected"], _classes(one["classes"])))
        lost += one["lost"]
    return total, lost


def waiting(device: Device) -> int:
    """Windows on a device that may come to the server once more."""
    with contextlib.closing(sqlite3.connect(device.home.telemetry)) as db:
        return db.execute("SELECT n FROM store").fetchone()[0]


def test_sums_are_exact_through_kills_of_devices_broker_and_server(site, fleet):
    kill, term = signal.SIGKILL, signal.SIGTERM
    fleet.serve()
    for number, device in enumerate(fleet.devices):
        if number % 4 < 2:
            fleet.end(device, (kill, term)[number % 4])
            device.start()
    for program, how in zip(fleet.programs, (kill, kill, term, None), strict=True):
        program.end(how)  # right after its last answer, with windows open
    broker_of(site).kill()
    fleet.start()
    fleet.serve()
    site.server().kill()
    for device in fleet.devices[2::4]:
        fleet.end(device, kill)
        device.start()
    fleet.serve()
    for program, how in zip(fleet.programs, (term, None, term, kill), strict=True):
        program.end(how)
    until(site.healthy, "the platform to be back")
    for number, device in enumerate(fleet.devices):
        if number % PROGRAMS == 3:  # what the dead left is looked for once a minute, and now
            fleet.end(device, kill)
            device.start()
    wanted = fleet.ledger
    until(lambda: counted(site)[0].n >= wanted.n, f"{wanted} at the server")
    until(lambda: not any(map(waiting, fleet.devices)), "the devices to have sent all")
    found, lost = counted(site)
    assert (found.n, found.errors, found.rejected) == (wanted.n, wanted.errors, wanted.rejected)
    assert found.classes <= wanted.classes
    assert found.classes.total() == wanted.n - wanted.errors - lost
    assert 0 < lost < wanted.n
