"""Jobs on a real Ray cluster, started by the real agent, against a real HTTP server.

One cluster for the file: the agent starts it as ``argosy up`` would, and runs two jobs at
a time, for most of them wait more than they compute.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from orchestrator.client.pack import packed
from schemas.job import TERMINAL_JOB_STATES, JobCause, JobState
from schemas.jobfile import JobSpec
from schemas.model import Manifest
from tests.fakes.processes import command_of
from tests.unit.workers.fake_api import FakeApi, FakeJob
from workers.agent.head import temp_dir_of
from workers.agent.processes import kill_all, marked
from workers.order import JOB_TOKEN, MARK

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

START = 120.0
LONG = 400.0
TARGET = 0.9

TASKS = """import logging
import os

import torch
from workers.recipes.digits import Digits


class Forgetful(Digits):
    def optimizer(self, model):
        raise RuntimeError("no optimizer today")


class Chatty(Digits):
    def model(self):
        print("a net of their own")
        logging.getLogger("their").warning("with a warning")
        return super().model()


class Endless(Digits):
    def loss(self, logits, y):
        while os.environ.get("RANK") == "1":
            pass
        return super().loss(logits, y)


class Greedy(Digits):
    def augment(self, x, generator):
        held = [torch.ones(2**25) for _ in range(100)]
        return x


class NotANumber(Digits):
    def loss(self, logits, y):
        return super().loss(logits, y) * float("nan")


class Mislabelled(Digits):
    labels = ("0", "1")


class Quiet(Digits):
    pass
"""

IMPORTS = """import os

import xgbost
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


@dataclass(frozen=True)
class Fault:
    """A job that fails. says: a pattern of what its user is told.

    slow: its way from the worker to the user is that of another one here.
    """

    task: str
    cause: JobCause
    says: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    slow: bool = False

    def submit(self, platform: Platform) -> FakeJob:
        return platform.submit(self.task, **self.changes)


FAULTS = (
    Fault(
        "their_tasks:Endless",
        JobCause.HUNG,
        r"no step for 1\d s; rank 1 is in their_tasks.py:2\d in loss",
        {"resources": {"workers": 2}, "training": {"hang_minutes": 0.25}},
    ),
    Fault(
        "their_tasks:Chatty",
        JobCause.RESOURCES,
        (
            r"waited for 0.25 min: asks for 1 worker of 1 CPU and 1 GPU; "
            r"the cluster has \d+ CPUs and 0 GPUs, of which \d+ CPUs are free; lower"
        ),
        {"resources": {"gpus_per_worker": 1, "wait_minutes": 0.25}},
    ),
    Fault(
        "their_tasks:Greedy",
        JobCause.OUT_OF_MEMORY,
        (
            r"their_tasks.py:29: out of memory: RuntimeError: .*can't allocate memory.*"
            "; lower the batch size, or raise resources.memory_gb"
        ),
        {"resources": {"memory_gb": 1.5}},
    ),
    Fault(
        "their_tasks:Forgetful",
        JobCause.USER_CODE,
        "their_tasks.py:10: RuntimeError: no optimizer today",
    ),
    Fault(
        "their_imports:Task",
        JobCause.USER_CODE,
        (
            "their_imports.py:3: No module named 'xgbost'; "
            "give the folder a requirements.txt that names xgbost"
        ),
    ),
    Fault("their_tasks:Mislabelled", JobCause.BAD_DATA, "label"),
    Fault("their_tasks:NotANumber", JobCause.DIVERGED, "batch", slow=True),
    Fault(
        "their_tasks:Quiet",
        JobCause.TARGET_MISSED,
        "the target is 1.0",
        {"stop": {"max_epochs": 1, "target": 1.0}},
        slow=True,
    ),
)


