"""The whole loop through real processes: train, register, enroll, roll out, infer, report."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path

import httpx
import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from orchestrator.home import Home
from schemas.enroll import TokenRequest
from schemas.job import JobState
from schemas.jobfile import JobSpec
from schemas.rollout import ExecState, RolloutSpec, RolloutState, WaveState
from tests.e2e.big_model import register
from tests.e2e.conftest import STOP_SECONDS, marked, until
from tests.fakes.processes import command_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
JOB_FILE = ROOT / "examples" / "digits" / "job.yaml"
DEVICES = ("canary-or-not-1", "canary-or-not-2", "canary-or-not-3")
TASK = "workers.recipes.digits:Digits"


@pytest.fixture(scope="module")
def job(running, argosy):
    """The example's job, submitted with the CLI and run to its end."""
    submitted = running.argosy("job", "submit", str(JOB_FILE), "-o", "json")
    assert submitted.returncode == 0, submitted.stderr
    return argosy.jobs.wait(json.loads(submitted.stdout)["id"], timeout=240)


@pytest.fixture(scope="module")
def held_out(running):
    """The test split, as the devices' stream."""
    out = running.folder / "held-out.npz"
    made = running.run("workers.cli", "export-split", TASK, "test", str(out))
    assert made.returncode == 0, made.stderr
    return out


@pytest.fixture(scope="module")
def fleet(running, argosy, job, held_out):
    """Enrolled devices that run and look at the held-out digits."""
    token = argosy.tokens.create(TokenRequest(max_uses=len(DEVICES))).token
    for name in DEVICES:
        enrolled = running.enroll(argosy, name, token)
        assert enrolled.returncode == 0, enrolled.stderr
        running.run_device(name, "--source", str(held_out), "--rate", "200", "--window", "1")
    until(lambda: sum(d.presence == "ONLINE" for d in argosy.devices.list()) == len(DEVICES), 30)
    return [device.id for device in argosy.devices.list()]


@pytest.fixture(scope="module")
def rollout(argosy, job, fleet):
    """Version 1 to everyone, one canary first, run to its end."""
    gates = {"min_inferences": 400, "soak_seconds": 1, "min_accuracy": 0.9}
    spec = RolloutSpec.model_validate({"model": job.model, "version": job.version, "gates": gates})
    planned = argosy.rollouts.create(spec)
    assert planned.state is RolloutState.DRAFT
    assert [wave.size for wave in planned.waves] == [1, len(DEVICES) - 1]
    argosy.rollouts.start(planned.id)
    return argosy.rollouts.wait(planned.id, timeout=90)


def test_training_reaches_its_target_on_two_workers(argosy, job):
    spec = JobSpec.model_validate(job.spec)
    assert job.state is JobState.SUCCEEDED, job.detail
    assert str(spec.resources.workers) == "2"
    assert argosy.jobs.profile(job.id).baseline.n == 1041
    assert job.best["accuracy"] >= spec.stop.target
    epochs = [point.epoch for point in argosy.jobs.metrics(job.id)]
    assert epochs == list(range(1, len(epochs) + 1))
    assert len(epochs) >= 1
    assert any("epoch" in line.text.lower() for line in argosy.jobs.logs(job.id))


def test_the_version_holds_measured_variants_and_its_lineage(argosy, job):
    manifest = argosy.models.version(job.model, job.version).manifest
    by_precision = {variant.precision: variant for variant in manifest.variants}
    assert set(by_precision) == {"fp32", "int8"}, manifest.rejected
    assert by_precision["int8"].file.size < 0.5 * by_precision["fp32"].file.size
    for variant in manifest.variants:
        test = next(a for a in variant.accuracy if a.split == "test")
        assert test.n >= 360
        assert test.low <= test.value <= test.high
        assert variant.benchmarks[0].runs > 0
    assert manifest.lineage.job == job.id
    assert manifest.lineage.dataset_sha256
    assert manifest.lineage.parity_max_abs < 1e-3
    assert [p.name for p in manifest.lineage.passes]


def test_the_cluster_scores_what_the_devices_will_see(running, argosy, job, held_out):
    """``argosy batch`` over the test split is right as often as the registry says."""
    folder = running.folder / "to-score"
    folder.mkdir()
    held = np.load(held_out)
    np.save(folder / "digits.npy", held["x"])
    out = running.folder / "scored"
    scored = running.argosy("batch", f"{job.model}@{job.version}", str(folder), str(out))
    assert scored.returncode == 0, scored.stderr
    table = pq.read_table(out).to_pandas().sort_values("row")
    assert len(table) == len(held["y"])
    assert table["error"].isna().all()
    manifest = argosy.models.version(job.model, job.version).manifest
    said = next(a.value for a in manifest.variants[0].accuracy if a.split == "test")
    right = float((table["class"].to_numpy() == held["y"]).mean())
    assert right == pytest.approx(said, abs=0.005)


def test_the_rollout_passed_wave_by_wave(argosy, rollout, fleet):
    assert rollout.state is RolloutState.SUCCEEDED, rollout
    assert [wave.state for wave in rollout.waves] == [WaveState.PASSED] * 2
    executions = [e for wave in rollout.waves for e in wave.executions]
    assert {e.device for e in executions} == set(fleet)
    assert {e.state for e in executions} == {ExecState.SUCCEEDED}
    canary_done = max(e.updated_at for e in rollout.waves[0].executions)
    assert all(e.updated_at > canary_done for e in rollout.waves[1].executions)
    for wave in rollout.waves:
        assert {e.metric for e in wave.evidence if e.ok} >= {"failure_rate", "accuracy"}


