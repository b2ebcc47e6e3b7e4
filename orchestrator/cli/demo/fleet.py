"""The demo's devices: real ``argosy-edge`` processes, prepared while the model trains."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from orchestrator.cli.demo.crew import Crew, program
from orchestrator.cli.demo.plan import Plan
from orchestrator.client import Argosy
from orchestrator.errors import ArgosyError, Unavailable
from schemas.device import DeviceView, Presence
from schemas.enroll import TokenRequest
from schemas.jobfile import JobSpec

CLASS = "demo"
RATE = 50
"""Inferences a second on each device."""

WINDOW = 1
"""Seconds of telemetry that a device sends at once."""

SPLIT = "test"
ENROLL_SECONDS = 120.0
EXPORT_SECONDS = 300.0
ONLINE_SECONDS = 60.0

EDGE = "argosy-edge"
WORKER = "argosy-worker"


class Fleet:
    """Devices of one demo.

    Args:
        plan: how many, and where.
        crew: starts their processes.
    """

    def __init__(self, plan: Plan, crew: Crew) -> None:
        self._plan = plan
        self._crew = crew
        self._thread: threading.Thread | None = None
        self._failure: ArgosyError | None = None
        self._enrolled = 0
        self._stream_ready = False
        self.stream = plan.home / "demo" / "stream.npz"
        self.seconds = 0.0

    def homes(self) -> list[Path]:
        """The folder of each device."""
        return [self._plan.home / "devices" / f"{i + 1}" for i in range(self._plan.devices)]

    def prepare(self, token: str, url: str) -> None:
        """Enroll the devices and make their input, beside whatever else goes on."""
        self._thread = threading.Thread(target=self._prepare, args=(token, url), daemon=True)
        self._thread.start()

    def _prepare(self, token: str, url: str) -> None:
        start = time.monotonic()
        try:
            for number, home in enumerate(self.homes(), 1):
                home.mkdir(parents=True, exist_ok=True)
                name = f"enroll-{number}"
                command = (program(EDGE), "enroll", "--server", url, "--home", str(home))
                # In the environment, because the command line is everyone's to read.
                self._crew.start(name, command, ARGOSY_TOKEN=token)
                self._crew.finish(name, ENROLL_SECONDS)
                self._enrolled = number
            self._export()
            self._stream_ready = True
        except ArgosyError as error:
            self._failure = error
        finally:
            self.seconds = time.monotonic() - start

    def _export(self) -> None:
        command: Sequence[str] = (
            program(WORKER),
            "export-split",
            self._plan.spec.entrypoint,
            SPLIT,
            str(self.stream),
            *export_options(self._plan.spec),
        )
        self._crew.start("export-split", command)
        self._crew.finish("export-split", EXPORT_SECONDS)

    def status(self) -> str:
        """One line on how far the preparation is.

        Raises:
            ArgosyError: it failed.
        """
        if self._failure is not None:
            raise self._failure
        self._crew.check()
        stream = "held-out stream ready" if self._stream_ready else "held-out stream to come"
        return f"meanwhile: {self._enrolled} of {self._plan.devices} devices enrolled, {stream}"

    def join(self) -> None:
        """Wait for the preparation.

        Raises:
            ArgosyError: it failed.
        """
        if self._thread is not None:
            # In slices, so that a signal is handled between them.
            while self._thread.is_alive():
                self._thread.join(0.2)
        self.status()

    def start(self) -> None:
        """Start every device."""
        for number, home in enumerate(self.homes(), 1):
            command = (
                program(EDGE),
                "run",
                "--home",
                str(home),
                "--source",
                str(self.stream),
                "--rate",
                str(RATE),
                "--window",
                str(WINDOW),
            )
            self._crew.start(f"device-{number}", command)

    def wait_online(self, argosy: Argosy) -> list[DeviceView]:
        """The devices, once each of them is connected.

        Raises:
            Unavailable: one is not, after ``ONLINE_SECONDS``.
        """
        deadline = time.monotonic() + ONLINE_SECONDS
        while True:
            self._crew.check()
            views = [d for d in argosy.devices.list() if d.device_class == CLASS]
            online = [d for d in views if d.presence is Presence.ONLINE]
            if len(online) >= self._plan.devices:
                return online
            if time.monotonic() > deadline:
                detail = f"{len(online)} of {self._plan.devices} devices are online"
                hint = f"their output is in {self._crew.log('device-1').parent}"
                raise Unavailable(detail, hint=hint)
            time.sleep(0.1)


def export_options(spec: JobSpec) -> list[str]:
    """What makes ``argosy-worker export-split`` cut the data as the job does.

    JSON is YAML, which is what it reads a value as.
    """
    options = ["--seed", str(spec.seed)]
    for key, value in spec.config.items():
        options += ["--config", f"{key}={json.dumps(value)}"]
    return options


def token_request(devices: int) -> TokenRequest:
    """What lets the demo's devices join."""
    return TokenRequest(device_class=CLASS, tags=("demo",), max_uses=devices)
