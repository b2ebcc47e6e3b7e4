"""A platform in its own processes, before it real agents and simulated devices of two classes."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import yaml

from edge_client.enroll_command import Options, Voice, enroll_device
from edge_client.settings import Home as DeviceHome
from orchestrator.client import Argosy
from orchestrator.errors import Unavailable
from schemas.enroll import TokenRequest
from schemas.rollout import RolloutSpec, RolloutState
from schemas.rollout_view import RolloutView
from tests.attacks.intruder import Site
from tests.fakes.edge_models import linear_onnx, release, run_onnx, samples
from tests.fakes.gateway import Device

MODEL = "digits"
BROKEN = "camera"
"""The class on which the bad versions are bad. Real agents are of it."""

ENDED = {
    RolloutState.SUCCEEDED, RolloutState.ABORTED, RolloutState.ROLLED_BACK, RolloutState.PAUSED,
}  # fmt: skip


def until(what: Callable[[], object], why: str, seconds: float):
    """The first true answer; while the server is away there is none."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(Unavailable):
            found = what()
            if found:
                return found
        time.sleep(0.2)
    message = f"waited {seconds:g} s in vain for {why}"
    raise AssertionError(message)


class CalmSite(Site):
    """A platform whose devices say less often that they are there."""

    @property
    def env(self) -> dict[str, str]:
        return super().env | {"ARGOSY_HEARTBEAT_SECONDS": "5"}


@dataclass
class MixedFleet:
    """Devices before a platform.

    real: agents that run as they do on a device. simulated: devices of `argosy simulate`.
    versions: what of the profile says how versions behave.
    """

    folder: Path
    real: int
    simulated: int
    versions: list[dict[str, object]]
    site: Site = field(init=False)
    agents: list[Device] = field(default_factory=list)
    simulator: subprocess.Popen[str] | None = None

    def __post_init__(self) -> None:
        self.site = CalmSite(self.folder)

    @property
    def count(self) -> int:
        return self.real + self.simulated

    def start(self) -> None:
        """Start all; each device is there in the end."""
        self.site.start()
        self.argosy = Argosy.from_profile(self.site.home.path, {})
        if self.simulated:
            self._start_simulator()
        for _ in range(self.real):
            self._start_agent()
        until(lambda: self._online() >= self.count, "the devices", 300)

    def stop(self) -> dict:
        """End all; the simulator's summary."""
        summary: dict = {}
        for agent in self.agents:
            agent.kill()
        if self.simulator is not None:
            self.simulator.terminate()
            out, _ = self.simulator.communicate(timeout=30)
            summary = json.loads(out) if out else {}
            self.simulator = None
        self.site.stop()
        return summary

    def _online(self) -> int:
        return sum(one.presence == "ONLINE" for one in self.argosy.devices.list())

    def _start_simulator(self) -> None:
        traffic = {"rate": 40, "accuracy": 0.95, "drift": {"own": 0.005, "common": 0.01}}
        profile = {
            "classes": [
                {"name": name, "share": share, "tags": ["fleet"], "traffic": traffic}
                for name, share in ((BROKEN, 2), ("gateway", 1))
            ],
            "versions": self.versions,
            "eager_seconds": 1,
            "window_seconds": 2,
            "work": {"step_seconds": 0.2},
        }
        path = self.folder / "profile.yaml"
        path.write_text(yaml.safe_dump(profile))
        command = [sys.executable, "-m", "orchestrator.cli", "simulate", "--profile", str(path)]
        command += ["--devices", str(self.simulated), "--home", str(self.site.home.path)]
        with (self.folder / "simulator.log").open("ab") as log:
            self.simulator = subprocess.Popen(
                command, env=self.site.env, stdout=subprocess.PIPE, stderr=log, text=True
            )

    def _start_agent(self) -> Device:
        source = self.folder / "source.npz"
        if not source.exists():
            x = samples(200)
            np.savez(source, x=x, y=run_onnx(linear_onnx(1), x).argmax(axis=1))
        request = TokenRequest(device_class=BROKEN, tags=("fleet",), max_uses=1)
        token = self.argosy.tokens.create(request).token
        options = Options(token=token, server=self.site.url, wait=60)
        silent = Voice(say=lambda _: None, pending=lambda _: None)
        home = DeviceHome(self.folder / f"agent{len(self.agents)}")
        enrolled = enroll_device(home, options, silent)
        run = ("--no-bench", "--source", str(source), "--rate", "40", "--window", "1")
        self.agents.append(Device(home, enrolled.record.device, run))
        self.agents[-1].start()
        return self.agents[-1]

    def add_agent(self) -> Device:
        """One more real agent, enrolled and started."""
        self.real += 1
        return self._start_agent()

    def register(self, model: bytes, promises: bytes | None = None) -> int:
        """A genuine version; its number."""
        # Also a model that no runtime loads promises what the first one answers.
        made = release(model, name=MODEL, promises=promises)
        with self.site.http(self.site.admin_token) as admin:
            for sha256, data in made.files.items():
                admin.put(f"/v1/artifacts/{sha256}", content=data).raise_for_status()
            found = admin.post(
                f"/v1/models/{MODEL}/versions",
                content=made.manifest,
                headers={"content-type": "application/json"},
            ).raise_for_status()
        return found.json()["version"]

    def roll_out(self, version: int, **spec: object) -> str:
        """Plan and start; the id."""
        wanted = RolloutSpec.model_validate(
            {"model": MODEL, "version": version, "tags": ["fleet"], **spec}
        )
        planned = self.argosy.rollouts.create(wanted)
        self.argosy.rollouts.start(planned.id)
        return planned.id

    def ended(self, rollout: str, seconds: float) -> RolloutView:
        """The rollout, once it is over or waits for an operator."""

        def over() -> RolloutView | None:
            view = self.argosy.rollouts.get(rollout)
            return view if view.state in ENDED else None

        try:
            return until(over, "the end of a rollout", seconds)
        except AssertionError as error:
            view = self.argosy.rollouts.get(rollout)
            waves = [(w.state, w.progress.states, w.evidence) for w in view.waves]
            message = f"{error}: {view.state} {view.reason} {waves}"
            raise AssertionError(message) from None

    def serving(self) -> dict[int | None, int]:
        """How many devices serve each version, as they say."""
        found: dict[int | None, int] = {}
        for device in self.argosy.devices.list():
            version = next((one.version for one in device.active if one.model == MODEL), None)
            found[version] = found.get(version, 0) + 1
        return found

    @contextmanager
    def server_is_killed(
        self, seed: int, *, times: int, every: tuple[float, float]
    ) -> Iterator[list[float]]:
        """Meanwhile the server dies by SIGKILL, at moments that the seed draws; when it did."""
        chance, stop, killed = random.Random(seed), threading.Event(), []  # noqa: S311 - by seed

        def kill() -> None:
            for _ in range(times):
                if stop.wait(chance.uniform(*every)):
                    return
                with suppress(ValueError, psutil.Error):
                    self.site.server().kill()
                    killed.append(time.time())

        thread = threading.Thread(target=kill)
        thread.start()
        try:
            yield killed
        finally:
            stop.set()
            thread.join()
