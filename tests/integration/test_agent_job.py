"""A job from a user's folder with requirements: the whole way, by the real agent."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from orchestrator.client.pack import packed
from schemas.job import TERMINAL_JOB_STATES, JobCause, JobState
from schemas.jobfile import JobSpec
from tests.fakes.user_code import until, wheel
from tests.unit.workers.fake_api import FakeApi, FakeJob
from workers.agent.processes import kill_all, marked
from workers.order import MARK

pytestmark = pytest.mark.integration

START = 120.0
LONG = 240.0

TASK = """
import greeting
from workers.recipes.digits import Digits


class Mine(Digits):
    def loss(self, outputs, y):
        assert greeting.TEXT == "hello"
        return super().loss(outputs, y)
"""


class World:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.api = FakeApi(lease_seconds=12.0)
        self.api.write_worker_json(home)
        self.index = home / "index"
        wheel(self.index, "greeting", "1.0", {"greeting.py": 'TEXT = "hello"\n'})
        self.agent = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "workers.cli", "agent", "--home", str(self.home), "--embedded"],
            env={**os.environ, "ARGOSY_TREE": str(self.home)},
            stderr=(self.home / "agent.log").open("ab"),
        )

    def submit(self, requirements: str, **changes: object) -> FakeJob:
        folder = self.home / f"code-{hashlib.sha256(requirements.encode()).hexdigest()[:8]}"
        folder.mkdir(exist_ok=True)
        (folder / "mine.py").write_text(TASK)
        (folder / "requirements.txt").write_text(requirements)
        with packed(folder) as archive:
            self.api.artifacts[archive.code.sha256] = archive.path.read_bytes()
            spec = {
                "name": "mine",
                "task": "mine:Mine",
                "code": archive.code.model_dump(),
                "stop": {"max_epochs": 2, "require_target": False},
                "optimize": {"int8": False},
                **changes,
            }
        return self.api.submit(JobSpec.model_validate(spec))

    def all(self) -> list[psutil.Process]:
        return marked("ARGOSY_TREE", str(self.home))

    def log(self) -> str:
        return (self.home / "agent.log").read_text()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory):
    found = World(tmp_path_factory.mktemp("w"))
    try:
        yield found
    finally:
        found.agent.terminate()
        until(lambda: found.agent.poll() is not None, 10)
        kill_all(found.all, seconds=10)
        found.agent.wait()
        found.api.close()


def test_code_with_requirements_is_trained_with_them(world) -> None:
    index = f"--no-index\n--find-links {world.index}\ngreeting\n"
    job = world.submit(index)
    started = time.monotonic()
    assert world.api.wait(lambda: job.state in TERMINAL_JOB_STATES, LONG), world.log()
    assert job.state is JobState.SUCCEEDED, (job.cause, job.detail, job.outcomes, world.log())
    assert time.monotonic() - started < LONG
    assert len(job.metrics) == 2
    assert world.api.capacities[-1].cpus >= 4
    (folder,) = (world.home / "agent" / "code").iterdir()
    assert folder.name == job.spec.code.sha256


def test_requirements_that_cannot_be_met_fail_the_job_once_with_their_name(world) -> None:
    index = f"--no-index\n--find-links {world.index}\ngreeting>=9\n"
    job = world.submit(index)
    assert world.api.wait(lambda: job.state in TERMINAL_JOB_STATES, LONG), world.log()
    assert (job.state, job.cause) == (JobState.FAILED, JobCause.ENVIRONMENT)
    assert job.detail == "requirements.txt: No matching distribution found for greeting>=9"
    assert job.attempt == 1


@pytest.mark.slow
def test_a_killed_agent_takes_its_jobs_along_and_its_successor_goes_on(world) -> None:
    index = f"--no-index\n--find-links {world.index}\ngreeting\n"
    stop = {"max_epochs": 100_000, "patience": 10_000, "require_target": False}
    job = world.submit(index, stop=stop)
    assert world.api.wait(lambda: len(job.metrics) >= 3, LONG), world.log()
    world.agent.send_signal(signal.SIGKILL)
    world.agent.wait()
    assert until(lambda: not marked(MARK, f"{job.id}-1"), 10), "no driver runs on as an orphan"
    seen = job.metrics[-1].epoch
    world.agent = world.start()
    assert world.api.wait(lambda: job.metrics[-1].epoch > seen + 1, LONG), world.log()
    assert job.attempt == 2
    assert [o.cause for o in job.outcomes] == [JobCause.DRIVER_DIED]
    job.cancel = True
    started = time.monotonic()
    assert world.api.wait(lambda: job.state is JobState.CANCELLED, 15), world.log()
    assert until(lambda: not marked(MARK, f"{job.id}-2"), 5)
    assert time.monotonic() - started < 10
