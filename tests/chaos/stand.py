"""A platform whose parts can be killed one by one, and agents that can be stopped at a state."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from edge_client.enroll_command import Options, Voice, enroll_device
from edge_client.identity import load_identity
from edge_client.settings import Home as DeviceHome
from edge_client.slots import read_pointer
from orchestrator.adapters import processes
from orchestrator.adapters.broker import read_gateway
from orchestrator.adapters.process_tree import Child
from orchestrator.client import Argosy
from orchestrator.client.errors import ArgosyError
from orchestrator.home import Home
from orchestrator.settings import Settings, load
from orchestrator.supervisor import bootstrap, children, prepare
from schemas.device import DeviceView
from schemas.enroll import TokenRequest
from schemas.rollout import RolloutSpec
from schemas.rollout_view import ExecutionView, RolloutView
from tests.attacks.intruder import Peer, free_port, until
from tests.chaos.durable import Disk
from tests.chaos.proxy import Line, Proxy
from tests.fakes.edge_models import Release, linear_onnx, release, samples

ROOT = Path(__file__).resolve().parents[2]
PUPPET = Path(__file__).with_name("puppet.py")
MODEL = "chaos"
QUIET_VOICE = Voice(say=lambda _text: None, pending=lambda _pending: None)

RATE = 40
"""Inferences a second: a probation of the default 20 lasts half a second."""


@dataclass
class Stand:
    """Broker and server in processes of their own, started and killed by the test."""

    folder: Path
    settings: Settings = field(init=False)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    releases: dict[int, Release] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.settings = load(
            {},
            home=str(self.folder / "home"),
            port=free_port(),
            mqtt_port=free_port(),
            embedded_agent=False,
            heartbeat_seconds=1,
        )
        self.mark = secrets.token_hex(16)
        self.proxy = Proxy(self.settings.mqtt_port)

    @property
    def home(self) -> Home:
        return Home(self.settings.home)

    def open(self) -> None:
        prepare(self.settings, bootstrap)
        for child in self._children().values():
            self.begin(child.name)
            self.ready(child.name)
        self.argosy = Argosy.from_profile(self.home.path, {})

    def begin(self, part: str) -> None:
        """Start ``broker`` or ``server``."""
        child = self._children()[part]
        env = {k: v for k, v in os.environ.items() if not k.startswith("ARGOSY_")}
        env |= self.settings.to_env()
        log = self.home.logs / f"{part}.log"
        self.running[part] = processes.spawn(child.command, log, env, self.mark)

    def ready(self, part: str) -> None:
        child = self._children()[part]
        if child.ready is not None:
            until(child.ready, part, 60)

    def kill(self, part: str) -> None:
        """SIGKILL: what it had not written is lost."""
        process = self.running.pop(part)
        process.kill()
        process.wait()

    def close(self) -> None:
        for part in ("server", "broker"):
            if part in self.running:
                self.kill(part)
        self.proxy.close()

    def log(self, part: str) -> str:
        return (self.home.logs / f"{part}.log").read_text()

    def _children(self) -> dict[str, Child]:
        return {child.name: child for child in children(self.settings, self.home)}

    # --- what an operator does ---------------------------------------------------------

    def register(self, onnx: bytes, *, promises: bytes | None = None) -> int:
        """The next version; its number. promises: whose golden outputs it comes with."""
        made = release(onnx, name=MODEL, promises=promises)
        credentials = self.home.credentials()
        with httpx.Client(
            base_url=credentials.url,
            headers={"authorization": f"Bearer {credentials.token}"},
            timeout=60,
        ) as admin:
            for sha256, data in made.files.items():
                admin.put(f"/v1/artifacts/{sha256}", content=data).raise_for_status()
            answer = admin.post(
                f"/v1/models/{MODEL}/versions",
                content=made.manifest,
                headers={"content-type": "application/json"},
            )
        answer.raise_for_status()
        version = int(answer.json()["version"])
        self.releases[version] = made
        return version

    def genuine(self) -> set[str]:
        """Hashes of all model files that were ever registered."""
        return {sha for one in self.releases.values() for sha in one.files}

    def roll_out(self, version: int, tag: str, **more: Any) -> str:
        """Give a version to all devices with a tag, at once; its id. more: of its spec."""
        spec = RolloutSpec.model_validate(
            {
                "model": MODEL,
                "version": version,
                "tags": [tag],
                "waves": [{"percent": 100}],
                **more,
                "gates": {
                    "max_failure_rate": 1,
                    "max_error_rate": 1,
                    "min_inferences": 1,
                    "soak_seconds": 0,
                },
            }
        )
        # A connection of its own: one that was idle for long may be closed as it is used again.
        with Argosy.from_profile(self.home.path, {}) as argosy:
            made = argosy.rollouts.create(spec).id
            argosy.rollouts.start(made)
        return made

    def activate(self, rollout: str) -> None:
        """Have those go on that wait for a word."""
        with Argosy.from_profile(self.home.path, {}) as argosy:
            argosy.rollouts.activate(rollout)

    def execution(self, rollout: str, device: str) -> ExecutionView:
        view: RolloutView = self.argosy.rollouts.get(rollout)
        (found,) = (e for w in view.waves for e in w.executions if e.device == device)
        return found

    def device(self, device: str) -> DeviceView:
        return self.argosy.devices.get(device)

    @contextlib.contextmanager
    def gateway(self) -> Iterator[Peer]:
        """A client of the broker with the server's own rights."""
        address = read_gateway(self.home)
        assert address is not None
        peer = Peer(f"liar-{secrets.token_hex(4)}")
        peer.paho.username_pw_set(address.username, address.password)
        with peer.connected(address.port):
            yield peer

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Straight from the server's database."""
        with contextlib.closing(
            sqlite3.connect(f"file:{self.home.database}?mode=ro", uri=True)
        ) as db:
            return db.execute(query, values).fetchall()


