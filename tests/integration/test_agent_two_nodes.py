"""A cluster by address, of two nodes with token authentication: what reaches the second one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.fakes.processes import command_of
from tests.fakes.user_code import forget_token, runs, until, wheel
from workers.agent.follow import DriverState
from workers.agent.head import free_ports, head_environment
from workers.agent.processes import kill_all, marked
from workers.agent.ray_jobs import ANSWER_SECONDS, CONNECT_SECONDS, RayJobs
from workers.errors import ClusterError
from workers.order import ENVIRONMENTS, JOB_DIR, MARK, REQUIREMENTS

pytestmark = pytest.mark.integration

START = 60.0

# An actor on the second node imports what was installed there, and starts a process of its own.
PROBE = """
import json, os, pathlib, subprocess, time
import ray

@ray.remote(resources={"second": 0.1})
class Actor:
    def see(self):
        import greeting
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        node = ray.get_runtime_context().get_node_id()
        return {"pid": os.getpid(), "child": child.pid, "node": node, "said": greeting.TEXT}

ray.init(log_to_driver=False)
actor = Actor.remote()
found = ray.get(actor.see.remote())
found["driver"] = [os.getpid(), ray.get_runtime_context().get_node_id()]
path = pathlib.Path(os.environ["ARGOSY_JOB_DIR"], "seen.json")
path.with_suffix(".new").write_text(json.dumps(found))
path.with_suffix(".new").rename(path)
time.sleep(600)
"""


class Nodes:
    """Two nodes on this machine, which share its folders as real ones share their storage."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        token = folder / "token"
        token.write_text("0123456789abcdef" * 4)
        token.chmod(0o600)
        self.port, self.dashboard, self.client, metrics = free_ports(4)
        self.auth = head_environment(token, metrics)
        self.url = f"http://127.0.0.1:{self.dashboard}"
        self.started = [self.start("head")]
        log = folder / "head.log"
        assert until(lambda: "Ray runtime started" in log.read_text(), START), log.read_text()
        self.started.append(self.start("second"))

    def start(self, name: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
        command += ["--disable-usage-stats", "--num-cpus=1", "--node-ip-address=127.0.0.1"]
        command += ["--object-store-memory=100000000", "--dashboard-agent-listen-port=0"]
        command += [f'--resources={{"{name}": 1}}']
        if name == "head":
            command += ["--head", f"--port={self.port}", "--dashboard-host=127.0.0.1"]
            command += [f"--dashboard-port={self.dashboard}", f"--temp-dir={self.folder}/r"]
            command += [f"--ray-client-server-port={self.client}", "--no-monitor"]
            command += ["--include-log-monitor=false"]
        else:
            command += [f"--address=127.0.0.1:{self.port}"]
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                command,
                env={**os.environ, **self.auth},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def processes(self) -> list[psutil.Process]:
        return [p for top in self.started for p in psutil.Process(top.pid).children(recursive=True)]

    def end(self) -> None:
        kill_all(self.processes, seconds=5)
        for top in self.started:
            top.kill()
            top.wait()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    folder = Path(tempfile.mkdtemp(prefix="argosy-n2-"))
    before = dict(os.environ)
    found = None
    try:
        found = Nodes(folder)
        os.environ.update({**found.auth, "RAY_ADDRESS": found.url})
        forget_token()
        yield found
    finally:
        os.environ.clear()
        os.environ.update(before)
        kill_all(lambda: marked(MARK, "far"), seconds=5)
        if found is not None:
            found.end()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def jobs(nodes: Nodes) -> RayJobs:
    found = RayJobs(None, driver="probe")

    def both() -> bool:
        try:
            return found.capacity().nodes == 2
        except ClusterError:  # the head says that it started before its dashboard answers
            return False

    assert until(both, START), found.capacity()
    return found


def test_a_job_reaches_the_second_node_and_ends_there_at_a_stop(nodes, jobs) -> None:
    assert jobs.capacity().cpus == 2.0
    code = nodes.folder / "code"
    code.mkdir()
    (code / "probe.py").write_text(PROBE)
    wheel(nodes.folder / "index", "greeting", "2.0", {"greeting.py": 'TEXT = "far"\n'})
    index = f"--no-index\n--find-links {nodes.folder / 'index'}\ngreeting\n"
    (code / "requirements.txt").write_text(index)
    variables = {
        MARK: "far",
        JOB_DIR: str(nodes.folder),
        REQUIREMENTS: "requirements.txt",
        ENVIRONMENTS: str(nodes.folder / "environments"),
    }
    jobs.submit("far", variables, sys.executable, code)
    seen = nodes.folder / "seen.json"
    assert until(lambda: seen.exists() or jobs.look("far").state is DriverState.ENDED, 90)
    assert seen.exists(), jobs.look("far")
    found = json.loads(seen.read_text())
    assert found["said"] == "far"
    assert found["driver"][1] != found["node"], "the driver is on the head"
    assert {found["pid"], found["child"], found["driver"][0]} <= {p.pid for p in runs("far")}
    auth = {name for name in os.environ if name.startswith("RAY_AUTH")}
    assert auth, "the agent's client has the token"

    # No process is killed from here: this is what Ray does, on nodes that the agent cannot reach.
    started = time.monotonic()
    jobs.stop("far")
    assert until(lambda: not runs("far"), 10), runs("far")
    assert time.monotonic() - started < 8
    assert until(lambda: jobs.look("far").state is DriverState.ENDED, 5)


def test_a_dashboard_that_hangs_is_given_up_in_time_and_found_again(nodes, jobs) -> None:
    stopped = [p for p in nodes.processes() if "dashboard/dashboard.py" in command_of(p)]
    assert stopped
    for process in stopped:
        process.suspend()
    try:
        started = time.monotonic()
        with pytest.raises(ClusterError):
            jobs.look("far")
        assert time.monotonic() - started < CONNECT_SECONDS + ANSWER_SECONDS + 2
    finally:
        for process in stopped:
            process.resume()
    assert until(lambda: jobs.look("nobody").state is DriverState.MISSING, 20)


def test_a_wrong_token_is_refused_in_one_line(nodes, tmp_path) -> None:
    wrong = tmp_path / "token"
    wrong.write_text("f" * 64)
    wrong.chmod(0o600)
    code = "from workers.agent.ray_jobs import RayJobs\nRayJobs(None)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "RAY_AUTH_TOKEN_PATH": str(wrong)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("workers.errors.ClusterError: the Ray cluster did not do as asked")
