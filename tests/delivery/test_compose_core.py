"""The heart of docker-compose.yml run without containers: database, orchestrator, broker, device.

The environment is the compose file's own; only addresses and folders differ.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration

BIN = Path(sys.executable).parent
WAIT = 40.0
CLAIM = """
import sys
from pathlib import Path
from workers.client import Api
from workers.settings import load_connection
print(Api(load_connection(Path(sys.argv[1]), {})).claim("somebody"))
"""


@dataclass(frozen=True)
class Core:
    """A running orchestrator with its database and its broker."""

    url: str
    env: dict[str, str]
    shared: Path
    health: str

    def run(self, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [BIN / command[0], *command[1:]],
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@contextmanager
def _process(command: list[str], env: dict[str, str], log: Path) -> Iterator[None]:
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        finally:
            process.kill()
            process.wait()


def _until(what: str, done: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + WAIT
    while not done():
        assert time.monotonic() < deadline, f"{what}; the log says:\n{log.read_text()[-3000:]}"
        time.sleep(0.1)


@pytest.fixture
def core(
    compose: Any,
    tmp_path: Path,
    fresh_postgres_url: str,
    run_broker: Callable[..., AbstractContextManager[None]],
    free_ports: Callable[[int], list[int]],
) -> Iterator[Core]:
    api, mtls, plain = free_ports(3)
    home, shared, log = tmp_path / "home", tmp_path / "worker", tmp_path / "server.log"
    shared.mkdir()
    service = compose.services["orchestrator"]
    told = dict(service["environment"])
    assert told["ARGOSY_BROKER_URL"].endswith("@broker:1883")
    told |= {
        "ARGOSY_HOME": str(home),
        "ARGOSY_PORT": str(api),
        "ARGOSY_MQTT_PORT": str(mtls),
        "ARGOSY_MQTT_PUBLIC_HOST": "127.0.0.1",
        "ARGOSY_PUBLIC_URL": f"https://localhost:{api}",
        "ARGOSY_DATABASE_URL": fresh_postgres_url,
        "ARGOSY_BROKER_URL": told["ARGOSY_BROKER_URL"].replace("broker:1883", f"127.0.0.1:{plain}"),
    }
    base = {k: v for k, v in os.environ.items() if not k.startswith("ARGOSY_")}
    env = {**base, **told}
    command = [
        {"/data": str(home), "/worker": str(shared)}.get(word, word) for word in service["command"]
    ]
    assert command[0] == "python"
    health = service["healthcheck"]["test"][3]
    health = health.replace("/data/", f"{home}/").replace(":8420", f":{api}")
    password = compose.environment("broker")["GATEWAY_PASSWORD"]

    def ready() -> None:
        running.append(_process([sys.executable, *command[1:]], env, log))
        running[0].__enter__()

    running: list[AbstractContextManager[None]] = []
    try:
        with run_broker(home / "ca", mtls, plain, password, ready):
            found = Core(f"https://localhost:{api}", env, shared, health)
            _until("never healthy", lambda: found.run("python", "-c", health).returncode == 0, log)
            yield found
    finally:
        for one in running:
            one.__exit__(None, None, None)


def test_a_device_joins_and_an_agent_is_let_in(core: Core, tmp_path: Path) -> None:
    made = core.run("argosy", "token", "create", "--uses", "1")
    assert made.returncode == 0, made.stderr
    device = {
        "ARGOSY_EDGE_HOME": str(tmp_path / "device"),
        "ARGOSY_SERVER": core.url,
        "ARGOSY_TOKEN": made.stdout.strip(),
    }
    bare = {k: v for k, v in core.env.items() if not k.startswith("ARGOSY_")}
    script = "argosy-edge status >/dev/null 2>&1 || argosy-edge enroll\nexec argosy-edge run"
    log = tmp_path / "device.log"
    path = {"PATH": f"{BIN}{os.pathsep}{bare['PATH']}"}
    with _process(["sh", "-ec", script], {**bare, **device, **path}, log):
        _until("no device is online", lambda: _online(core) == 1, log)

    credentials = json.loads((core.shared / "worker.json").read_text())
    assert credentials["url"] == core.url
    claimed = core.run("python", "-c", CLAIM, str(core.shared))
    assert claimed.stdout.strip() == "None", claimed.stderr


def _online(core: Core) -> int:
    listed = core.run("argosy", "device", "ls", "-o", "json")
    assert listed.returncode == 0, listed.stderr
    return len(re.findall(r'"presence": "ONLINE"', listed.stdout))


def test_the_script_is_the_one_in_the_compose_file(compose: Any) -> None:
    lines = compose.services["device-1"]["command"][2].strip().splitlines()
    assert lines == [
        "argosy-edge status >/dev/null 2>&1 || argosy-edge enroll",
        "exec argosy-edge run",
    ]