class Platform:
    """The agent as a process, with its cluster, and the API it works for."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.api = FakeApi(lease_seconds=9.0)
        self.api.write_worker_json(home)
        folder = home / "theirs"
        folder.mkdir()
        (folder / "their_tasks.py").write_text(TASKS)
        (folder / "their_imports.py").write_text(IMPORTS)
        with packed(folder) as archive:
            self.api.artifacts[archive.code.sha256] = archive.path.read_bytes()
            self.code = archive.code
        environment = {**os.environ, "ARGOSY_TREE": str(home)}
        command = [sys.executable, "-m", "workers.cli", "agent", "--home", str(home), "--embedded"]
        self.process = subprocess.Popen(
            [*command, "--slots", "2"],
            env=environment,
            stderr=(home / "agent.log").open("wb"),
        )
        self.ray = home / "agent" / "ray.json"

    def submit(self, task: str, **changes: object) -> FakeJob:
        """A job of a task in the user's folder."""
        spec = {
            "name": "theirs",
            "task": task,
            "code": self.code.model_dump(),
            "config": {"width": 0.25},
            "stop": {"max_epochs": 1, "require_target": False},
            "optimize": {"int8": False},
            **changes,
        }
        return self.api.submit(JobSpec.model_validate(spec))

    def all_processes(self) -> list[psutil.Process]:
        return marked("ARGOSY_TREE", str(self.home))

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


@pytest.fixture(scope="module")
def faulty(platform) -> dict[str, FakeJob]:
    """The jobs that fail by their user's making, all at once, by their number."""
    tried = [number for number, fault in enumerate(FAULTS) if not fault.slow]
    return {number: FAULTS[number].submit(platform) for number in tried}


@pytest.fixture(scope="module")
def made(platform, faulty) -> FakeJob:
    """A user's task on two workers, trained to its target, pruned and registered."""
    job = platform.submit(
        "their_tasks:Chatty",
        name="digits",
        config={"width": 0.5, "lr": 0.003},
        resources={"workers": 2},
        stop={"metric": "accuracy", "target": TARGET, "max_epochs": 15},
        optimize={"prune": [0.5], "finetune_epochs": 2, "max_accuracy_drop": 0.3, "max_trials": 4},
    )
    assert ended(platform, job) is JobState.SUCCEEDED, (job.cause, job.detail, job.logs)
    left = alive(f"{job.id}-1")
    assert until(lambda: not alive(f"{job.id}-1"), 20), f"nothing of it runs on: {left}"
    return job


def test_a_job_is_trained_on_two_workers_and_registered(platform, made) -> None:
    assert [state for _, state in made.states] == [
        JobState.EXPORTING,
        JobState.OPTIMIZING,
        JobState.REGISTERING,
        JobState.SUCCEEDED,
    ]
    assert made.seqs == sorted(set(made.seqs))
    epochs = [point.epoch for point in made.metrics]
    assert epochs == list(range(1, len(epochs) + 1))
    assert made.metrics[-1].values["accuracy"] >= TARGET
    assert {"loss", "accuracy", "samples_per_s", "epoch_seconds"} <= set(made.metrics[0].values)

    (manifest,) = platform.api.models["digits"]
    assert Manifest.model_validate(manifest) == manifest
    assert {"fp32", "int8"} <= {one.id for one in (*manifest.variants, *manifest.rejected)}
    (test_accuracy,) = [
        a for a in manifest.variant("fp32").accuracy if (a.split, a.n) == ("test", 401)
    ]
    assert test_accuracy.value >= TARGET - 0.05
    assert manifest.lineage.job == made.id
    assert manifest.baseline == made.profile.baseline
    assert manifest.lineage.dataset_sha256 == made.profile.sha256
    assert manifest.lineage.epochs == len(epochs)
    for file in manifest.files():
        assert len(platform.api.artifacts[file.sha256]) == file.size
    kept = list((platform.home / "jobs" / made.id / "train").glob("checkpoint_*"))
    assert 1 <= len(kept) <= 2, "the best and the last"


