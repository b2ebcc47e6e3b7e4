from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.job import JobCause
from schemas.jobfile import JobSpec
from workers import cluster
from workers.blame import blame, is_broken_link, user_code
from workers.errors import JobFailed
from workers.spool import Spool, point_of
from workers.train import _check_room, failure_of


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


def test_a_job_that_never_fits_fails_at_once() -> None:
    spec = JobSpec(
        name="x",
        task="a:B",
        stop={"target": 0.9},
        resources={"workers": 3, "gpus_per_worker": 1},
    )
    with pytest.raises(JobFailed, match="wants 3 GPU, the cluster has 0"):
        _check_room(spec, {"CPU": 8.0})
    with pytest.raises(JobFailed, match="wants 3 CPU, the cluster has 2"):
        _check_room(spec, {"CPU": 2.0, "GPU": 3.0})
    _check_room(spec, {"CPU": 3.0, "GPU": 3.0})


def test_the_cause_is_found_under_rays_wrappers() -> None:
    class WorkerGroupError(Exception):
        def __init__(self, failures: dict[int, Exception]) -> None:
            super().__init__("Training failed due to worker errors")
            self.worker_failures = failures

    class WrapperError(Exception):
        def __init__(self, cause: Exception) -> None:
            super().__init__("wrapped")
            self._base_exc = cause

    inner = JobFailed(JobCause.DIVERGED, "nan")
    broken = RuntimeError("[gloo] Connection closed by peer")
    found = failure_of(WorkerGroupError({0: broken, 1: WrapperError(inner)}))
    assert found is inner
    assert failure_of(WorkerGroupError({0: broken})).cause is JobCause.INTERNAL
    assert failure_of(RuntimeError("task died: OutOfMemoryError")).cause is (JobCause.OUT_OF_MEMORY)


def test_a_lost_worker_is_not_blamed_on_the_code_in_which_it_was_noticed() -> None:
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer")
    with pytest.raises(RuntimeError, match="Read error") as caught, user_code():
        raise lost
    assert caught.value is lost
    with pytest.raises(JobFailed), user_code():
        raise ValueError


def test_memory_and_broken_links_are_told_apart_from_user_errors() -> None:
    assert blame(MemoryError()).cause is JobCause.OUT_OF_MEMORY
    assert is_broken_link(RuntimeError("Gloo: Connection reset by peer"))
    assert not is_broken_link(ValueError("connection reset"))
    with pytest.raises(ValueError, match="invalid literal") as caught:
        int("x")
    assert blame(caught.value).cause is JobCause.USER_CODE
    assert f"{__file__}:" in blame(caught.value).detail


def test_a_spool_gives_each_whole_line_once(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    reader = Spool(path)
    assert reader.read() == ()
    for epoch in (1, 2):
        Spool(path).add(point_of({"loss": 0.5, "epoch": epoch}, epoch))
    with path.open("ab") as file:
        file.write(b'{"epoch": 3, "at": "2026-')
    assert [p.epoch for p in reader.read()] == [1, 2]
    assert reader.read() == ()
    with path.open("ab") as file:
        file.write(b'01-01T00:00:00Z", "values": {}}\n')
    (last,) = reader.read()
    assert (last.epoch, last.values) == (3, {})