def test_devices_report_the_accuracy_that_the_registry_measured(argosy, job, rollout, held_out):
    """The stream loops over the test split, so whole loops give the registry's figure."""
    samples = len(np.load(held_out)["y"])
    manifest = argosy.models.version(job.model, job.version).manifest

    def reported():
        found = argosy.telemetry.summary(job.model, job.version, by="device")
        done = [s for s in found if s.labelled >= 2 * samples]
        return done if len(done) == len(DEVICES) else None

    for summary in until(reported, 60):
        variant = manifest.variant(summary.variant)
        registry = next(a.value for a in variant.accuracy if a.split == "test")
        assert summary.errors == 0
        assert summary.accuracy == pytest.approx(registry, abs=0.01)
        assert 0 < summary.p50_ms < 100


def test_every_device_serves_the_version(argosy, job, rollout, fleet):
    for device in fleet:
        (active,) = argosy.devices.get(device).active
        assert (active.model, active.version) == (job.model, job.version)


def test_the_status_on_the_device_agrees(running, job, rollout):
    status = running.run(
        "edge_client", "status", "--home", str(running.folder / DEVICES[0]), "-o", "json"
    )
    assert status.returncode == 0, status.stderr
    assert f'"version": {job.version}' in status.stdout


@pytest.fixture(scope="module")
def api(argosy, running):
    found = Home(running.folder / "home").credentials()
    headers = {"authorization": f"Bearer {found.token}"}
    with httpx.Client(base_url=found.url, headers=headers) as client:
        yield client


def execution_of(argosy, rollout_id, device):
    view = argosy.rollouts.get(rollout_id)
    return next(e for w in view.waves for e in w.executions if e.device == device)


def test_a_device_killed_mid_download_fetches_nothing_again(running, argosy, api, rollout):
    manifest = register(api, "big", megabytes=12)
    size = manifest.variants[0].file.size
    token = argosy.tokens.create(TokenRequest(device_class="slow")).token
    enrolled = running.enroll(argosy, "slow", token)
    assert enrolled.returncode == 0, enrolled.stderr
    running.run_device("slow", "--bandwidth", str(2 * 1024**2))
    device = until(
        lambda: next(
            (
                d
                for d in argosy.devices.list()
                if d.device_class == "slow" and d.presence == "ONLINE"
            ),
            None,
        ),
        20,
    )
    spec = RolloutSpec.model_validate(
        {"model": "big", "version": 1, "device_class": "slow", "waves": [{"percent": 100}]}
    )
    planned = argosy.rollouts.create(spec)
    argosy.rollouts.start(planned.id)

    def part_of_it():
        now = execution_of(argosy, planned.id, device.id)
        return now if (now.bytes_done or 0) > size / 4 else None

    before = until(part_of_it, 60)
    assert before.state is ExecState.DOWNLOADING
    running.devices["slow"].send_signal(signal.SIGKILL)
    running.devices["slow"].wait(10)
    running.run_device("slow")

    def downloaded():
        now = execution_of(argosy, planned.id, device.id)
        past = {ExecState.VERIFIED, ExecState.STAGED, ExecState.ACTIVATING, ExecState.PROBATION}
        return now if now.state in past | {ExecState.SUCCEEDED} else None

    after = until(downloaded, 60)
    golden = manifest.variants[0].golden.file.size
    # What was on its way, or not yet on the disk, when the process died may come again.
    in_flight = 64 * 64 * 1024
    assert after.bytes_fetched <= size + golden + in_flight
    assert (
        after.bytes_fetched - before.bytes_fetched <= size - before.bytes_done + golden + in_flight
    )
    argosy.rollouts.abort(planned.id)


def test_a_killed_server_comes_back_and_loses_nothing(running, argosy, rollout, job):
    counted = argosy.telemetry.summary(job.model, job.version)
    server = next(
        p
        for p in psutil.Process(running.up.pid).children(recursive=True)
        if "orchestrator.server" in command_of(p)
    )
    server.kill()
    again = until(running.connect, 30)
    before = sum(s.n for s in counted)
    until(lambda: sum(s.n for s in again.telemetry.summary(job.model, job.version)) > before, 30)
    assert again.rollouts.get(rollout.id).state is RolloutState.SUCCEEDED


def test_a_second_platform_on_taken_ports_says_so(running, argosy, tmp_path):
    port, mqtt = str(running.port), str(running.mqtt_port)
    second = running.argosy("up", "--home", str(tmp_path), "--port", port, "--mqtt-port", mqtt)
    assert second.returncode != 0
    assert port in second.stderr
    assert "Traceback" not in second.stderr


def test_the_doctor_finds_the_platform_well(running, argosy):
    found = running.argosy("doctor", "-o", "json")
    checks = {check["name"]: check for check in json.loads(found.stdout)}
    assert checks["mosquitto"]["ok"]
    assert checks["ray"]["ok"]


def test_stopping_leaves_nothing_behind(running, argosy, rollout):
    """Last: it ends the platform that the other tests share."""
    assert len(marked(running.mark)) > 5
    assert running.stop() < STOP_SECONDS
    time.sleep(0.1)
    assert marked(running.mark) == []
    for port in (running.port, running.mqtt_port):
        with socket.socket() as probe:
            # As servers do: connections that were closed a moment ago may linger.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    assert not [name for name in os.listdir("/tmp") if f"argosy-ray-{running.up.pid}" in name]  # noqa: PTH208, S108
