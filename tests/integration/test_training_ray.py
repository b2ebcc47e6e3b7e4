"""Jobs on a real Ray cluster, started by the real agent, against a real HTTP server.

One cluster for the file: the agent starts it as ``argosy up`` would.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from schemas.job import TERMINAL_JOB_STATES, JobCause, JobState
from schemas.jobfile import JobSpec, StopRules
from schemas.model import Manifest
from tests.unit.workers.fake_api import FakeApi
from workers.cluster import temp_dir_of
from workers.driver import MARK
from workers.processes import kill_all, marked

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
START = 120.0
LONG = 240.0

TASKS = """
from workers.recipes.digits import Digits


class Forgetful(Digits):
    def optimizer(self, model):
        raise RuntimeError("no optimizer today")
"""


def until(condition: Callable[[], object], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def alive(submission: str) -> list[psutil.Process]:
    found = []
    for process in marked(MARK, submission):
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


class Platform:
    """The agent as a process, with its cluster, and the API it works for."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.api = FakeApi(lease_seconds=9.0)
        self.api.write_worker_json(home)
        (home / "their_tasks.py").write_text(TASKS)
        environment = {**os.environ, "PYTHONPATH": str(home), "ARGOSY_TRAINING_TEST": str(home)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "workers.cli", "agent", "--home", str(home), "--embedded"],
            env=environment,
            stderr=(home / "agent.log").open("wb"),
        )
        self.ray = home / "agent" / "ray.json"

    def all_processes(self) -> list[psutil.Process]:
        return marked("ARGOSY_TRAINING_TEST", str(self.home))

    def end(self) -> None:
        self.process.terminate()
        until(lambda: self.process.poll() is not None, 10)
        kill_all(self.all_processes, seconds=10)
        self.process.wait()
        self.api.close()


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory):
    found = Platform(tmp_path_factory.mktemp("training"))
    try:
        assert until(lambda: found.ray.exists() or found.process.poll() is not None, START)
        assert found.process.poll() is None, (found.home / "agent.log").read_text()
        yield found
    finally:
        found.end()


def ended(platform: Platform, job) -> JobState:
    assert platform.api.wait(lambda: job.state in TERMINAL_JOB_STATES, LONG), job.logs
    return job.state


def example() -> JobSpec:
    return JobSpec.model_validate(
        yaml.safe_load((ROOT / "examples" / "digits" / "job.yaml").read_text())
    )


def test_the_cluster_listens_on_loopback_and_asks_for_a_token(platform) -> None:
    address = json.loads(platform.ray.read_text())
    assert set(address) == {"address", "dashboard"}
    listening = [
        connection.laddr.ip
        for process in platform.all_processes()
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) > 5
    assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}
    assert httpx.get(f"{address['dashboard']}/api/jobs/", timeout=10).status_code == 401
    token = platform.home / "agent" / "ray_token"
    assert token.stat().st_mode & 0o777 == 0o600


def test_the_example_is_trained_on_two_workers_and_registered(platform) -> None:
    spec = example()
    job = platform.api.submit(spec)
    assert ended(platform, job) is JobState.SUCCEEDED, (job.cause, job.detail, job.logs)

    states = [state for _, state in job.states]
    assert states == [
        JobState.EXPORTING,
        JobState.OPTIMIZING,
        JobState.REGISTERING,
        JobState.SUCCEEDED,
    ]
    assert job.seqs == sorted(set(job.seqs))
    epochs = [point.epoch for point in job.metrics]
    assert epochs == list(range(1, len(epochs) + 1))
    assert job.metrics[-1].values["accuracy"] >= spec.stop.target
    assert {"loss", "accuracy", "samples_per_s", "epoch_seconds"} <= set(job.metrics[0].values)

    (manifest,) = platform.api.models["digits"]
    assert Manifest.model_validate(manifest) == manifest
    assert {v.id for v in manifest.variants} | {r.id for r in manifest.rejected} == {
        "fp32",
        "int8",
    }
    (test_accuracy,) = [
        a for a in manifest.variant("fp32").accuracy if (a.split, a.n) == ("test", 401)
    ]
    assert test_accuracy.value >= 0.96
    assert manifest.lineage.job == job.id
    assert manifest.lineage.epochs == len(epochs)
    for file in manifest.files():
        assert len(platform.api.artifacts[file.sha256]) == file.size
    kept = list((platform.home / "jobs" / job.id / "train").glob("checkpoint_*"))
    assert 1 <= len(kept) <= 2, "the best and the last"
    assert until(lambda: not alive(f"{job.id}-1"), 20), "nothing of it runs on"


