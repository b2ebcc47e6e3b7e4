"""Trials as tasks on a real Ray head: order, isolation, lost processes, cancelling."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from workers.agent.head import LocalHead

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

DRIVER = """
import json, os, signal, sys, threading, time
from pathlib import Path
import ray
from schemas.job import JobCause
from schemas.jobfile import JobSpec
from workers.distributed.mailbox import Postbox
from workers.distributed.tasks import RayExecutor
from workers.errors import JobFailed
from workers.optimization.executor import LocalExecutor, TrialFailed, beat
from workers.optimization.pruning.finetune import PruneOrder, prune_and_tune
from workers.task import load_task
from workers.training.local import LocalEngine
from workers.training.loop import run

home, out = Path(sys.argv[1]), {}
base = {"name": "digits", "task": "workers.recipes.digits:Digits", "resources": {"workers": 2},
        "stop": {"require_target": False, "max_epochs": 2},
        "optimize": {"finetune_epochs": 1, "prune": [0.5]}, "training": {"hang_minutes": 0.05}}

def spec_of(**resources):
    return JobSpec.model_validate({**base, "resources": {"workers": 2, **resources}})

def told(found):
    failed = isinstance(found, TrialFailed)
    return {"cause": found.cause, "detail": found.detail} if failed else found

def mixed(what):
    if what == "raises":
        raise ValueError("of its own")
    if what == "diverges":
        raise JobFailed(JobCause.DIVERGED, "it diverged")
    if what == "exits":
        raise SystemExit(3)
    if what == "hangs":
        threading.Event().wait()
    while what == "slow" and not (home / "fast").exists():
        beat()
        time.sleep(0.05)
    print("printed by", what)
    return f"{what} {os.environ.get('ARGOSY_JOB')}"

def lost_once(folder):
    mark = Path(folder) / "lost_once"
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "second"

def lost_always(folder):
    (Path(folder) / f"lost-{time.monotonic_ns()}").touch()
    os.kill(os.getpid(), signal.SIGKILL)

def endless(folder):
    (Path(folder) / f"pid-{os.getpid()}").touch()
    threading.Event().wait()

def quick(_):
    return "quick"

ray.init(log_to_driver=False, runtime_env={"env_vars": {"ARGOSY_JOB": "job-1"}})
postbox = Postbox("tasks-test")
kinds = ["slow", "fast", "raises", "diverges", "exits", "hangs", "fast"]
executor = RayExecutor(spec_of(), postbox.name)
out["mixed"] = []
for index, result in executor.map(mixed, kinds):
    out["mixed"].append((index, told(result)))
    if index == kinds.index("fast"):
        (home / "fast").touch()  # told while the slow one still runs, and only then may that end
out["messages"] = postbox.take(2.0)

out["once"] = [told(r) for _, r in RayExecutor(spec_of()).map(lost_once, [str(home)])]
out["always"] = [told(r) for _, r in RayExecutor(spec_of()).map(lost_always, [str(home)])]
out["attempts"] = len(list(home.glob("lost-*")))
out["unsendable"] = [(i, told(r)) for i, r in executor.map(quick, [threading.Lock(), 1])]
small = RayExecutor(spec_of(cpus_per_worker=64, wait_minutes=0.02))
out["room"] = [told(r) for _, r in small.map(quick, [1])]

either = lambda what: quick(what) if what == "q" else endless(what)
mixing = RayExecutor(spec_of()).map(either, ["q", str(home)])
out["first"] = next(mixing)[1]
while not (pids := list(home.glob("pid-*"))):
    time.sleep(0.05)
mixing.close()
pid = int(pids[0].name[4:])
deadline = time.monotonic() + 30
while time.monotonic() < deadline and Path(f"/proc/{pid}").exists():
    time.sleep(0.05)
out["closed"] = not Path(f"/proc/{pid}").exists()
while time.monotonic() < deadline and ray.available_resources().get("CPU", 0) < 2:
    time.sleep(0.1)
