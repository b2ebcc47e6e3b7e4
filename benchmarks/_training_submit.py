"""From ``submit`` to the first step of a job, on a platform whose cluster is warm.

The real thing: ``argosy up``, the client that an operator's program would use, a code
folder that travels to the cluster, the queue, the agent, a driver of its own.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import _training_task
from benchmarks._training_marks import first_step, read
from orchestrator.client import Argosy
from orchestrator.client.errors import ArgosyError
from schemas.job import JobState, JobView
from schemas.jobfile import JobSpec

LIMIT_SECONDS = 300
POLL = 0.02


def measure(folder: Path, jobs: int, workers: int, gpus: int, *, warm: bool) -> list[float]:
    """Seconds from submit to the first step, of so many jobs; warm: after another one."""
    code = folder / "code"
    code.mkdir()
    shutil.copy(_training_task.__file__, code / "timed.py")
    found = []
    with _platform(folder) as argosy:
        for number in range(jobs + warm):
            marks = folder / f"submit{number}"
            spec = spec_of(marks, workers, gpus)
            submitted = time.time()
            view = argosy.jobs.submit(spec, code)
            view = _ended(argosy, view)
            if view.state is not JobState.SUCCEEDED:
                msg = f"the job ended {view.state}: {view.detail}"
                raise RuntimeError(msg)
            if number >= warm:
                found.append(first_step(read(marks)) - submitted)
    return found


def spec_of(marks: Path, workers: int, gpus: int) -> JobSpec:
    """A short job of the user's own code."""
    return JobSpec.model_validate(
        {
            "name": "bench",
            "task": "timed:TimedDigits",
            "config": {"repeat": 1, "marks": str(marks)},
            "resources": {"workers": workers, "gpus_per_worker": gpus},
            "dataset": {"check": "off"},
            "optimize": {"int8": False},
            "stop": {"max_epochs": 1, "require_target": False},
        }
    )


def _ended(argosy: Argosy, view: JobView) -> JobView:
    return argosy.jobs.wait(view.id, timeout=LIMIT_SECONDS)


@contextmanager
def _platform(folder: Path) -> Iterator[Argosy]:
    home = folder / "home"
    command = [sys.executable, "-m", "orchestrator.cli", "up", "--home", str(home)]
    command += ["--port", str(_free_port()), "--mqtt-port", str(_free_port())]
    env = {k: v for k, v in os.environ.items() if not k.startswith("ARGOSY_")}
    with (folder / "up.log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:
        yield _client(home, process, folder / "up.log")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _client(home: Path, process: subprocess.Popen[bytes], log: Path) -> Argosy:
    deadline = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            argosy = Argosy.from_profile(home, {})
            # An agent that has asked for work has its cluster up.
            if argosy.health().ok and next(iter(argosy.agents.list()), None) is not None:
                return argosy
            argosy.close()
        except ArgosyError:
            pass
        time.sleep(POLL)
    msg = f"the platform did not come up: {log.read_text()[-2000:]}"
    raise RuntimeError(msg)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