@pytest.mark.parametrize(
    ("task", "says"),
    [("their_tasks:Forgetful", "their_tasks.py:7: RuntimeError: no optimizer today")],
)
def test_an_error_in_the_users_code_fails_the_job_once(platform, task, says) -> None:
    job = platform.api.submit(example().model_copy(update={"task": task}))
    assert ended(platform, job) is JobState.FAILED
    assert job.cause is JobCause.USER_CODE
    assert says in job.detail
    assert "\n" not in job.detail
    assert job.attempt == 1
    assert job.outcomes == []


def test_a_job_outlives_its_worker_and_its_driver_and_ends_at_a_cancel(platform) -> None:
    stop = StopRules(max_epochs=100_000, patience=10_000, require_target=False)
    job = platform.api.submit(example().model_copy(update={"stop": stop}))
    api = platform.api

    def epochs() -> list[int]:
        return [point.epoch for point in job.metrics]

    assert api.wait(lambda: len(job.metrics) >= 3, LONG), job.logs

    # A worker dies: Ray Train starts the group again, from the last checkpoint.
    workers = [p for p in alive(f"{job.id}-1") if "RayTrainWorker" in " ".join(p.cmdline())]
    assert len(workers) == 2
    before = epochs()[-1]
    workers[0].kill()
    assert api.wait(lambda: epochs()[-1] >= before + 8, LONG), job.logs
    assert job.attempt == 1
    assert 1 not in epochs()[3:], "it did not begin anew"

    # The driver dies: the agent says so, and the next attempt goes on from there.
    (driver,) = [p for p in alive(f"{job.id}-1") if "workers.driver" in " ".join(p.cmdline())]
    driver.kill()
    assert api.wait(lambda: job.outcomes, LONG)
    assert job.outcomes[0].cause is JobCause.DRIVER_DIED
    assert not alive(f"{job.id}-1"), "its processes ended before it was given back"
    reached, seen = epochs()[-1], len(job.metrics)
    assert api.wait(lambda: len(job.metrics) >= seen + 2, LONG), job.logs
    assert job.attempt == 2
    assert epochs()[seen] >= reached - 1, "resumed, not begun anew"

    # A cancel: everything of it is gone within ten seconds.
    asked = time.monotonic()
    with api.changed:
        job.cancel = True
    assert api.wait(lambda: job.state is JobState.CANCELLED, 30)
    assert until(lambda: not alive(f"{job.id}-2"), 5)
    assert time.monotonic() - asked < 10
    assert job.outcomes[-1].cancelled


def test_sigterm_ends_the_agent_and_every_process_of_ray_at_once(platform) -> None:
    processes = platform.all_processes()
    assert len(processes) > 5
    temp_dir = temp_dir_of(platform.process.pid)
    assert temp_dir.stat().st_mode & 0o777 == 0o700
    asked = time.monotonic()
    platform.process.send_signal(signal.SIGTERM)
    assert platform.process.wait(10) == 0
    assert time.monotonic() - asked < 4
    assert platform.all_processes() == []
    assert not temp_dir.exists()
    assert not platform.ray.exists()


def test_an_agent_that_is_killed_leaves_no_ray_behind(tmp_path: Path) -> None:
    found = Platform(tmp_path)
    try:
        assert until(lambda: len(found.all_processes()) > 6, START)
        found.process.kill()
        found.process.wait()
        assert until(lambda: not found.all_processes(), 5), found.all_processes()
        assert until(lambda: not temp_dir_of(found.process.pid).exists(), 2)
    finally:
        found.end()


def test_an_embedded_agent_ends_with_its_parent(tmp_path: Path) -> None:
    api = FakeApi()
    api.write_worker_json(tmp_path)
    command = [sys.executable, "-m", "workers.cli", "agent", "--home", str(tmp_path), "--embedded"]
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys, time; subprocess.Popen(sys.argv[1:]); time.sleep(600)",
            *command,
        ],
        env={**os.environ, "ARGOSY_TRAINING_TEST": str(tmp_path)},
        stderr=subprocess.DEVNULL,
    )

    def found() -> list[psutil.Process]:
        return marked("ARGOSY_TRAINING_TEST", str(tmp_path))

    try:
        assert until(lambda: len(found()) > 4, START), "the agent has started Ray's first processes"
        parent.kill()
        parent.wait()
        assert until(lambda: not found(), 6), found()
    finally:
        kill_all(found, seconds=10)
        parent.wait()
        api.close()
