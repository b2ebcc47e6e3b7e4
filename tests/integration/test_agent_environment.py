"""User code on a real Ray head of the agent's own: its packages, its environment, its limits.

The driver is a small one from the user's folder, so that no training stands between the
test and what it looks at: the processes that Ray starts for a job.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import tempfile
import threading
from pathlib import Path

import httpx
import psutil
import pytest

from tests.fakes.processes import command_of
from tests.fakes.user_code import environ_of, forget_token, runs, until, wheel
from workers.agent.follow import DriverState, Seen
from workers.agent.head import LocalHead, temp_dir_of
from workers.agent.processes import kill_all, marked
from workers.agent.ray_jobs import RayJobs
from workers.errors import ClusterError
from workers.order import CODE, ENVIRONMENTS, JOB_DIR, JOB_TOKEN, MARK, NO_ENVIRONMENT, REQUIREMENTS

pytestmark = pytest.mark.integration

SECRET = f"secret-{secrets.token_hex(8)}"
SECRETS = {
    "ARGOSY_TOKEN": SECRET,
    "ARGOSY_DATABASE_URL": f"postgresql://u:{SECRET}@db/x",
    "ARGOSY_SIGNING_KEY": SECRET,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "GITHUB_TOKEN": SECRET,
    "PIP_INDEX_URL": f"https://user:{SECRET}@index.example/simple",
    "SOMEBODYS": SECRET,
}

# What a driver does of these tests: tells what it and a Ray worker see, then waits to be ended.
PROBE = """
import json, os, pathlib, sys, time
import ray

def see():
    import greeting, helper
    return {"pid": os.getpid(), "cwd": os.getcwd(), "helper": helper.NAME,
            "greeting": [greeting.TEXT, greeting.__file__], "torch": __import__("torch").__file__,
            "files": sorted(p.name for p in pathlib.Path().iterdir())}

if __name__ == "__main__":
    ray.init(log_to_driver=False)
    found = {"driver": see(), "worker": ray.get(ray.remote(see).remote())}

    @ray.remote
    class Actor:
        def see(self):
            return see()

    actor = Actor.remote()
    found["actor"] = ray.get(actor.see.remote())
    path = pathlib.Path(os.environ["ARGOSY_JOB_DIR"], "seen.json")
    path.with_suffix(".new").write_text(json.dumps(found))
    path.with_suffix(".new").rename(path)
    time.sleep(600)
"""


class Cluster:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.head = LocalHead(home, 4)

    def start(self) -> None:
        address = self.head.start(threading.Event())
        forget_token()
        self.dashboard = address.dashboard
        self.jobs = RayJobs(address.dashboard, driver="probe")

    def submit(self, name: str, code: Path, **variables: str) -> Path:
        folder = self.home / "jobs" / name
        folder.mkdir(parents=True)
        environment = {
            MARK: name,
            JOB_DIR: str(folder),
            JOB_TOKEN: f"token-of-{name}",
            CODE: hashlib.sha256(name.encode()).hexdigest(),
            ENVIRONMENTS: str(self.home / "environments"),
            **variables,
        }
        import sys

        self.jobs.submit(name, environment, sys.executable, code)
        return folder / "seen.json"

    def end(self, name: str) -> Seen:
        self.jobs.stop(name)
        assert until(lambda: self.jobs.look(name).state is DriverState.ENDED, 20)
        assert until(lambda: not runs(name), 10), runs(name)
        return self.jobs.look(name)


@pytest.fixture(scope="module")
def cluster():
    home = Path(tempfile.mkdtemp(prefix="argosy-w3-"))
    before = dict(os.environ)
    os.environ.update(SECRETS)
    found = Cluster(home)
    try:
        found.start()
        yield found
    finally:
        found.head.stop()
        os.environ.clear()
        os.environ.update(before)
        kill_all(
            lambda: [p for name in ("one", "two", "bad") for p in marked(MARK, name)], seconds=5
        )
        shutil.rmtree(home, ignore_errors=True)
        assert not temp_dir_of(os.getpid()).exists()


@pytest.fixture
def code(cluster: Cluster, tmp_path: Path) -> Path:
    """A user's folder whose requirements are in an index of its own."""
    index = cluster.home / "index"
    wheel(index, "greeting", "1.5", {"greeting.py": 'TEXT = "hello"\n'}, needs="torch")
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "probe.py").write_text(PROBE)
    (folder / "helper.py").write_text('NAME = "mine"\n')
    (folder / ".gitignore").write_text("helper.py\n")
    (folder / "venv").mkdir()
    (folder / "venv" / "kept.txt").write_text("packed, so meant")
    (folder / "requirements.txt").write_text(f"--no-index\n--find-links {index}\ngreeting>=1\n")
    return folder


