"""A real agent that waits: killed, told to go on, put off, by the server's time and not its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from edge_client.slots import read_pointer
from schemas.errors import DeviceCause
from schemas.maintenance import look
from schemas.pace import MaintenanceWindow, Mode, Urgency, WindowCovers
from schemas.rollout import Command, ExecState, Probation
from schemas.topics import Down
from tests.fakes.edge_models import linear_onnx, release, run_onnx, samples
from tests.fakes.edge_trust import assignment
from tests.fakes.gateway import Device, Gateway, enrolled_home, mosquitto_path, until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(mosquitto_path() is None, reason="mosquitto is not installed"),
]

S = ExecState
VERSION = release(linear_onnx(1))
QUICK = Probation(min_inferences=1)


@pytest.fixture
def device(broker, signer, tmp_path) -> Iterator[Device]:
    x = samples(50)
    source = tmp_path / "source.npz"
    np.savez(source, x=x, y=run_onnx(linear_onnx(1), x).argmax(axis=1))
    home, device_id = enrolled_home(tmp_path / "home", broker.ca, signer, broker.port)
    device = Device(home, device_id, ("--source", str(source), "--rate", "50", "--no-bench"))
    yield device
    device.kill()


def offer(gateway: Gateway, device: Device, number: int = 1, **pace) -> str:
    gateway.add(VERSION, number)
    wanted = assignment(device.id, VERSION.manifest, version=number, probation=QUICK)
    wanted = wanted.model_copy(update=pace)
    document = gateway.signer.desired(wanted, sequence=number, length=len(VERSION.manifest))
    gateway.offer(device.id, document)
    return wanted.execution


def edge(device: Device, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edge_client", *words, "--home", str(device.home.root)],
        check=False, capture_output=True, text=True, timeout=30,
    )  # fmt: skip


def in_hours(hours: int, covers: WindowCovers = WindowCovers.ACTIVATION) -> MaintenanceWindow:
    """A window that opens in so many hours, every day, for one."""
    begins = datetime.now(UTC) + timedelta(hours=hours)
    return MaintenanceWindow(cron=f"{begins.minute} {begins.hour} * * *", minutes=60, covers=covers)


def waiting(device: Device) -> dict | None:
    """What the running agent says of itself, once it waits."""
    live = json.loads(edge(device, "status", "-o", "json").stdout)["live"]
    return live if live and live["waits"] else None


def waits(gateway: Gateway, execution: str, state: ExecState):
    """The last report, once it says that it waits."""

    def found():
        last = [r for r in gateway.reports if r.execution == execution][-1:]
        return last[0] if last and last[0].state is state and last[0].detail else None

    return until(found, f"{state} that waits; got {gateway.states(execution)}")


def test_windows_are_the_servers_whatever_the_device_is_killed_in(gateway, device):
    window = in_hours(3, WindowCovers.ALL)
    opens = look((window,), datetime.now(UTC)).until
    execution = offer(gateway, device, windows=(window,))
    device.start()
    report = waits(gateway, execution, S.DEFERRED)
    assert report.waits_until == opens
    assert not gateway.asks  # not even the manifest was asked for
    live = until(lambda: waiting(device), "a status that says so")
    assert live["state"] == "DEFERRED"
    assert "maintenance window" in live["waits"]
    assert re.search(r"reason +waits for a maintenance window until", edge(device, "status").stdout)
    device.kill()
    device.start()
    until(lambda: gateway.reports[-1].seq > report.seq, "the same again")
    assert waits(gateway, execution, S.DEFERRED).waits_until == opens
    device.kill()
    gateway.ahead = 3 * 3600 + 60.0  # of all clocks the server's alone moves on
    device.start()
    gateway.wait(execution, S.SUCCEEDED)
    assert read_pointer(device.home.pointer).active.version == 1


def test_what_is_staged_goes_on_by_the_servers_word(gateway, device):
    mode = Mode(urgency=Urgency.DOWNLOAD_ONLY)
    execution = offer(gateway, device, mode=mode, windows=(in_hours(3),))
    device.start()
    assert waits(gateway, execution, S.STAGED).waits_until is None
    for attempt in (2, 1, 1):  # one that is stale, then twice the same
        command = Command(kind="proceed", execution=execution, attempt=attempt)
        gateway.send(device.id, Down.CMD, command.model_dump_json().encode())
    gateway.wait(execution, S.SUCCEEDED)
    assert gateway.states(execution).count(S.ACTIVATING) == 1


def test_its_operator_puts_it_off_and_has_it_go_on(gateway, device):
    pace = {"mode": Mode(urgency=Urgency.SOFT), "max_deferral_seconds": 3 * 3600.0}
    execution = offer(gateway, device, windows=(in_hours(1),), **pace)
    assert edge(device, "defer").returncode == 6  # no agent runs
    device.start()
    waits(gateway, execution, S.STAGED)
    later = datetime.now(UTC) + timedelta(hours=2)
    done = edge(device, "defer", "--for", "2h")
    assert done.returncode == 0, done.stderr
    assert f"{execution} is put off until" in done.stderr
    # The window opens in an hour, for one: after two hours it is closed, until tomorrow.
    until(lambda: gateway.reports[-1].waits_until > later, "a later time")
    done = edge(device, "proceed", "digits")
    assert done.returncode == 0, done.stderr
    gateway.wait(execution, S.SUCCEEDED)
    refused = edge(device, "proceed")
    assert refused.returncode == 6
    assert "no update is under way" in refused.stderr
    assert not list(device.home.root.glob("wish*"))


def test_who_waits_is_cancelled_at_once_and_takes_the_next(gateway, device):
    execution = offer(gateway, device, jitter_seconds=86400.0)
    device.start()
    waits(gateway, execution, S.DEFERRED)
    gateway.cancel(device.id, execution)
    assert gateway.wait(execution, S.FAILED).cause is DeviceCause.CANCELLED
    again = offer(gateway, device, 2)
    gateway.wait(again, S.SUCCEEDED)
