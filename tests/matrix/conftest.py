"""A platform on a Ray cluster of two nodes, every part a process that can be killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from orchestrator.client import Argosy
from schemas.job import JobState, JobView
from tests.e2e.conftest import Running, free_port, marked, until
from tests.fakes.processes import command_of
from workers.agent.head import head_environment
from workers.agent.processes import marked as marked_as
from workers.order import MARK

START = 90
POLL = 0.02


@dataclass
class Nodes:
    """Two Ray nodes of one CPU each on this machine, token authentication on."""

    folder: Path
    env: dict[str, str]
    port: int = field(default_factory=free_port)
    dashboard: int = field(default_factory=free_port)
    started: dict[str, subprocess.Popen] = field(default_factory=dict)

    def start(self, name: str) -> None:
        """Start the node ``head``, or another one that joins it."""
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
        command += ["--disable-usage-stats", "--num-cpus=1", "--node-ip-address=127.0.0.1"]
        command += ["--object-store-memory=100000000"]
        if name == "head":
            command += ["--head", f"--port={self.port}", "--dashboard-host=127.0.0.1"]
            command += [f"--dashboard-port={self.dashboard}", f"--temp-dir={self.folder}/r"]
            command += [f"--ray-client-server-port={free_port()}", "--no-monitor"]
            command += ["--include-log-monitor=false", "--dashboard-agent-listen-port=0"]
        else:
            command += [f"--address=127.0.0.1:{self.port}", "--dashboard-agent-listen-port=0"]
        log = (self.folder / f"{name}.log").open("ab")
        self.started[name] = subprocess.Popen(
            command, env=self.env, stdout=log, stderr=log, start_new_session=True
        )

    def kill(self, name: str) -> None:
        """The node is gone at once, as when its power fails."""
        top = self.started.pop(name)
        processes = [*psutil.Process(top.pid).children(recursive=True), psutil.Process(top.pid)]
        for process in processes:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        top.wait()


@dataclass
class Matrix:
    """The platform, its cluster, its agent, and how to kill each of them."""

    running: Running
    nodes: Nodes
    env: dict[str, str]
    argosy: Argosy
    agent: subprocess.Popen | None = None

    def start_agent(self) -> None:
        """As a service manager would."""
        home = str(self.running.folder / "home")
        command = [sys.executable, "-m", "workers.cli", "agent", "--home", home]
        command += ["--storage", str(self.running.folder / "storage"), "--python", sys.executable]
        log = (self.running.folder / "agent.log").open("ab")
        self.agent = subprocess.Popen(command, env=self.env, stdout=log, stderr=log)

    def processes(self, job: JobView, word: str) -> list[psutil.Process]:
        """Processes of the job's attempt whose command line has this word."""
        alive = marked_as(MARK, f"{job.id}-{job.attempt}")
        return [process for process in alive if word in command_of(process)]

    def kill(self, victim: str, job: JobView) -> None:
        """SIGKILL a part; what a supervisor restarts in real life is started again."""
        match victim:
            case "worker":
                self._first(job, "RayTrainWorker").kill()
            case "driver":
                self._first(job, "workers.driver.main").kill()
            case "node":
                self.nodes.kill("second")
                self.nodes.start("second")
            case "agent":
                assert self.agent is not None
                self.agent.kill()
                self.agent.wait()
                self.start_agent()
            case "orchestrator":
                (server,) = [
                    p for p in marked(self.running.mark) if "orchestrator.server" in command_of(p)
                ]
                server.send_signal(signal.SIGKILL)
                until(self.running.connect, START)
            case _:
                raise AssertionError(victim)

    def _first(self, job: JobView, word: str) -> psutil.Process:
        def there() -> list[psutil.Process]:
            return self.processes(self.look(job.id), word)

        return until(there, 30, every=POLL)[0]

    def look(self, job: str) -> JobView:
        """The job; asked again while the server is away."""
        while True:
            try:
                return self.argosy.jobs.get(job)
            except Exception:  # noqa: BLE001 - the server is being started again
                time.sleep(POLL)

    def reach(self, job: str, state: JobState, *, epoch: int = 0, seconds: float = 300) -> JobView:
        """The job once it is in a state, or past the epoch in it; fails if it ended before."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            view = self.look(job)
            if view.state is state and view.epoch >= epoch:
                return view
            assert view.state not in {JobState.FAILED, JobState.CANCELLED}, view
            assert view.state is not JobState.SUCCEEDED, f"it ended before it was seen {state}"
            time.sleep(POLL)
        pytest.fail(f"{job} did not reach {state} (epoch {epoch}): {self.look(job)}")

    def creep_to(self, job: str, state: JobState) -> JobView:
        """As ``reach``, for a state that is soon over: the driver runs in slow motion."""
        self.reach(job, JobState.OPTIMIZING)
        deadline = time.monotonic() + 120
        while (view := self.look(job)).state is not state:
            assert time.monotonic() < deadline, view
            assert view.state is JobState.OPTIMIZING, f"it was not seen {state}: {view}"
            for driver in self.processes(view, "workers.driver.main"):
                driver.resume()
                time.sleep(POLL)
                driver.suspend()
        for driver in self.processes(view, "workers.driver.main"):
            driver.resume()
        return view

    def ended(self, job: str, seconds: float = 240) -> JobView:
        """The job as it ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            view = self.look(job)
            if view.ended_at is not None:
                return view
            time.sleep(0.1)
        lines = [line.text for line in self.argosy.jobs.logs(job)][-40:]
        pytest.fail(f"{job} did not end: {self.look(job)}\n" + "\n".join(lines))


@pytest.fixture(scope="module")
def matrix() -> Iterator[Matrix]:
    with tempfile.TemporaryDirectory(prefix="mx-") as name:
        folder = Path(name)
        token = folder / "ray_token"
        token.write_text("0123456789abcdef" * 4)
        token.chmod(0o600)
        running = Running(folder)
        env = {**running.env, **head_environment(token, free_port())}
        env["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "1"  # two nodes, also where one is usual
        nodes = Nodes(folder, env)
        found: Matrix | None = None
        try:
            nodes.start("head")
            command = [sys.executable, "-m", "orchestrator.cli", "up", "--no-agent"]
            command += ["--port", str(running.port), "--mqtt-port", str(running.mqtt_port)]
            log = (folder / "up.log").open("ab")
            running.up = subprocess.Popen(command, env=running.env, stdout=log, stderr=log)
            until(lambda: "Ray runtime started" in (folder / "head.log").read_text(), START)
            nodes.start("second")
            argosy = until(running.connect, START)
            dashboard = f"http://127.0.0.1:{nodes.dashboard}"
            found = Matrix(running, nodes, {**env, "RAY_ADDRESS": dashboard}, argosy)
            found.start_agent()
            yield found
        finally:
            if os.environ.get("KEEP_MATRIX"):
                for kept in ("agent.log", "up.log", "head.log", "second.log", "home/argosy.db"):
                    shutil.copy(folder / kept, os.environ["KEEP_MATRIX"])
            if found is not None and found.agent is not None:
                found.agent.kill()
                found.agent.wait()
            running.stop()
            for process in marked(running.mark):
                process.kill()
            for top in nodes.started.values():
                top.wait()