def test_code_and_packages_reach_driver_and_workers_without_any_secret(cluster, code) -> None:
    seen = cluster.submit("one", code, **{REQUIREMENTS: "requirements.txt"})
    assert until(lambda: seen.exists() or cluster.jobs.look("one").state is DriverState.ENDED, 120)
    assert seen.exists(), cluster.jobs.look("one")
    found = json.loads(seen.read_text())

    packages = {Path(one["greeting"][1]).parent for one in found.values()}
    assert len(packages) == 1, "one environment, shared"
    (where,) = packages
    assert where.is_relative_to(cluster.home / "environments")
    assert {p.name for p in where.iterdir()} == {
        "greeting.py",
        "greeting-1.5.dist-info",
        "__pycache__",
    }
    for one in found.values():
        assert one["helper"] == "mine"
        assert {"helper.py", "probe.py", "requirements.txt", "venv"} <= set(one["files"])
        assert not Path(one["torch"]).is_relative_to(cluster.home), "torch is the platform's own"

    processes = runs("one")
    assert {one["pid"] for one in found.values()} <= {p.pid for p in processes}
    assert len(processes) >= 3
    for process in processes:
        environment = environ_of(process.pid)
        ours = {name for name in environment if name.startswith("ARGOSY_")}
        assert ours <= {MARK, JOB_DIR, JOB_TOKEN, CODE, ENVIRONMENTS, REQUIREMENTS}
        assert SECRET not in json.dumps(environment)
        assert not set(environment) & set(SECRETS)
    everything = psutil.Process().children(recursive=True)
    for process in everything:
        if "workers.agent.keeper" not in command_of(process):
            assert SECRET not in json.dumps(environ_of(process.pid)), process

    cluster.end("one")
    # The second job finds what the first installed, with the index gone.
    shutil.rmtree(cluster.home / "index")
    seen = cluster.submit("two", code, **{REQUIREMENTS: "requirements.txt"})
    assert until(seen.exists, 60), cluster.jobs.look("two")
    cluster.end("two")


def test_requirements_that_cannot_be_met_are_named_in_the_last_line(cluster, code) -> None:
    (code / "requirements.txt").write_text("numpy<1.20\n")
    cluster.submit("bad", code, **{REQUIREMENTS: "requirements.txt"})
    assert until(lambda: cluster.jobs.look("bad").state is DriverState.ENDED, 60)
    seen = cluster.jobs.look("bad")
    assert seen.exit_code == NO_ENVIRONMENT
    assert seen.last_line.startswith(
        "requirements.txt: line 1: numpy<1.20 is not what the platform"
    )


def test_capacity_is_what_ray_counts(cluster) -> None:
    capacity = cluster.jobs.capacity()
    assert (capacity.nodes, capacity.cpus, capacity.gpus) == (1, 4.0, 0.0)
    assert 0.1 < capacity.memory_gb < 10_000
    assert not capacity.grows


def test_ray_asks_for_its_token(cluster) -> None:
    assert httpx.get(f"{cluster.dashboard}/api/v0/nodes", timeout=10).status_code == 401


def test_what_is_unknown_is_missing_and_a_stop_of_it_an_error(cluster) -> None:
    assert cluster.jobs.look("nobody").state is DriverState.MISSING
    with pytest.raises(ClusterError):
        cluster.jobs.stop("nobody")