@dataclass
class Puppet:
    """A device: the real agent, on a disk and a line that a test can spoil."""

    stand: Stand
    name: str
    disk: Disk
    line: Line
    id: str
    options: tuple[str, ...]
    process: subprocess.Popen[bytes] | None = None

    @classmethod
    def enroll(
        cls, stand: Stand, name: str, library: Path, *tags: str, options: tuple[str, ...] = ()
    ) -> Puppet:
        """Enroll it, with its line between it and the broker."""
        home = DeviceHome(stand.folder / name / "home")
        home.root.parent.mkdir()
        token = stand.argosy.tokens.create(TokenRequest(tags=tags)).token
        wanted = Options(token=token, server=stand.settings.url, wait=60)
        enroll_device(home, wanted, QUIET_VOICE)
        line = stand.proxy.line()
        through(home, line)
        return cls.of(stand, name, Disk(library, home.root), line, options)

    @classmethod
    def of(
        cls,
        stand: Stand,
        name: str,
        disk: Disk,
        line: Line | None = None,
        options: tuple[str, ...] = (),
    ) -> Puppet:
        """The device that was enrolled on a disk."""
        device = load_identity(DeviceHome(disk.home)).record.device
        source = stand.folder / "source.npz"
        if not source.exists():
            x = samples(60)
            x[::2] *= -1  # of which a model that takes logarithms makes NaN
            np.savez(source, x=x)
        given = ("--no-bench", "--source", str(source), "--rate", str(RATE), "--window", "1")
        return cls(stand, name, disk, line or stand.proxy.line(), device, (*given, *options))

    @property
    def home(self) -> DeviceHome:
        return DeviceHome(self.disk.home)

    @property
    def seen(self) -> Path:
        """What the puppet said of itself."""
        return self.disk.home.with_name("seen.jsonl")

    @property
    def order(self) -> Path:
        return self.disk.home.with_name("stop")

    @property
    def output(self) -> Path:
        return self.disk.home.with_name("log")

    def start(self) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("ARGOSY_")}
        strings = {"CHAOS_LOG": str(self.seen), "CHAOS_STOP": str(self.order)}
        command = [sys.executable, str(PUPPET), "run", "--home", str(self.disk.home)]
        with self.output.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *self.options],
                env=kept | self.disk.env | strings,
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def crash_with(self, version: int) -> None:
        """Have a version, once it serves, bring the whole agent down when it is asked."""
        self.disk.home.with_name("stop.crash").write_text(str(version))

    def stop_at(self, point: str) -> None:
        """Have it stop there, once (see puppet.py)."""
        self.order.write_text(point)

    def stopped(self) -> bool:
        assert self.process is not None
        assert self.running, self.tail()
        return psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED

    def go_on(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def cut_power(self) -> list[str]:
        """SIGKILL, and all that was not synced is lost."""
        self.kill()
        return self.disk.cut()

    def events(self, since: float = 0.0) -> list[dict[str, Any]]:
        """What it said since then, oldest first."""
        if not self.seen.exists():
            return []
        lines = self.seen.read_text().splitlines()
        return [one for one in map(json.loads, lines) if one["at"] >= since]

    def state(self) -> tuple[str, Any] | None:
        """Its journal's last state, and the outcome if it is an end."""
        states = [one for one in self.events() if one["what"] == "state"]
        return (states[-1]["state"], states[-1]["outcome"]) if states else None

    def serves(self) -> int | None:
        """The version that it serves now, by what was last loaded into it."""
        assert self.process is not None
        mine = [e for e in self.events() if e["pid"] == self.process.pid and e["what"] == "serves"]
        return mine[-1]["slot"]["version"] if mine and mine[-1]["slot"] else None

    def points_to(self) -> int | None:
        slot = read_pointer(self.home.pointer).active
        return None if slot is None else slot.version

    def tail(self) -> str:
        return "\n".join(self.output.read_text().splitlines()[-30:])


def through(home: DeviceHome, line: Line) -> None:
    """Have a device reach the broker by a line."""
    load_identity(home)
    path = home.identity / "identity.json"
    record = json.loads(path.read_text())
    record["broker"]["port"] = line.port
    path.write_text(json.dumps(record))


def activations(events: list[dict[str, Any]], version: int) -> int:
    """How often the pointer was moved to a version, but for moves that a power cut undid."""
    count, now = 0, None
    for event in events:
        if event["what"] == "starts":
            if now == version and event["pointer"] != version:
                count -= 1
            now = event["pointer"]
        elif event["what"] == "pointer":
            count += event["after"] == version and event["before"] != version
            now = event["after"]
    return count


def good_model(seed: int) -> bytes:
    """Of about ten chunks."""
    return linear_onnx(seed, padding=600_000)


def bad_model(seed: int) -> bytes:
    """Passes its golden vectors, and fails on half of what the devices see."""
    return linear_onnx(seed, padding=600_000, log_input=True)


@contextlib.contextmanager
def standing(folder: Path) -> Iterator[Stand]:
    """A platform; all of it is gone in the end."""
    stand = Stand(folder)
    try:
        stand.open()
        yield stand
    finally:
        stand.close()


def wait(condition: Any, seconds: float, every: float = 0.05) -> bool:
    """Whether it came true in time; a server that is away is asked again."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(ArgosyError, httpx.HTTPError):
            if condition():
                return True
        time.sleep(every)
    return False
