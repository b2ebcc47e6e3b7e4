"""A simulated fleet before a real platform, and what is asked of both by ``benchmarks.rollout``."""

from __future__ import annotations

import json
import os
import resource
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
from schemas.rollout import ExecState, RolloutSpec, WaveSpec
from schemas.topics import Down, down

PROFILE = {
    # Each device stays at work, with its files and before the swap, until it is told to stop.
    "classes": [{"name": "default", "tags": ["sim"], "traffic": {"rate": 1}}],
    "work": {"step_seconds": 3600, "bytes_per_second": 1e9},
    "pull": 0,
}
_SPARE_FILES = 1_000
_SETTLE_SECONDS = 120.0
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
            began, cpu = time.time(), self.cpu()
            argosy.rollouts.start(planned.id)
            offers = self._burst("offers", planned.id)
            spent = {name: seconds - cpu[name] for name, seconds in self.cpu().items()}
            note(f"  offered to {offers['count']:,} within {offers['last'] - began:.1f} s")
            self._settled(planned.id)
            stopped = time.time()
            argosy.rollouts.abort(planned.id)
            answered = time.time()
            told = self._burst("stops", planned.id)
        note(f"  the last of {told['count']:,} was told after {told['last'] - stopped:.2f} s")
        return {
            "offers_per_s": offers["count"] / (offers["last"] - offers["first"]),
            "start_to_last_offer_s": offers["last"] - began,
            "stop_to_last_told_s": told["last"] - stopped,
            "told": told["count"],
            "abort_call_s": answered - stopped,
            **{f"cpu_{name}_s": round(seconds, 2) for name, seconds in spent.items()},
        }

    def _settled(self, rollout: str) -> None:
        """Until what they answered is stored; looked for seldom, as a look costs the server."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        with self.platform.client() as argosy:
            while any(
                wave.progress.states.get(ExecState.OFFERED)
                for wave in argosy.rollouts.get(rollout).waves
            ):
                if time.monotonic() > deadline:
                    msg = f"devices were offered {rollout}, and their answers are not stored"
                    raise TimeoutError(msg)
                time.sleep(1)

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
        return {
            name: round(sum(p.memory_info().rss for p in found) / 2**20, 1)
            for name, found in self._processes().items()
        }

    def cpu(self) -> dict[str, float]:
        """Seconds of work of each of the processes so far."""
        return {
            name: sum(p.cpu_times().user + p.cpu_times().system for p in found)
            for name, found in self._processes().items()
        }

    def _processes(self) -> dict[str, list[psutil.Process]]:
        assert self.platform.up is not None
        tree = psutil.Process(self.platform.up.pid).children(recursive=True)
        return {
            "server": [p for p in tree if "orchestrator.server" in p.cmdline()],
            "broker": [p for p in tree if p.name() == "mosquitto"],
            "simulator": [psutil.Process(self.process.pid)],
        }


def allow_files(clients: int) -> None:
    """Raise the limit of open files, which the platform, its broker and the simulator inherit.

    Raises:
        RuntimeError: the system allows too few for so many clients.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = clients + _SPARE_FILES
    if hard != resource.RLIM_INFINITY and hard < wanted:
        msg = f"{clients:,} clients need {wanted:,} open files; the system allows {hard:,}"
        raise RuntimeError(msg + ": raise it, or set ARGOSY_BENCH_CLIENTS")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def platform_in(folder: Path) -> Platform:
    """A platform whose devices say each minute that they are there, as a large fleet's would."""
    settings = {"ARGOSY_HEARTBEAT_SECONDS": "60", "ARGOSY_BENCH": secrets.token_hex(8)}
    return Platform(folder, settings=settings)
