"""A simulated fleet before a real platform, and what is asked of both by ``benchmarks.rollout``."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import psutil
import yaml
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks._harness import ROOT, note
from benchmarks._transfer_fleet import Platform, until
from schemas.gates import Gates
from schemas.rollout import RolloutSpec, WaveSpec
from schemas.topics import Down, down

PROFILE = {
    # Each device stays at work, with its files and before the swap, until it is told to stop.
    "classes": [{"name": "default", "tags": ["sim"], "traffic": {"rate": 1}}],
    "work": {"step_seconds": 3600, "bytes_per_second": 1e9},
    "pull": 0,
}
DOCUMENT_BYTES = 1400
"""About what a signed document for a device weighs."""


class SimulatedFleet:
    """``argosy simulate`` as a process, and its figures as it writes them.

    Args:
        platform: that it belongs to; it runs.
        count: devices.
    """

    def __init__(self, platform: Platform, count: int) -> None:
        self.platform, self.count = platform, count
        self._figures = platform.folder / "figures.json"
        profile = platform.folder / "profile.yaml"
        profile.write_text(yaml.safe_dump(PROFILE))
        command = [sys.executable, "-m", "orchestrator.cli", "simulate"]
        command += ["--devices", str(count), "--profile", str(profile), "--connects", "400"]
        command += ["--home", str(platform.home.path), "--figures", str(self._figures)]
        log = (platform.folder / "simulator.log").open("ab")
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=platform.env, stdout=subprocess.DEVNULL, stderr=log
        )

    def figures(self) -> dict[str, Any]:
        """The newest figures; none at first.

        Raises:
            RuntimeError: the simulator has ended.
        """
        if self.process.poll() is not None:
            raise RuntimeError((self.platform.folder / "simulator.log").read_text()[-2000:])
        if not self._figures.exists():
            return {}
        found: dict[str, Any] = json.loads(self._figures.read_text())
        return found

    def wait_online(self) -> float:
        """Until all are connected; seconds since the fleet's first connection."""
        until(lambda: self.figures().get("online", 0) >= self.count, "the fleet", 1200)
        return float(self.figures()["seconds"])

    def stop(self) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()

    def roll_out_and_stop(self, version: int) -> dict[str, float]:
        """Offer a version to all at once and, when all have it, stop: offers a second, seconds."""
        spec = RolloutSpec(
            model="bench",
            version=version,
            waves=(WaveSpec(percent=100),),
            gates=Gates(soak_seconds=0, evidence_seconds=1),
            step_seconds=3600,
        )
        with self.platform.client() as argosy:
            planned = argosy.rollouts.create(spec)
            began = time.time()
            argosy.rollouts.start(planned.id)
            offers = self._burst("offers", planned.id)
            note(f"  offered to {offers['count']:,} within {offers['last'] - began:.1f} s")
            time.sleep(3)  # what they answer is stored meanwhile
            stopped = time.time()
            argosy.rollouts.abort(planned.id)
            answered = time.time()
            told = self._burst("stops", planned.id)
        note(f"  the last was told after {told['last'] - stopped:.2f} s")
        return {
            "offers_per_s": offers["count"] / (offers["last"] - offers["first"]),
            "start_to_last_offer_s": offers["last"] - began,
            "stop_to_last_told_s": told["last"] - stopped,
            "abort_call_s": answered - stopped,
        }

    def _burst(self, what: str, rollout: str) -> dict[str, float]:
        def whole() -> dict[str, float] | None:
            found: dict[str, float] = self.figures().get(what, {}).get(rollout, {})
            return found if found.get("count", 0) >= self.count else None

        burst: dict[str, float] = until(whole, f"{what} at all devices", 600)
        return burst

    def bare(self) -> dict[str, float]:
        """A bare client hands the broker as many messages, of that size, to the same devices."""
        with self.platform.client() as argosy:
            devices = [device.id for device in argosy.devices.list()]
        address, left = self.platform.gateway(), threading.Semaphore(0)
        client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        client.max_inflight_messages_set(1000)
        client.username_pw_set(address.username, address.password)
        client.on_publish = lambda *_: left.release()
        client.connect(address.host, address.port)
        client.loop_start()
        until(client.is_connected, "the broker", 10)
        payload = os.urandom(DOCUMENT_BYTES)
        began = time.perf_counter()
        for device in devices:
            # Nobody minds what comes here: the devices ignore it.
            client.publish(down(device, Down.RENEWED), payload, qos=1)
        for _ in devices:
            left.acquire(timeout=60)
        seconds = time.perf_counter() - began
        client.disconnect()
        client.loop_stop()
        return {"offers_per_s": len(devices) / seconds}

    def memory(self) -> dict[str, float]:
        """MiB of each of the processes, now."""
        assert self.platform.up is not None
        tree = psutil.Process(self.platform.up.pid).children(recursive=True)
        sides = {
            "server": [p for p in tree if "orchestrator.server" in p.cmdline()],
            "broker": [p for p in tree if p.name() == "mosquitto"],
            "simulator": [psutil.Process(self.process.pid)],
        }
        return {
            name: round(sum(p.memory_info().rss for p in found) / 2**20, 1)
            for name, found in sides.items()
        }


def platform_in(folder: Path) -> Platform:
    """A platform whose devices say each minute that they are there, as a large fleet's would."""
    settings = {"ARGOSY_HEARTBEAT_SECONDS": "60", "ARGOSY_BENCH": secrets.token_hex(8)}
    return Platform(folder, settings=settings)
