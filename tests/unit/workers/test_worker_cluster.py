from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from workers.agent import head as cluster


def test_the_head_has_no_fixed_port_and_listens_on_loopback() -> None:
    command = cluster.head_command(Path("/t"), 4, 1111, 2222)
    ports = dict(re.findall(r"--([a-z-]*port)=(\d+)", " ".join(command)))
    given = {"dashboard-port": "1111", "ray-client-server-port": "2222"}
    assert {k: v for k, v in ports.items() if v != "0"} == given
    assert {"port", "min-worker-port", "max-worker-port", "dashboard-agent-listen-port"} <= set(
        ports
    )
    assert "--dashboard-host=127.0.0.1" in command
    environment = cluster.head_environment(Path("/token"), 3333)
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_USAGE_STATS_ENABLED"] == "0"


def test_free_ports_differ() -> None:
    ports = cluster.free_ports(5)
    assert len(set(ports)) == 5
    assert min(ports) >= 1024


def test_two_workers_fit_on_the_smallest_machine() -> None:
    assert cluster.logical_cpus(1) == cluster.logical_cpus(2) == 4
    assert cluster.logical_cpus(64) == 64


def test_only_the_folders_of_dead_agents_are_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_PREFIX", str(tmp_path / "argosy-ray-"))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for name in (f"argosy-ray-{gone.pid}", f"argosy-ray-{os.getpid()}", "argosy-ray-x", "other"):
        (tmp_path / name).mkdir()
    cluster.sweep_stale()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {f"argosy-ray-{os.getpid()}", "argosy-ray-x", "other"}
