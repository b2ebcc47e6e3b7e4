"""A Ray head of the agent's own, on this machine."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import psutil

from workers.agent.scrub import harmless
from workers.errors import ClusterError
from workers.files import write_atomic

START_SECONDS = 90.0
STOP_SECONDS = 3.5
POLL = 0.1
OBJECT_STORE_BYTES = 128 * 1024**2
MIN_CPUS = 4
"""Logical CPUs of the local head at least: two workers and room for a third process on a
two-core machine. Ray counts them, it does not bind to them."""

ONE_NODE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Everything listens on loopback, which Ray otherwise refuses to do; no node can join."""

_PREFIX = "/tmp/argosy-ray-"  # noqa: S108 - made with mode 0700, removed by the keeper


@dataclass(frozen=True, slots=True)
class Address:
    """Where a cluster is. gcs: host:port, for ``ray.init``. dashboard: the Jobs API's URL."""

    gcs: str
    dashboard: str


def logical_cpus(physical: int) -> int:
    """How many CPUs the local head offers."""
    return max(physical, MIN_CPUS)


def temp_dir_of(pid: int) -> Path:
    """The folder of the agent ``pid``; short, as Unix sockets' paths have 107 characters."""
    return Path(f"{_PREFIX}{pid}")


def sweep_stale() -> None:
    """Remove what is left of agents that were killed together with their keeper."""
    for path in Path(_PREFIX).parent.glob(f"{Path(_PREFIX).name}*"):
        pid = path.name.rpartition("-")[2]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(path, ignore_errors=True)


def free_ports(n: int) -> list[int]:
    """Ports that were free a moment ago, on loopback."""
    sockets = [socket.socket() for _ in range(n)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def head_environment(token_file: Path, metrics_port: int) -> dict[str, str]:
    """The variables of a head on this machine and of all that speaks to it."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Fixed at 44227 otherwise, and a second Ray on the machine would collide.
        "DASHBOARD_METRIC_PORT": str(metrics_port),
        "RAY_JOB_STOP_WAIT_TIME_S": "2",
        "RAY_DEDUP_LOGS": "0",
        # Ray would start a worker per CPU for jobs without variables, and ours all have some.
        "RAY_prestart_worker_first_driver": "0",
    }


def head_command(temp_dir: Path, cpus: int, dashboard: int, client: int) -> list[str]:
    """``ray start`` with every port free or given, and no part that a single node lacks."""
    return [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        "--head",
        "--block",
        "--disable-usage-stats",
        "--no-monitor",
        "--include-log-monitor=false",
        "--include-dashboard=true",
        "--dashboard-host=127.0.0.1",
        "--node-ip-address=127.0.0.1",
        f"--dashboard-port={dashboard}",
        f"--ray-client-server-port={client}",
        "--port=0",
        "--dashboard-agent-listen-port=0",
        "--dashboard-agent-grpc-port=0",
        "--min-worker-port=0",
        "--max-worker-port=0",
        f"--num-cpus={cpus}",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        f"--temp-dir={temp_dir}",
    ]


class LocalHead:
    """A Ray head on this machine, kept by ``workers.agent.keeper``.

    Args:
        home: its token and log go below ``home``.
        cpus: logical CPUs to offer.
        passed: variables of this process that user code may see, besides the harmless.
    """

    def __init__(self, home: Path, cpus: int, passed: Collection[str] = ()) -> None:
        self.temp_dir = temp_dir_of(os.getpid())
        # Ray opens its own folder to everyone; the one around it is this user's alone.
        self._ray_dir = self.temp_dir / "r"
        self._home = home
        self._cpus = cpus
        self._passed = frozenset(passed)
        self._keeper: subprocess.Popen[bytes] | None = None
        self.log = home / "logs" / "ray.log"

    def start(self, cancelled: threading.Event) -> Address:
        """Start the head and wait until the Jobs API answers.

        Raises:
            ClusterError: it did not come up, or ``cancelled`` was set.
        """
        token_file = self._home / "agent" / "ray_token"
        write_atomic(token_file, secrets.token_hex(32).encode(), mode=0o600)
        dashboard, client, metrics = free_ports(3)
        environment = head_environment(token_file, metrics) | ONE_NODE
        sweep_stale()
        self.temp_dir.mkdir(mode=0o700)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
            os.environ.pop(name, None)  # another cluster's
        # For this process too: it speaks to the head through Ray's client.
        os.environ.update(environment)
        command = head_command(self._ray_dir, self._cpus, dashboard, client)
        self._keeper = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "workers.agent.keeper",
                str(self.temp_dir),
                str(self.log),
                *command,
            ],
            stdin=subprocess.PIPE,
            start_new_session=True,
            # All user code comes from here: it must not see what the agent may.
            env={**harmless(os.environ, self._passed), **environment},
        )
        return self._wait(f"http://127.0.0.1:{dashboard}", cancelled)

    def _wait(self, dashboard: str, cancelled: threading.Event) -> Address:
        address_file = self._ray_dir / "ray_current_cluster"
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and not cancelled.wait(POLL):
            if not self.alive():
                msg = f"Ray ended as it started; {self._last_line()}"
                raise ClusterError(msg, f"see {self.log}")
            if address_file.is_file() and (gcs := address_file.read_text().strip()):
                return Address(gcs, dashboard)
        if cancelled.is_set():
            msg = "stopped while Ray was starting"
            raise ClusterError(msg)
        msg = f"Ray did not start within {START_SECONDS:.0f} s"
        raise ClusterError(msg, f"see {self.log}")

    def alive(self) -> bool:
        """Whether the keeper, and so the head, runs."""
        return self._keeper is not None and self._keeper.poll() is None

    def stop(self) -> None:
        """End every process of the head and remove its folder; waits for it."""
        if self._keeper is None:
            return
        if self._keeper.stdin is not None:
            self._keeper.stdin.close()
        try:
            self._keeper.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()

    def _last_line(self) -> str:
        try:
            lines = self.log.read_text(errors="replace").strip().splitlines()
        except OSError:
            return "it left no log"
        return lines[-1][:500] if lines else "its log is empty"
