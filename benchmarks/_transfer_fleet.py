"""A platform without training, real agents before it, and what a rollout to them costs.

Every agent is the process that a device runs. Its download is timed by its own clock, as its
reports say: from the first DOWNLOADING to VERIFIED, when the whole file is hashed and durable.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import paho.mqtt.client as mqtt
import psutil
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks._harness import ROOT
from benchmarks._transfer_model import package
from edge_client.enroll_command import Options, Voice, enroll_device
from edge_client.settings import Home as DeviceHome
from orchestrator.adapters.broker import Gateway, read_gateway
from orchestrator.client.core import Argosy
from orchestrator.home import Home
from schemas.device import Presence
from schemas.enroll import TokenRequest
from schemas.gates import Gates
from schemas.rollout import ExecReport, ExecState, RolloutSpec, WaveSpec

LOOPBACK = "127.0.0.1"
LIMIT_SECONDS = 600.0
MODEL = "bench"
_PLAIN = """
import sys
import paho.mqtt.client as paho
paho.Client.tls_set_context = lambda self, *_: self.username_pw_set({username!r}, {password!r})
from edge_client.cli import main
sys.exit(main())
"""
"""An agent without TLS: by the listener that is there for the server, with its password."""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def until(condition: Callable[[], Any], what: str, seconds: float = LIMIT_SECONDS) -> Any:
    """Wait for something to be true.

    Raises:
        TimeoutError: it was not, in time.
    """
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            msg = f"waited {seconds:g} s in vain for {what}"
            raise TimeoutError(msg)
        time.sleep(0.02)
    return found


@dataclass(frozen=True, slots=True)
class Cost:
    """One rollout. seconds: of each device's download. cpu_*: seconds, of all together."""

    size: int
    seconds: tuple[float, ...]
    elapsed: float
    cpu_server: float
    cpu_broker: float
    cpu_devices: float
    rss_growth: int

    @property
    def rate(self) -> float:
        """Of the slowest device, in MB/s."""
        return self.size / max(self.seconds) / 1e6