def test_what_workers_print_and_take_is_told(platform, made) -> None:
    said = [(line.level, line.text) for line in made.logs]
    for rank in (0, 1):
        assert ("info", f"[rank {rank}] a net of their own") in said
        assert ("warning", f"[rank {rank}] with a warning") in said
    assert (platform.home / "jobs" / made.id / "profile.json").is_file()
    assert max(live.workers or 0 for live in made.live) == 2
    assert max(live.rss_mb or 0 for live in made.live) > 100
    usage = made.usage[1]
    assert 0 < usage.wall_seconds < LONG
    assert usage.cpu_used_seconds > 2


def test_pruned_nets_are_trained_on_the_cluster(platform, made) -> None:
    (manifest,) = platform.api.models["digits"]
    pruned = {v.id: v for v in manifest.variants if v.pruned}
    assert pruned, (manifest.rejected, made.logs)
    assert min(v.file.size for v in pruned.values()) < 0.2 * manifest.variant("fp32").file.size
    assert {"prune", "finetune", "quantize_static"} <= {p.name for p in manifest.lineage.passes}
    told = "\n".join(line.text for line in made.logs)
    assert "pruned 50%, epoch 2" in told, "the task's own lines reach the job's log"
    assert "kept p50-int8: accuracy" in told
    folder = platform.home / "jobs" / made.id
    assert not (folder / "trials").exists(), "what was tried goes when the version is there"


def test_what_all_jobs_share_on_the_cluster_is_no_jobs_process(platform, made) -> None:
    (coordinator,) = [
        process
        for process in platform.all_processes()
        if "AutoscalingCoordinator" in command_of(process)
    ]
    environment = coordinator.environ()
    assert (environment[MARK], environment[JOB_TOKEN]) == ("", "")


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(number, id=fault.cause, marks=[pytest.mark.slow] if fault.slow else [])
        for number, fault in enumerate(FAULTS)
    ],
)
def test_a_failure_of_the_users_making_is_explained_and_ends_the_job_once(
    platform, faulty, number: int
) -> None:
    fault = FAULTS[number]
    job = faulty.get(number) or fault.submit(platform)
    assert ended(platform, job) is JobState.FAILED
    assert job.cause is fault.cause, (job.detail, job.logs)
    assert re.search(fault.says, job.detail), job.detail
    assert "\n" not in job.detail
    assert job.attempt == 1
    assert job.outcomes == []
    if fault.cause is JobCause.RESOURCES:
        assert job.notices
        assert job.notices[0].startswith("asks for 1 worker of 1 CPU and 1 GPU")
    assert until(lambda: not alive(f"{job.id}-1"), 10), "nothing of it runs on"


def test_a_cancel_ends_every_process_and_keeps_the_last_checkpoint(platform) -> None:
    stop = {"max_epochs": 100_000, "patience": 10_000, "require_target": False}
    job = platform.submit("their_tasks:Quiet", resources={"workers": 2}, stop=stop)
    api = platform.api
    assert api.wait(lambda: len(job.metrics) >= 3, LONG), job.logs
    # A cancel: everything of it is gone within ten seconds.
    asked = time.monotonic()
    with api.changed:
        job.cancel = True
    assert api.wait(lambda: job.state is JobState.CANCELLED, 30)
    assert until(lambda: not alive(f"{job.id}-1"), 5)
    assert time.monotonic() - asked < 10
    assert job.outcomes[-1].cancelled
    assert list((platform.home / "jobs" / job.id / "train").glob("checkpoint_*"))


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
        env={**os.environ, "ARGOSY_TREE": str(tmp_path)},
        stderr=subprocess.DEVNULL,
    )

    def found() -> list[psutil.Process]:
        return marked("ARGOSY_TREE", str(tmp_path))

    try:
        assert until(lambda: len(found()) > 4, START), "the agent has started Ray's first processes"
        parent.kill()
        parent.wait()
        assert until(lambda: not found(), 6), found()
    finally:
        kill_all(found, seconds=10)
        parent.wait()
        api.close()
