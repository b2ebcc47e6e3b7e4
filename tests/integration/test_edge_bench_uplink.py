"""Bench reports through a real broker: of an operator's command, and of the agent's own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from edge_client.slots import read_pointer
from schemas.rollout import ExecState
from tests.fakes.edge_models import linear_onnx, release, samples
from tests.fakes.edge_trust import assignment
from tests.fakes.gateway import (
    Device,
    Gateway,
    enrolled_home,
    mosquitto_path,
    until,
)

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(mosquitto_path() is None, reason="mosquitto is not installed"),
]


@pytest.fixture
def device(broker, signer, tmp_path) -> Iterator[Device]:
    home, device_id = enrolled_home(tmp_path / "home", broker.ca, signer, broker.port)
    source = tmp_path / "source.npz"
    np.savez(source, x=samples(50))
    options = ("--source", str(source), "--rate", "50", "--window", "0.3")
    device = Device(home, device_id, options)
    yield device
    device.kill()


def install(gateway: Gateway, device: Device, *options: str) -> None:
    version = release(linear_onnx(1))
    gateway.add(version)
    wanted = assignment(device.id, version.manifest)
    gateway.offer(
        device.id, gateway.signer.desired(wanted, sequence=1, length=len(version.manifest))
    )
    device.start(*options)
    gateway.wait(wanted.execution, ExecState.SUCCEEDED)


def bench(device: Device) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "edge_client", "bench", "--home", str(device.home.root),
         "--rounds", "2", "--json"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return json.loads(done.stdout)


def of(gateway: Gateway, device: Device) -> list:
    return [report for sender, report in gateway.benches if sender == device.id]


def test_what_an_operator_measures_beside_the_agent_arrives(gateway, device):
    install(gateway, device, "--no-bench")
    printed = bench(device)
    ((report,),) = [until(lambda: of(gateway, device), "the report")]
    slot = read_pointer(device.home.pointer).active
    assert (report.model, report.version, report.variant) == ("digits", 1, "fp32")
    assert report.sha256 == slot.sha256
    assert report.model_dump(mode="json", exclude_none=True) == printed["reports"][0]
    assert [b.batch for b in report.benchmarks] == [1, 32]
    assert all(b.device_class == "default" for b in report.benchmarks)
    bench(device)
    until(lambda: len(of(gateway, device)) == 2, "the newer report")
    assert of(gateway, device)[1].at > report.at
    windows = [w for w in gateway.windows if w.device == device.id]
    assert sum(w.n for w in windows) > 0
    assert all(w.errors == 0 for w in windows)


def test_a_report_waits_on_the_disk_and_says_the_same_when_it_comes_again(gateway, device):
    install(gateway, device, "--no-bench")
    device.kill()
    bench(device)
    assert of(gateway, device) == []
    device.start("--no-bench")
    until(lambda: of(gateway, device), "the report")
    connections = len(gateway.births)
    assert device.terminate() == 0
    device.start("--no-bench")
    until(lambda: len(gateway.births) > connections, "the next connection")
    serving = len(gateway.windows)
    until(lambda: len(gateway.windows) > serving, "a window of it")
    # What was acknowledged a moment before the end may come once more, and changes nothing.
    first, *again = of(gateway, device)
    assert all(one == first for one in again)


def test_the_agent_measures_what_became_active_by_itself(gateway, device):
    install(gateway, device)
    (report,) = until(lambda: of(gateway, device), "the agent's own report")
    assert report.sha256 == read_pointer(device.home.pointer).active.sha256
    assert [b.batch for b in report.benchmarks] == [1]
    until(lambda: "measured digits v1 (fp32)" in device.log(), "the log to say so")
    assert device.terminate() == 0
