"""Simulated devices over a real broker, before the gateway that real agents are tested against."""

from __future__ import annotations

import json

import pytest

from orchestrator.simulator.profile import DuplicatedReports, Effect, Profile, Traffic, Work
from schemas.errors import DeviceCause
from schemas.rollout import ExecState
from schemas.transfer import CHUNK_BYTES
from tests.fakes.edge_models import linear_onnx, release
from tests.fakes.edge_trust import assignment
from tests.fakes.gateway import Faults, Gateway, mosquitto_path, until
from tests.fakes.simulated import Running

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(mosquitto_path() is None, reason="mosquitto is not installed"),
]

S = ExecState
QUICK = Profile(
    work=Work(step_seconds=0.05),
    pull=1.0,
    eager_seconds=0.3,
    window_seconds=0.5,
)


def quick(**more) -> Profile:
    classes = (QUICK.classes[0].model_copy(update={"traffic": Traffic(rate=50)}),)
    return QUICK.model_copy(update={"classes": classes, **more})


@pytest.fixture
def run(broker, tmp_path):
    """Start a fleet; all of them are stopped in the end."""
    running: list[Running] = []

    def start(profile: Profile, number: int) -> Running:
        fleet = Running(tmp_path / "fleet", broker, profile, number)
        running.append(fleet)
        until(lambda: fleet.fleet.online == number, "the simulated devices")
        return fleet

    yield start
    for fleet in running:
        fleet.stop()


def offer(gateway: Gateway, device: str, model: bytes, version: int = 1, sequence: int = 1) -> str:
    made = release(model)
    gateway.add(made, version)
    wanted = assignment(device, made.manifest, version=version)
    document = gateway.signer.desired(wanted, sequence=sequence, length=len(made.manifest))
    gateway.offer(device, document)
    return wanted.execution


def of(gateway: Gateway, execution: str):
    return [one for one in gateway.reports if one.execution == execution]


def test_updates_are_pulled_reported_and_measured_in_spite_of_losses(run, gateway):
    fleet = run(quick(faults=(DuplicatedReports(kind="duplicated_reports", share=1, rate=1),)), 3)
    gateway.misbehave(Faults(lose=0.03, damage=0.03, double=0.1))
    model = linear_onnx(1, padding=10 * CHUNK_BYTES)
    offered = {device: offer(gateway, device, model) for device in fleet.devices}
    for execution in offered.values():
        done = gateway.wait(execution, S.SUCCEEDED)
        told = of(gateway, execution)
        assert [one.seq for one in told] == sorted(2 * list(range(done.seq + 1)))
        verified = next(one for one in told if one.state is S.VERIFIED)
        assert verified.bytes_done == verified.bytes_total > 10 * CHUNK_BYTES
    assert len({(sha, index) for sha, index in gateway.sent}) >= 11
    until(lambda: {one.device for one in gateway.windows} == set(fleet.devices), "telemetry")
    assert all(one.about.version == 1 for one in gateway.windows)
    births = [one for one in gateway.births if one.active]
    assert births[-1].active[0].version == 1
    summary = fleet.stop()
    assert summary["states"] == {"SUCCEEDED": 3}
    assert sum(one["count"] for one in summary["offers"].values()) == 3
    until(lambda: len(gateway.deaths) == 3, "the wills")


def test_a_cancel_is_heard_and_counted(run, gateway):
    slow = quick(pull=0.0, work=Work(step_seconds=3600))
    fleet = run(slow, 2)
    executions = [offer(gateway, device, linear_onnx(1)) for device in fleet.devices]
    for device, execution in zip(fleet.devices, executions, strict=True):
        gateway.wait(execution, S.VERIFIED)
        gateway.cancel(device, execution)
        assert gateway.wait(execution, S.FAILED).cause is DeviceCause.CANCELLED
    summary = fleet.stop()
    assert sum(one["count"] for one in summary["stops"].values()) == 2


def test_a_broker_that_goes_away_is_found_again_and_nothing_that_was_reported_is_lost(
    run, gateway, broker
):
    fleet = run(quick(pull=0.0, work=Work(step_seconds=1.0)), 2)
    executions = [offer(gateway, device, linear_onnx(1)) for device in fleet.devices]
    for execution in executions:
        gateway.wait(execution, S.VERIFIED)
    broker.stop()
    until(lambda: fleet.fleet.online == 0, "the loss of the connection")
    broker.start()
    for execution in executions:
        gateway.wait(execution, S.SUCCEEDED)
    assert fleet.stop()["lost_connections"] >= 2


def test_the_next_run_uses_the_identities_and_goes_on_serving(run, gateway):
    first = run(quick(pull=0.0), 2)
    executions = [offer(gateway, device, linear_onnx(1)) for device in first.devices]
    for execution in executions:
        gateway.wait(execution, S.SUCCEEDED)
    first.stop()
    kept = json.loads((first.folder.root / "state.json").read_text())
    assert set(kept["devices"]) == set(first.devices)
    gateway.births.clear()
    gateway.windows.clear()
    second = run(quick(pull=0.0), 2)
    assert second.devices == first.devices
    until(lambda: {one.device for one in gateway.windows} == set(first.devices), "telemetry")
    said = [one for one in gateway.births if one.execution is not None]
    assert {one.execution.state for one in said} == {"SUCCEEDED"}
    assert all(one.active[0].version == 1 for one in said)


def test_a_version_that_silences_or_kills_devices_does_so_after_it_is_active(run, gateway):
    profile = quick(pull=0.0, versions=(Effect(version=2, silent=1.0), Effect(version=3, dead=1.0)))
    fleet = run(profile, 1)
    (device,) = fleet.devices
    gateway.wait(offer(gateway, device, linear_onnx(1), 1, 1), S.SUCCEEDED)
    until(lambda: gateway.windows, "telemetry of the first version")
    gateway.wait(offer(gateway, device, linear_onnx(2), 2, 2), S.SUCCEEDED)
    deaths = len(gateway.deaths)
    gateway.wait(offer(gateway, device, linear_onnx(3), 3, 3), S.SUCCEEDED)
    until(lambda: len(gateway.deaths) > deaths, "the end of the device")
    assert fleet.fleet.online == 0
    assert 2 not in {one.about.version for one in gateway.windows}
