"""A whole platform in its own processes, one for all the tests in this folder."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from orchestrator.client import Argosy
from schemas.enroll import TokenRequest

UP_SECONDS = 60
STOP_SECONDS = 5


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(what, seconds: float, every: float = 0.1):
    """The first true answer of ``what``; fails when none comes in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = what()
        if found:
            return found
        time.sleep(every)
    pytest.fail(f"not within {seconds} s: {getattr(what, '__doc__', None) or what}")


def marked(mark: str) -> list[psutil.Process]:
    """Every process that was started, however indirectly, with this mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("ARGOSY_E2E") == mark:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return [p for p in found if p.status() != psutil.STATUS_ZOMBIE]


@dataclass
class Running:
    """A platform and what was started around it."""

    folder: Path
    port: int = field(default_factory=free_port)
    mqtt_port: int = field(default_factory=free_port)
    mark: str = field(default_factory=lambda: secrets.token_hex(8))
    devices: dict[str, subprocess.Popen] = field(default_factory=dict)
    up: subprocess.Popen | None = None

    @property
    def env(self) -> dict[str, str]:
        return os.environ | {"ARGOSY_E2E": self.mark, "ARGOSY_HOME": str(self.folder / "home")}

    def run(self, module: str, *args: str, **more) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", module, *args]
        return subprocess.run(
            command, env=self.env, capture_output=True, text=True, timeout=120, check=False, **more
        )

    def argosy(self, *args: str) -> subprocess.CompletedProcess[str]:
        return self.run("orchestrator.cli", *args)

    def start(self) -> Argosy:
        command = [sys.executable, "-m", "orchestrator.cli", "up"]
        command += ["--port", str(self.port), "--mqtt-port", str(self.mqtt_port)]
        log = (self.folder / "up.log").open("ab")
        self.up = subprocess.Popen(command, env=self.env, stdout=log, stderr=log)
        return until(self.connect, UP_SECONDS)

    def connect(self) -> Argosy | None:
        """the platform answers"""
        if self.up.poll() is not None:
            pytest.fail((self.folder / "up.log").read_text())
        try:
            client = Argosy.from_profile(self.folder / "home", {})
            return client if client.health().ok else None
        except Exception:  # noqa: BLE001 - not up yet, whatever the reason
            return None

    def enroll(self, client: Argosy, name: str, token: str | None = None):
        token = token or client.tokens.create(TokenRequest()).token
        home = str(self.folder / name)
        url = f"http://127.0.0.1:{self.port}"
        return self.run("edge_client", "enroll", token, "--server", url, "--home", home)

    def run_device(self, name: str, *args: str) -> subprocess.Popen:
        home = str(self.folder / name)
        command = [sys.executable, "-m", "edge_client", "run", "--home", home, *args]
        log = (self.folder / f"{name}.log").open("ab")
        self.devices[name] = subprocess.Popen(command, env=self.env, stdout=log, stderr=log)
        return self.devices[name]

    def stop(self) -> float:
        """End devices and platform; how long the platform took, in seconds."""
        for device in self.devices.values():
            device.terminate()
        for device in self.devices.values():
            device.wait(10)
        start = time.monotonic()
        if self.up is not None and self.up.poll() is None:
            self.up.send_signal(signal.SIGTERM)
            self.up.wait(30)
        return time.monotonic() - start


@contextmanager
def alone() -> Iterator[Running]:
    """A platform that is not started yet; all of its processes are gone in the end."""
    with tempfile.TemporaryDirectory(prefix="argosy-e2e-") as folder:
        platform = Running(Path(folder))
        try:
            yield platform
        finally:
            platform.stop()
            for process in marked(platform.mark):
                process.kill()


@pytest.fixture(scope="session")
def running():
    with alone() as platform:
        yield platform


@pytest.fixture(scope="session")
def argosy(running) -> Argosy:
    """A client of the running platform."""
    return running.start()
