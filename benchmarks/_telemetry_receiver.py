"""A process that receives what waits at a broker: ours stores it, bare paho throws it away.

``python -m benchmarks._telemetry_receiver ours|bare PORT COUNT [DATABASE]`` on one core; says one
line of JSON: seconds from connecting until the last is stored, and the CPU seconds.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, cast

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from orchestrator.adapters.broker import Gateway
from orchestrator.adapters.mqtt import CLIENT_ID, MqttGateway
from orchestrator.adapters.mqtt_client import make_client
from orchestrator.adapters.unit_of_work import SqlUnitOfWork, make_engine
from orchestrator.clock import utc_now
from orchestrator.server import spare_collections
from orchestrator.services.devices import DeviceService
from orchestrator.services.inbox import Inbox, UpMessage
from orchestrator.services.measured import MeasuredService
from orchestrator.services.reports import ReportService
from orchestrator.services.samples import SampleService
from orchestrator.services.telemetry import TelemetryService
from schemas.topics import UP_OF_SERVER

_LIMIT_SECONDS = 300.0
_UNACKED = 10_000


class Stopwatch:
    """Runs from ``start`` until ``count`` messages are done."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._began = (0.0, 0.0)
        self._ended = (0.0, 0.0)
        self._done = threading.Event()

    def start(self) -> None:
        """Begin."""
        self._began = (time.perf_counter(), time.process_time())

    def finished(self, count: int) -> None:
        """So many more are done."""
        self._left -= count
        if self._left <= 0:
            self._ended = (time.perf_counter(), time.process_time())
            self._done.set()

    def result(self) -> dict[str, float]:
        """Seconds of wall and of CPU.

        Raises:
            TimeoutError: not all came.
        """
        if not self._done.wait(_LIMIT_SECONDS):
            msg = f"{self._left} messages did not come"
            raise TimeoutError(msg)
        wall, cpu = (b - a for a, b in zip(self._began, self._ended, strict=True))
        return {"seconds": wall, "cpu": cpu}


def ours(port: int, count: int, database: Path) -> dict[str, float]:
    """The gateway and the inbox as the server has them, over SQLite."""
    uow = SqlUnitOfWork(make_engine(f"sqlite:///{database}"))
    inbox = Inbox(
        uow,
        DeviceService(uow, utc_now, heartbeat_seconds=30),
        ReportService(utc_now),
        TelemetryService(utc_now),
        MeasuredService(utc_now),
        SampleService(uow, utc_now),
    )
    watch = Stopwatch(count)

    def handle(batch: list[UpMessage]) -> None:
        inbox.handle(batch)
        watch.finished(len(batch))

    spare_collections()
    # Nothing but windows comes, so nothing is asked of those that answer questions.
    nobody = cast("Any", None)
    gateway = MqttGateway(_address(port), nobody, lambda _device: True, nobody)
    watch.start()
    gateway.start(cast("Any", handle))
    try:
        return watch.result()
    finally:
        time.sleep(0.5)  # the last acknowledgements are on their way
        gateway.stop()


def bare(port: int, count: int) -> dict[str, float]:
    """Paho's loop, which acknowledges by itself."""
    watch = Stopwatch(count)
    client = make_client(_address(port), CLIENT_ID)
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = 3600
    properties.ReceiveMaximum = _UNACKED

    def on_message(*_args: Any) -> None:
        watch.finished(1)

    client.on_message = on_message
    watch.start()
    client.connect("127.0.0.1", port, clean_start=False, properties=properties)
    client.subscribe([(one, 1) for one in UP_OF_SERVER])
    client.loop_start()
    try:
        return watch.result()
    finally:
        time.sleep(0.5)
        client.disconnect()
        client.loop_stop()


def _address(port: int) -> Gateway:
    return Gateway("127.0.0.1", port, "gateway", "any")


if __name__ == "__main__":
    which, at, expected, *rest = sys.argv[1:]
    if sys.platform == "linux":
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    arguments = (int(at), int(expected))
    found = ours(*arguments, Path(rest[0])) if which == "ours" else bare(*arguments)
    print(json.dumps(found), flush=True)
