"""Sweeps on a real Ray head: Tune starts the trials, Ray Train trains them.

The driver is a small one, so that it can be killed without an agent that starts it again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from workers.agent.head import LocalHead
from workers.sweep.record import FILE

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

LONG = 500.0

DRIVER = """
import json, sys, threading
from pathlib import Path
import ray
from schemas.jobfile import JobSpec
from workers.errors import JobFailed
from workers.distributed.mailbox import Postbox
from workers.sweep.search import search

spec, storage, out = JobSpec.model_validate_json(sys.argv[1]), sys.argv[2], open(sys.argv[3], "a")
lock, done = threading.Lock(), threading.Event()

def say(**what):
    with lock:
        out.write(json.dumps(what) + "\\n")
        out.flush()

def take():
    while not done.is_set():
        for kind, payload in postbox.take(0.2):
            if kind in ("epoch", "group"):
                say(kind=kind, **payload)

ray.init(log_to_driver=False)
postbox = Postbox("sweep-test")
thread = threading.Thread(target=take)
thread.start()
try:
    best = search(spec, storage, postbox.name,
                  lambda trials: say(trials=[t.model_dump(mode="json") for t in trials]))
    say(best=best.parameters, value=best.fitted.best, epochs=best.fitted.epochs,
        sweep=best.spec.sweep is None, size=len(best.fitted.checkpoint))
except JobFailed as failure:
    say(cause=failure.cause, detail=failure.detail)
finally:
    done.set()
    thread.join()
"""


class Run:
    """A driver under way, and what it said."""

    def __init__(self, head: Head, spec: dict[str, Any], storage: Path, name: str) -> None:
        self.out = storage.parent / f"{name}.jsonl"
        self.log = storage.parent / f"{name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", DRIVER, json.dumps(spec), str(storage), str(self.out)],
                env=head.environment,
                stdout=log,
                stderr=log,
            )
        head.running.append(self.process)

    def said(self, key: str) -> list[dict[str, Any]]:
        text = self.out.read_text() if self.out.exists() else ""
        lines = [json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"]
        return [line for line in lines if key in line]

    def trials(self) -> list[dict[str, Any]]:
        said = self.said("trials")
        return said[-1]["trials"] if said else []

    def epochs(self, trial: int) -> list[int]:
        return [p["epoch"] for p in self.said("values") if p["trial"] == trial]

    def end(self) -> None:
        assert self.process.wait(LONG) == 0, self.log.read_text()[-3000:]


class Head:
    def __init__(self, home: Path) -> None:
        self._head = LocalHead(home, 2)
        self.running: list[subprocess.Popen[bytes]] = []
        before = dict(os.environ)
        address = self._head.start(threading.Event())
        self.environment = {**os.environ, "RAY_ADDRESS": address.gcs}
        os.environ.clear()
        os.environ.update(before)

    def free_cpus(self) -> float:
        code = "import ray; ray.init(); print('CPU', ray.available_resources().get('CPU', 0))"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=self.environment, capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        return float(done.stdout.splitlines()[-1].split()[1])

    def stop(self) -> None:
        for process in self.running:
            process.kill()
            process.wait()
        self._head.stop()


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory):
    found = Head(tmp_path_factory.mktemp("sweep"))
    try:
        yield found
    finally:
        found.stop()


def job(sweep: dict[str, Any], workers: int) -> dict[str, Any]:
    return {
        "name": "digits",
        "task": "workers.recipes.digits:Digits",
        "config": {"width": 0.25},
        "resources": {"workers": workers},
        "stop": {"max_epochs": 8, "patience": 8, "require_target": False},
        "sweep": sweep,
    }


def until(condition, run: Run) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert run.process.poll() is None, run.log.read_text()[-3000:]
        assert time.monotonic() < deadline, (run.trials(), run.log.read_text()[-3000:])
        time.sleep(0.05)


def test_a_grid_runs_side_by_side_and_a_failed_trial_does_not_end_it(head, tmp_path) -> None:
    space = {"config.lr": [0.01, "fast"]}
    run = Run(head, job({"space": space, "parallel": 2}, 1), tmp_path / "job", "grid")
    run.end()
    good, bad = run.trials()
    assert (good["state"], good["epochs"]) == ("done", 8)
    assert bad["state"] == "failed"
    assert "'fast'" in bad["detail"]
    (best,) = run.said("best")
    assert best["best"] == {"config.lr": 0.01}
    assert best["value"] == good["best"] > 0.8
    assert best["sweep"]
    assert best["size"] > 1000
    assert run.epochs(1) == list(range(1, 9))
    assert run.epochs(2) == []
    assert (tmp_path / "job" / "trial-1").is_dir()
    shown = [{t["number"]: t["state"] for t in line["trials"]} for line in run.said("trials")]
    assert shown[0] == {1: "waiting", 2: "waiting"}
    assert {1: "running", 2: "running"} in shown, "side by side"


@pytest.mark.slow
def test_a_killed_search_goes_on_where_it_stood_and_asha_ends_the_worse(head, tmp_path) -> None:
    # Each trial takes the whole cluster: one that was ended must give it back.
    span = {"min": 1e-5, "max": 1e-1, "log": True}
    sweep = {
        "space": {"config.lr": span}, "method": "asha", "trials": 4,
        "grace_epochs": 1, "reduction": 2,
    }  # fmt: skip
    spec, storage = job(sweep, 2), tmp_path / "job"
    first = Run(head, spec, storage, "first")
    until(lambda: len(first.epochs(1)) >= 3, first)
    first.process.kill()
    first.process.wait()
    reached = first.epochs(1)[-1]

    second = Run(head, spec, storage, "second")
    second.end()
    assert second.epochs(1)[0] in {reached, reached + 1}, "from its checkpoint"
    trials = second.trials()
    assert [t["parameters"] for t in trials] == [t["parameters"] for t in first.trials()]
    assert (trials[0]["state"], trials[0]["epochs"]) == ("done", 8)
    assert trials[1]["parameters"]["config.lr"] < 2e-4
    assert (trials[1]["state"], trials[1]["epochs"]) == ("stopped", 1)
    assert {t["state"] for t in trials} <= {"done", "stopped"}
    (best,) = second.said("best")
    winner = max(trials, key=lambda t: t["best"])
    assert best["best"] == winner["parameters"]
    assert best["value"] == winner["best"]
    gone = [p["trial"] for p in second.said("event") if p["event"] == "down"]
    assert 2 in gone, "what it took is counted no further"

    before = (storage / FILE).read_bytes()
    third = Run(head, spec, storage, "third")
    third.end()
    assert [line["best"] for line in third.said("best")] == [best["best"]]
    assert third.said("values") == [], "nothing was trained again"
    assert (storage / FILE).read_bytes() == before
    assert list(storage.glob(".tune-*")) == []
    assert head.free_cpus() == 2