out["free"] = ray.available_resources().get("CPU", 0)

spec = JobSpec.model_validate({**base, "training": {}})
engine = LocalEngine("accuracy")
run(load_task(spec.entrypoint, {}, 0), spec, engine)
order = [PruneOrder(spec, engine.best, 0.5)]
near, far = (next(e.map(prune_and_tune, order))[1] for e in (LocalExecutor(), RayExecutor(spec)))
out["same"] = [near.validation_accuracy == far.validation_accuracy, near.channels == far.channels]
(home / "out.json").write_text(json.dumps(out))
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    home = tmp_path_factory.mktemp("tasks")
    before = dict(os.environ)
    head = LocalHead(home / "head", 2)
    (home / "driver.py").write_text(DRIVER)
    try:
        address = head.start(threading.Event())
        environment = {**os.environ, "RAY_ADDRESS": address.gcs}
        done = subprocess.run(
            [sys.executable, str(home / "driver.py"), str(home)],
            env=environment, capture_output=True, text=True, timeout=500, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        yield json.loads((home / "out.json").read_text())
    finally:
        os.environ.clear()
        os.environ.update(before)
        head.stop()


def test_each_index_comes_once_as_it_ends(said: dict[str, Any]) -> None:
    indices = [index for index, _ in said["mixed"]]

    assert sorted(indices) == list(range(7))
    assert indices.index(1) < indices.index(0) < indices.index(5)  # fast, slow, hung


def test_one_failing_call_leaves_the_others_alone(said: dict[str, Any]) -> None:
    found = dict(map(tuple, said["mixed"]))

    assert found[0] == "slow job-1"  # in the environment of the job, whose mark it carries
    assert found[6] == "fast job-1"
    assert found[2]["cause"] == "user_code"
    assert "of its own" in found[2]["detail"]
    assert found[3] == {"cause": "diverged", "detail": "it diverged"}
    assert found[4]["cause"] == "user_code"


def test_a_call_that_hangs_is_given_up_and_says_where(said: dict[str, Any]) -> None:
    found = dict(map(tuple, said["mixed"]))[5]

    assert found["cause"] == "hung"
    assert "in mixed" in found["detail"]


def test_lines_and_reservations_reach_the_driver(said: dict[str, Any]) -> None:
    by_kind: dict[str, list[Any]] = {}
    for kind, payload in said["messages"]:
        by_kind.setdefault(kind, []).append(payload)

    assert any("printed by slow" in line["text"] for line in by_kind["log"])
    events = [(one["trial"], one["event"]) for one in by_kind["group"]]
    assert {trial for trial, event in events if event == "up"} == {
        trial for trial, event in events if event == "down"
    }
    assert by_kind["usage"]


def test_a_killed_process_is_started_again(said: dict[str, Any]) -> None:
    assert said["once"] == ["second"]


def test_one_that_always_dies_fails_after_so_many_times(said: dict[str, Any]) -> None:
    assert said["attempts"] == 4
    assert said["always"][0]["cause"] == "driver_died"
    assert "died 4 times" in said["always"][0]["detail"]


def test_an_argument_that_cannot_travel_fails_alone(said: dict[str, Any]) -> None:
    (first, failed), (second, fine) = sorted(said["unsendable"])

    assert (first, second) == (0, 1)
    assert "cannot be sent" in failed["detail"]
    assert fine == "quick"


def test_what_no_node_can_hold_fails_after_the_job_s_patience(said: dict[str, Any]) -> None:
    assert said["room"][0]["cause"] == "resources"
    assert "64 CPU" in said["room"][0]["detail"]


def test_closing_ends_what_runs_and_frees_its_resources(said: dict[str, Any]) -> None:
    assert said["first"] == "quick"
    assert said["closed"]
    assert said["free"] == 2


def test_a_pruned_net_is_the_same_from_the_cluster(said: dict[str, Any]) -> None:
    assert said["same"] == [True, True]
