"""What the delivery tests share: the compose file as data, and its broker without a container."""

from __future__ import annotations

import getpass
import os
import re
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

WAIT = 20.0
SECRETS = {
    "POSTGRES_PASSWORD": "pg-secret",
    "GATEWAY_PASSWORD": "gw-secret",
    "RAY_AUTH_TOKEN": "ray-secret",
    "JOIN_TOKEN": "aj1.x",
}

_VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(?::([-?])([^}]*))?\}")


@dataclass(frozen=True)
class Compose:
    """docker-compose.yml: its text, and its services with every variable filled in."""

    text: str
    services: dict[str, dict[str, Any]]
    volumes: frozenset[str]
    networks: frozenset[str]

    def environment(self, service: str) -> dict[str, str]:
        found: dict[str, str] = self.services[service].get("environment", {})
        return found

    def commands(self, service: str) -> list[list[str]]:
        """Its command lines; of a shell script those that begin with a program of ours."""
        command = self.services[service].get("command")
        if command is None:
            return []
        if command[0] != "sh":
            return [list(command)]
        found = re.findall(r"\b(argosy-edge [^|&;>\n]+)", command[2])
        return [shlex.split(line) for line in found]

    def variables(self) -> dict[str, str | None]:
        """The variables that the file takes from .env, with their defaults."""
        found = _VARIABLE.findall(self.text)
        return {name: default if kind == "-" else None for name, kind, default in found}


@dataclass(frozen=True)
class Image:
    """A Dockerfile: what it copies from the checkout, and what it runs."""

    path: Path
    base: str
    copied: tuple[str, ...]
    extra: str
    command: tuple[str, ...]
    env: dict[str, str]


def _filled_in(text: str) -> str:
    def value(found: re.Match[str]) -> str:
        name, kind, default = found.groups()
        return SECRETS.get(name, default if kind == "-" else "") or ""

    return _VARIABLE.sub(value, text).replace("$$", "$")


@pytest.fixture(scope="session")
def compose(repo: Path) -> Compose:
    text = (repo / "docker-compose.yml").read_text()
    found = yaml.safe_load(_filled_in(text))
    return Compose(
        text, found["services"], frozenset(found["volumes"]), frozenset(found["networks"])
    )


@pytest.fixture(scope="session")
def read_image(repo: Path) -> Callable[[str], Image]:
    def read(dockerfile: str) -> Image:
        path = repo / dockerfile
        text = re.sub(r"\\\n\s*", " ", path.read_text())
        steps = [line.split(None, 1) for line in text.splitlines() if line and line[0] != "#"]
        copies = [shlex.split(rest) for step, rest in steps if step == "COPY"]
        command = [rest for step, rest in steps if step == "CMD"]
        extras = re.findall(r"-c constraints\.txt \"\.\[([a-z]+)\]\"", text)
        assert len(command) == 1
        assert len(extras) == 1
        pairs = [shlex.split(rest) for step, rest in steps if step == "ENV"]
        return Image(
            path=path,
            base=next(rest for step, rest in steps if step == "FROM"),
            copied=tuple(x for c in copies if not c[0].startswith("--from") for x in c[:-1]),
            extra=extras[0],
            command=tuple(yaml.safe_load(command[0])),
            env=dict(one.split("=", 1) for pair in pairs for one in pair),
        )

    return read


BrokerRunner = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def run_broker(repo: Path, tmp_path: Path, mosquitto: str) -> BrokerRunner:
    """Runs orchestrator/mosquitto/start.sh on other ports and in other folders than in a container.

    It waits for the certificates in ``certificates``; ``ready`` makes them, once it waits.
    """

    @contextmanager
    def run(
        certificates: Path, mtls: int, plain: int, password: str, ready: Callable[[], object]
    ) -> Iterator[None]:
        log = tmp_path / "broker.log"
        places = {
            "FROM": str(certificates),
            "TO": str(tmp_path / "run"),
            "CONF": str(_configuration(repo, tmp_path, mtls, plain)),
            "OWNER": getpass.getuser(),
        }
        path = os.pathsep.join([os.environ["PATH"], str(Path(mosquitto).parent)])
        with log.open("wb") as output:
            process = subprocess.Popen(
                [repo / "orchestrator/mosquitto/start.sh"],
                env={"PATH": path, "GATEWAY_PASSWORD": password, **places},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            _until(lambda: "waiting for the orchestrator" in log.read_text(), log)
            ready()
            _until(lambda: _answers(plain), log)
            yield
        finally:
            process.terminate()
            try:
                ended = process.wait(WAIT)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
        assert ended in {0, 128 + signal.SIGTERM}, log.read_text()
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)

    return run


def _configuration(repo: Path, folder: Path, mtls: int, plain: int) -> Path:
    text = (repo / "orchestrator/mosquitto/mosquitto.conf").read_text()
    for old, new in {
        "user mosquitto": f"user {getpass.getuser()}",
        "/mosquitto/data/": f"{folder}/broker-data/",
        "/mosquitto/config": str(repo / "orchestrator/mosquitto"),
        "/run/argosy": f"{folder}/run",
        "listener 8883": f"listener {mtls} 127.0.0.1",
        "listener 1883": f"listener {plain} 127.0.0.1",
    }.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "broker-data").mkdir()
    path = folder / "mosquitto.conf"
    path.write_text(text)
    return path


def _until(done: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + WAIT
    while not done():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
