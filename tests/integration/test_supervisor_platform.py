"""``run`` with the real broker and the real server, on a home of its own."""

from __future__ import annotations

import http.client
import json
import os
import queue
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.adapters import processes
from orchestrator.errors import ArgosyError, Conflict
from orchestrator.home import Home
from orchestrator.settings import Settings, load
from orchestrator.supervisor import StopSignal, TreeEvent, check_ports, mark_of, run

pytestmark = pytest.mark.integration

DEADLINE = 30.0


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + DEADLINE
    while not (result := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)
    return result


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settings_for(folder: Path, **changes: Any) -> Settings:
    ports = {"port": free_port(), "mqtt_port": free_port()}
    return load({}, home=folder, embedded_agent=False, **{**ports, **changes})


def child(settings: Settings, part: str) -> psutil.Process:
    tree = processes.Tree(mark_of(Home(settings.home)))
    tree.look_everywhere()
    (found,) = (p for p in tree.alive() if any(part in word for word in p.cmdline()))
    return found


class Platform:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stop = StopSignal()
        self.events: queue.Queue[TreeEvent] = queue.Queue()
        self.errors: list[ArgosyError] = []
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            run(self.settings, self.events.put, stop=self.stop)
        except ArgosyError as error:
            self.errors.append(error)

    def wait_for(self, kind: str, name: str | None = None) -> None:
        while True:
            event = self.events.get(timeout=DEADLINE)
            if (event.kind, event.child) == (kind, name):
                return

    def end(self) -> float:
        start = time.monotonic()
        self.stop.request()
        self.thread.join(20)
        assert not self.thread.is_alive()
        return time.monotonic() - start


@pytest.fixture
def start() -> Iterator[Callable[[Settings], Platform]]:
    made: list[Platform] = []

    def begin(settings: Settings) -> Platform:
        made.append(Platform(settings))
        made[-1].wait_for("up")
        return made[-1]

    yield begin
    for each in made:
        each.end()


def health(settings: Settings) -> dict[str, Any]:
    connection: http.client.HTTPConnection
    if settings.tls:
        context = ssl.create_default_context(cafile=Home(settings.home).ca_pem)
        connection = http.client.HTTPSConnection("127.0.0.1", settings.port, context=context)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", settings.port)
    connection.request("GET", "/v1/health")
    body = connection.getresponse().read()
    connection.close()
    found: dict[str, Any] = json.loads(body)
    return found


def test_a_platform_comes_up_heals_and_goes_without_a_trace(
    start: Callable[[Settings], Platform], tmp_path: Path
) -> None:
    settings = settings_for(tmp_path)
    platform = start(settings)
    home = Home(tmp_path)
    up = home.up()
    assert up is not None
    assert (up.pid, up.url) == (os.getpid(), settings.url)
    assert home.credentials().url == settings.url
    until(lambda: health(settings)["ok"], "health")

    for name, part in (("broker", "mosquitto"), ("server", "orchestrator.server")):
        before = child(settings, part)
        before.send_signal(signal.SIGKILL)
        platform.wait_for("restarted", name)
        platform.wait_for("ready", name)
        assert child(settings, part).pid != before.pid
    until(lambda: health(settings)["ok"], "health after both were killed")

    with pytest.raises(Conflict, match=f"process {os.getpid()}"):
        run(settings_for(tmp_path))

    assert platform.end() < 5
    assert platform.errors == []
    assert home.up() is None
    assert not home.up_json.exists()
    tree = processes.Tree(mark_of(home))
    tree.look_everywhere()
    assert tree.alive() == []


def test_a_platform_comes_up_again_on_its_home_with_the_same_keys(
    start: Callable[[Settings], Platform], tmp_path: Path
) -> None:
    kept = ("ca/ca.pem", "ca/server.pem", "trust/metadata/1.root.json", "broker/gateway.json")
    settings = settings_for(tmp_path)
    start(settings).end()
    before = {name: (tmp_path / name).read_bytes() for name in kept}
    token = Home(tmp_path).credentials().token
    start(settings).end()
    assert {name: (tmp_path / name).read_bytes() for name in kept} == before
    assert Home(tmp_path).credentials().token == token


def test_beyond_loopback_the_api_speaks_tls_alone(
    start: Callable[[Settings], Platform], tmp_path: Path
) -> None:
    settings = settings_for(tmp_path, host="0.0.0.0")  # noqa: S104 - what is tested
    start(settings)
    assert health(settings)["ok"] in {True, False}
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        health(load({}, home=tmp_path, port=settings.port, mqtt_port=settings.mqtt_port))


KILLED = """
import sys
from orchestrator.settings import load
from orchestrator.supervisor import run
home, port, mqtt_port = sys.argv[1:]
settings = load({}, home=home, port=port, mqtt_port=mqtt_port, embedded_agent=False)
run(settings, lambda event: print(event.kind, flush=True))
"""


def test_after_a_killed_supervisor_the_next_one_starts_at_once(
    start: Callable[[Settings], Platform], tmp_path: Path
) -> None:
    settings = settings_for(tmp_path)
    arguments = [str(tmp_path), str(settings.port), str(settings.mqtt_port)]
    first = subprocess.Popen(
        [sys.executable, "-c", KILLED, *arguments], stdout=subprocess.PIPE, text=True
    )
    assert first.stdout is not None
    until(lambda: first.stdout is not None and first.stdout.readline() == "up\n", "up")
    first.kill()
    first.communicate(timeout=10)
    start(settings)
    assert Home(tmp_path).up() is not None


@pytest.mark.parametrize("name", ["port", "mqtt_port"])
def test_a_taken_port_is_told_before_anything_starts(tmp_path: Path, name: str) -> None:
    settings = settings_for(tmp_path)
    port = getattr(settings, name)
    with socket.create_server(("127.0.0.1", port)), pytest.raises(Conflict) as told:
        check_ports(settings, wait=0.1)
    assert f"port {port} on 127.0.0.1" in told.value.detail
    assert f"process {os.getpid()}" in told.value.detail
    assert f"ARGOSY_{name.upper()}" in (told.value.hint or "")


def test_an_address_that_is_not_ours_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArgosyError, match=r"cannot listen on 192\.0\.2\.1"):
        check_ports(settings_for(tmp_path, host="192.0.2.1"), wait=0.1)
