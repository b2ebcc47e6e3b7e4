"""A small class and servers in one rollout: trained, pruned, served, and measured by devices."""

from __future__ import annotations

import json

import pytest
import yaml

from schemas.enroll import TokenRequest
from schemas.job import JobState
from schemas.rollout import ExecState, RolloutState
from tests.e2e.conftest import alone, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

CLASSES = ("camera", "server")
CAMERA_BYTES = 100_000
JOB = {
    "name": "digits",
    "task": "workers.recipes.digits:Digits",
    "config": {"width": 1.0, "batch_size": 32, "lr": 0.003},
    "resources": {"workers": 1},
    "stop": {"metric": "accuracy", "target": 0.95, "max_epochs": 8},
    "optimize": {"prune": [0.5], "finetune_epochs": 2, "max_accuracy_drop": 0.05},
}


@pytest.fixture(scope="module")
def platform():
    """A platform of its own: other tests count their devices."""
    with alone() as running:
        yield running


@pytest.fixture(scope="module")
def client(platform):
    """A client of it, after the operator said what a camera can hold."""
    client = platform.start()
    limit = str(CAMERA_BYTES / 1e6)
    said = platform.argosy("device-class", "set", "camera", "--max-size-mb", limit)
    assert said.returncode == 0, said.stderr
    return client


@pytest.fixture(scope="module")
def submitted(platform, client):
    """A job's id. Its file says nothing of cameras: their budget is the platform's."""
    file = platform.folder / "job.yaml"
    file.write_text(yaml.safe_dump(JOB))
    done = platform.argosy("job", "submit", str(file), "-o", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["id"]


@pytest.fixture(scope="module")
def devices(platform, client, submitted):
    """One of each class, by its id, that runs and sees the held-out digits; while it trains."""
    held_out = platform.folder / "held-out.npz"
    made = platform.run("workers.cli", "export-split", JOB["task"], "test", str(held_out))
    assert made.returncode == 0, made.stderr
    for name in CLASSES:
        token = client.tokens.create(TokenRequest(device_class=name)).token
        enrolled = platform.enroll(client, name, token)
        assert enrolled.returncode == 0, enrolled.stderr
        more = ("--source", str(held_out), "--rate", "50", "--window", "1", "--no-bench")
        platform.run_device(name, *more)
    until(lambda: sum(d.presence == "ONLINE" for d in client.devices.list()) == len(CLASSES), 30)
    return {device.device_class: device.id for device in client.devices.list()}


@pytest.fixture(scope="module")
def job(client, submitted, devices):
    ended = client.jobs.wait(submitted, timeout=200)
    assert ended.state is JobState.SUCCEEDED, ended.detail
    return ended


@pytest.fixture(scope="module")
def manifest(client, job):
    return client.models.version(job.model, job.version).manifest


@pytest.fixture(scope="module")
def rollout(platform, client, job, devices):
    """Drafted by hand, then started: one wave over both classes."""
    ref = f"{job.model}@{job.version}"
    gates = ("--soak", "1s", "--min-inferences", "20", "--min-accuracy", "0.9")
    drafted = platform.argosy("rollout", "plan", ref, "--waves", "100%", *gates, "-o", "json")
    assert drafted.returncode == 0, drafted.stderr
    plan = json.loads(drafted.stdout)
    assert plan["state"] == RolloutState.DRAFT
    client.rollouts.start(plan["id"])
    return plan, client.rollouts.wait(plan["id"], timeout=60)


def told(plan):
    """Who would get what, by class."""
    return {share["device_class"]: share["variant"] for share in plan["preview"]}


def test_the_search_finds_what_fits_the_budget_that_the_platform_knows(manifest):
    assert manifest.budgets["camera"].max_size_mb == pytest.approx(CAMERA_BYTES / 1e6)
    fitting = [v for v in manifest.variants if v.file.size <= CAMERA_BYTES]
    assert fitting, manifest.rejected
    for variant in fitting:
        assert variant.paired.high <= JOB["optimize"]["max_accuracy_drop"]


def test_the_draft_gives_cameras_what_fits_and_servers_the_fastest(rollout, manifest):
    plan, _ = rollout
    p50s = {v.id: v.benchmarks[0].p50_ms for v in manifest.variants}
    small = {v.id for v in manifest.variants if v.file.size <= CAMERA_BYTES}
    assert told(plan) == {
        "camera": min(small, key=p50s.__getitem__),
        "server": min(p50s, key=p50s.__getitem__),
    }
    assert told(plan)["camera"] != told(plan)["server"], p50s


def test_each_class_serves_its_own_variant(client, rollout, devices):
    plan, ended = rollout
    assert ended.state is RolloutState.SUCCEEDED, ended
    executions = {e.device: e for wave in ended.waves for e in wave.executions}
    for name, device in devices.items():
        assert executions[device].state is ExecState.SUCCEEDED
        served = client.devices.get(device).active[0].variant
        assert served == executions[device].variant == told(plan)[name]


def test_what_the_devices_measure_shows_in_the_registry(platform, client, job, rollout, devices):
    plan, _ = rollout
    assert client.models.version(job.model, job.version).measured == ()
    figures = {}
    for name in CLASSES:
        home = str(platform.folder / name)
        done = platform.run("edge_client", "bench", "--home", home, "--rounds", "2", "--json")
        assert done.returncode == 0, done.stderr
        figures[name] = done.stdout

    def arrived():
        """figures of both classes are in the registry"""
        found = client.models.version(job.model, job.version).measured
        return found if len(found) == len(CLASSES) else None

    found = {one.device_class: one for one in until(arrived, 30)}
    assert {name: one.variant for name, one in found.items()} == told(plan)
    for name, one in found.items():
        assert one.devices == 1
        assert f'"p50_ms": {one.p50_ms}' in figures[name]
    shown = platform.argosy("model", "get", f"{job.model}@{job.version}")
    assert shown.returncode == 0, shown.stderr
    rows = [line for line in shown.stdout.splitlines() if line.startswith(CLASSES)]
    measured = {tuple(r.split()[:2]) for r in rows if "measured on 1 device" in r}
    assert measured == set(told(plan).items())
    assert all("estimated" in r for r in rows if tuple(r.split()[:2]) not in measured)