@dataclass
class Platform:
    """``argosy up`` without an agent for training, in a folder of its own."""

    folder: Path
    port: int = field(default_factory=free_port)
    mqtt_port: int = field(default_factory=free_port)
    devices: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    up: subprocess.Popen[bytes] | None = None
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Home:
        """The platform's folder."""
        return Home(self.folder / "home")

    def gateway(self) -> Gateway:
        """How the server reaches the broker."""
        found = read_gateway(self.home)
        if found is None:
            msg = f"{self.home.path} has no broker"
            raise RuntimeError(msg)
        return found

    @property
    def env(self) -> dict[str, str]:
        """Of every process."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("ARGOSY_")}
        own = {"ARGOSY_HOME": str(self.home.path), "ARGOSY_EMBEDDED_AGENT": "false"}
        return kept | own | self.settings

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [sys.executable, "-m", "orchestrator.cli", "up"]
        command += ["--port", str(self.port), "--mqtt-port", str(self.mqtt_port)]
        log = (self.folder / "up.log").open("ab")
        self.up = subprocess.Popen(command, cwd=ROOT, env=self.env, stdout=log, stderr=log)
        until(self._answers, "the platform", 60)

    def stop(self) -> None:
        """End agents and platform."""
        processes = [*self.devices.values(), *([self.up] if self.up else [])]
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait(30)

    def client(self) -> Argosy:
        """An operator's client."""
        return Argosy.from_profile(self.home.path, {})

    def register(self, size: int, seed: int) -> tuple[int, int]:
        """A version with about ``size`` random bytes; its number, and its files' size."""
        version = package(MODEL, size, seed)
        bearer = {"authorization": f"Bearer {self.home.credentials().token}"}
        url = f"http://{LOOPBACK}:{self.port}"
        with httpx.Client(base_url=url, headers=bearer, timeout=60, trust_env=False) as api:
            for sha256, data in version.files.items():
                api.put(f"/v1/artifacts/{sha256}", content=data).raise_for_status()
            json = {"content-type": "application/json"}
            path = f"/v1/models/{MODEL}/versions"
            made = api.post(path, content=version.manifest, headers=json).raise_for_status()
        return int(made.json()["version"]), sum(map(len, version.files.values()))

    def enroll(self, count: int, *, mqtt_port: int | None = None) -> list[str]:
        """Let devices in; the names of their folders. mqtt_port: where they connect instead."""
        with self.client() as argosy:
            token = argosy.tokens.create(TokenRequest(max_uses=count)).token
        names = [f"device-{secrets.token_hex(4)}" for _ in range(count)]
        for name in names:
            options = Options(token=token, server=f"http://{LOOPBACK}:{self.port}", wait=60)
            home = DeviceHome(self.folder / name)
            enroll_device(home, options, Voice(say=lambda _: None, pending=lambda _: None))
            if mqtt_port is not None:
                self._lead(name, mqtt_port)
        return names

    def run(self, names: Sequence[str], *, plain: bool = False) -> list[str]:
        """Start agents; the ids of their devices once all are there."""
        address = self.gateway()
        start = ["-m", "edge_client"]
        if plain:
            start = ["-c", _PLAIN.format(username=address.username, password=address.password)]
        for name in names:
            if plain:
                self._lead(name, address.port)
            command = [sys.executable, *start, "run", "--home", str(self.folder / name)]
            log = (self.folder / f"{name}.log").open("ab")
            self.devices[name] = subprocess.Popen(
                command, cwd=ROOT, env=self.env, stdout=log, stderr=log
            )
        with self.client() as argosy:
            return list(until(lambda: _present(argosy, len(self.devices)), "the devices"))

    def _lead(self, name: str, mqtt_port: int) -> None:
        """Have a device connect to another port."""
        record = DeviceHome(self.folder / name).identity / "identity.json"
        content = json.loads(record.read_text())
        content["broker"]["port"] = mqtt_port
        record.write_text(json.dumps(content))

    def end_devices(self) -> None:
        """Stop the agents; the platform forgets them as offline."""
        for process in self.devices.values():
            process.send_signal(signal.SIGTERM)
        for process in self.devices.values():
            process.wait(30)
        self.devices.clear()

    def deliver(self, version: int, size: int) -> Cost:
        """Roll a version out to all agents at once, and see what their downloads cost."""
        spec = RolloutSpec(
            model=MODEL,
            version=version,
            waves=(WaveSpec(percent=100),),
            gates=Gates(soak_seconds=0, evidence_seconds=1),
        )
        pids = self._pids()
        with ExitStack() as stack:
            heard = stack.enter_context(self._listening())
            argosy = stack.enter_context(self.client())
            before = {name: _cpu(of) for name, of in pids.items()}
            rss = [psutil.Process(p).memory_info().rss for p in pids["devices"]]
            begun = time.monotonic()
            rollout = argosy.rollouts.create(spec)
            # Devices that were started anew say once more what they did before.
            heard.only = {e.id for wave in rollout.waves for e in wave.executions}
            argosy.rollouts.start(rollout.id)
            peak = _Peak(pids["devices"], rss)
            count = len(self.devices)
            until(lambda: peak.look() or len(heard.verified()) >= count, "the downloads")
            elapsed = time.monotonic() - begun
            after = {name: _cpu(of) for name, of in pids.items()}
            argosy.rollouts.abort(rollout.id)
        spent = {name: after[name] - before[name] for name in pids}
        return Cost(
            size,
            tuple(heard.verified().values()),
            elapsed,
            spent["server"],
            spent["broker"],
            spent["devices"],
            peak.growth,
        )

    def _pids(self) -> dict[str, list[int]]:
        assert self.up is not None
        tree = psutil.Process(self.up.pid).children(recursive=True)
        return {
            "server": [p.pid for p in tree if "orchestrator.server" in p.cmdline()],
            "broker": [p.pid for p in tree if p.name() == "mosquitto"],
            "devices": [p.pid for p in self.devices.values()],
        }

    def _answers(self) -> bool:
        assert self.up is not None
        if self.up.poll() is not None:
            raise RuntimeError((self.folder / "up.log").read_text())
        try:
            with self.client() as argosy:
                return argosy.health().ok
        except Exception:  # noqa: BLE001 - not up yet, whatever the reason
            return False

    @contextmanager
    def _listening(self) -> Iterator[_Heard]:
        address, heard = self.gateway(), _Heard()
        client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        client.username_pw_set(address.username, address.password)
        client.on_message = lambda _c, _u, message: heard.take(bytes(message.payload))
        ready = threading.Event()
        client.on_subscribe = lambda *_: ready.set()
        client.on_connect = lambda c, *_: c.subscribe("d/+/up/exec", qos=1)
        client.connect(address.host, address.port)
        client.loop_start()
        try:
            ready.wait(10)
            yield heard
        finally:
            client.disconnect()
            client.loop_stop()


class _Heard:
    """What devices report while one rollout runs. only: of these executions."""

    def __init__(self) -> None:
        self.only: set[str] = set()
        self._began: dict[str, float] = {}
        self._ended: dict[str, float] = {}

    def take(self, payload: bytes) -> None:
        report = ExecReport.model_validate_json(payload)
        if report.state is ExecState.DOWNLOADING:
            self._began.setdefault(report.execution, report.uptime)
        elif report.state is ExecState.VERIFIED:
            self._ended.setdefault(report.execution, report.uptime)
        elif report.cause is not None:
            msg = f"a device ended {report.state}: {report.cause} {report.detail}"
            sys.stderr.write(msg + "\n")

    def verified(self) -> dict[str, float]:
        """Seconds of each download that is over, by its execution."""
        ended = dict(self._ended)
        began = self._began
        return {e: at - began[e] for e, at in ended.items() if e in began and e in self.only}


class _Peak:
    """How far the memory of the first agent grows, in bytes."""

    def __init__(self, pids: Sequence[int], before: Sequence[int]) -> None:
        self._process, self._before = psutil.Process(pids[0]), before[0]
        self.growth = 0

    def look(self) -> bool:
        """Measure; always False."""
        self.growth = max(self.growth, self._process.memory_info().rss - self._before)
        return False


def _present(argosy: Argosy, count: int) -> list[str]:
    online = [d.id for d in argosy.devices.list() if d.presence is Presence.ONLINE]
    return online if len(online) >= count else []


def _cpu(pids: Sequence[int]) -> float:
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return sum(t.user + t.system for t in times)
