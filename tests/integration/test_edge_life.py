"""No device is left without a model: real agents, a real broker, bad models and a cut network."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from edge_client.slots import read_pointer
from schemas.errors import DeviceCause, Exit
from schemas.rollout import ExecState, Probation
from tests.fakes.edge_misbehaving import (
    greedy_onnx,
    hanging_onnx,
    harmful_samples,
    huge_onnx,
    slow_onnx,
)
from tests.fakes.edge_models import linear_onnx, release
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

S, C = ExecState, DeviceCause
FIRST = Probation(min_inferences=20)


@pytest.fixture
def make(broker, signer, tmp_path) -> Iterator[list]:
    """Makes devices, each with a home of its own; ends them."""
    source = tmp_path / "source.npz"
    np.savez(source, x=harmful_samples())
    made: list[Device] = []

    def new(name: str, *options: str, sensor: bool = True) -> Device:
        home, device_id = enrolled_home(tmp_path / name, broker.ca, signer, broker.port)
        feed = ("--source", str(source), "--rate", "50", "--window", "1") if sensor else ()
        made.append(Device(home, device_id, (*feed, "--no-bench", *options)))
        return made[-1]

    yield new
    for device in made:
        device.kill()


def offer(gateway: Gateway, device: Device, version, number: int, rules: Probation) -> str:
    gateway.add(version, number)
    wanted = assignment(device.id, version.manifest, version=number, probation=rules)
    gateway.offer(
        device.id, gateway.signer.desired(wanted, sequence=number, length=len(version.manifest))
    )
    return wanted.execution


def active(device: Device) -> int | None:
    slot = read_pointer(device.home.pointer).active
    return None if slot is None else slot.version


def command(device: Device, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edge_client", words[0], "--home", str(device.home.root),
         *words[1:]],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


BAD = {
    "wrong": (release(linear_onnx(2), golden_error=0.5), Probation(), C.GOLDEN_MISMATCH),
    "huge": (None, Probation(), C.OUT_OF_MEMORY),
    "slow": (release(slow_onnx()), Probation(min_inferences=100), C.TOO_SLOW),
    "hang": (release(hanging_onnx()), Probation(min_inferences=60), C.HUNG),
    "greedy": (
        release(greedy_onnx()),
        Probation(min_inferences=10_000, max_latency_ratio=None, max_memory_mb=90),
        C.OUT_OF_MEMORY,
    ),
}
"""By name: the version, how it is judged, and the cause with which it is taken back."""


def bad_release(name: str):
    version, rules, cause = BAD[name]
    if version is None:  # what it gives is not known: nothing here could run it
        from tests.fakes import edge_models

        real, edge_models.run_onnx = edge_models.run_onnx, lambda _data, x: x[:, :3]
        try:
            version = release(huge_onnx())
        finally:
            edge_models.run_onnx = real
    return version, rules, cause


def test_every_bad_model_is_taken_back_with_the_network_cut(gateway, broker, make):
    impatient = {"hang": ("--watchdog", "3")}
    devices = {name: make(name, *impatient.get(name, ())) for name in BAD}
    versions = {name: bad_release(name) for name in BAD}
    ended = {}
    for device in devices.values():
        ended[device.id] = offer(gateway, device, release(linear_onnx(1)), 1, FIRST)
        device.start()
    for execution in ended.values():
        gateway.wait(execution, S.SUCCEEDED)
    tried = {}
    for number, (name, device) in enumerate(devices.items(), start=2):
        version, rules, _ = versions[name]
        tried[name] = offer(gateway, device, version, number, rules)
    for execution in tried.values():
        gateway.wait(execution, S.VERIFIED)
    broker.stop()
    told = {name: set(gateway.states(tried[name])) for name in ("slow", "hang", "greedy")}
    assert not any(S.ROLLED_BACK in states for states in told.values())

    assert devices["hang"].process.wait(60) == Exit.HUNG
    assert "Current thread" in devices["hang"].log()
    assert active(devices["hang"]) != 1
    devices["hang"].start()  # as a supervisor does
    for name in ("slow", "hang", "greedy"):
        until(lambda name=name: "ROLLED_BACK" in devices[name].log(), f"{name} to go back")
    for name in ("wrong", "huge"):
        until(lambda name=name: " FAILED" in devices[name].log(), f"{name} to fail")
    for name, device in devices.items():
        assert active(device) == 1, name
        assert device.process.poll() is None
    told_here = command(devices["slow"], "status").stdout
    assert "too_slow" in told_here or "not connected" in told_here
    assert "digits v1" in told_here
    broker.start()
    for name in devices:
        cause = BAD[name][2]
        last = gateway.wait(tried[name], S.FAILED if name in {"wrong", "huge"} else S.ROLLED_BACK)
        assert last.cause is cause, (name, last)
    slow = next(r for r in gateway.reports if r.execution == tried["slow"] and r.cause)
    assert "times the" in slow.detail


CRASHES = """
import ctypes
from edge_client import loading, serving

load = loading.load_slot

def crash(store, slot, session=None):
    if slot.version == 2:
        ctypes.string_at(0)
    return load(store, slot, session)

loading.load_slot = serving.load_slot = crash
"""


def test_a_model_whose_load_kills_the_agent_is_taken_back_without_a_network(
    gateway, broker, make, tmp_path, monkeypatch
):
    """As a fault in native code does that the trial did not meet: it loads in its own process."""
    (tmp_path / "sitecustomize.py").write_text(CRASHES)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    device = make("segv")
    device.start()
    gateway.wait(offer(gateway, device, release(linear_onnx(1)), 1, FIRST), S.SUCCEEDED)
    bad = offer(gateway, device, release(linear_onnx(2)), 2, Probation(max_boots=2))
    assert device.process.wait(30) == -signal.SIGSEGV
    broker.stop()
    try:
        for _ in range(2):  # as a supervisor does
            assert device.start().wait(30) == -signal.SIGSEGV
            assert active(device) == 1
        device.start()
        until(lambda: "ROLLED_BACK" in device.log(), "it to go back")
    finally:
        broker.start()
    assert gateway.wait(bad, S.ROLLED_BACK).cause is C.BOOT_LOOP
    assert (active(device), device.process.poll()) == (1, None)


def test_a_model_that_nobody_asks_is_proven_by_its_golden_vectors_and_taken_back_by_hand(
    gateway, make
):
    device = make("idle", sensor=False)
    quick = Probation(min_inferences=10, max_seconds=0.5)
    first = offer(gateway, device, release(linear_onnx(1)), 1, quick)
    device.start()
    assert "golden vectors passed" in gateway.wait(first, S.SUCCEEDED).detail
    refused = command(device, "rollback")
    assert (refused.returncode, refused.stderr.count("\n")) == (Exit.CONFLICT, 2)
    assert "nothing to roll back to" in refused.stderr

    second = offer(gateway, device, release(linear_onnx(2)), 2, quick)
    proven = gateway.wait(second, S.SUCCEEDED)
    births = len(gateway.births)
    done = command(device, "rollback")
    assert (done.returncode, "v1" in done.stderr) == (0, True), done.stderr
    back = gateway.wait(second, S.ROLLED_BACK)
    assert (back.cause, back.seq > proven.seq, active(device)) == (C.OPERATOR, True, 1)
    until(lambda: any(b.rolled_back for b in gateway.births[births:]), "a birth that says so")
    seen = gateway.births[-1]
    assert (seen.active[0].version, seen.execution.execution) == (1, second)
    assert (seen.execution.state, seen.execution.seq) == (S.ROLLED_BACK, back.seq)

    third = offer(gateway, device, release(linear_onnx(3)), 3, Probation())
    gateway.wait(third, S.PROBATION)
    until(lambda: active(device) == 3, "version 3")
    assert command(device, "rollback").returncode == 0
    assert gateway.wait(third, S.ROLLED_BACK).cause is C.OPERATOR

    fourth = offer(gateway, device, release(linear_onnx(4)), 4, quick)
    gateway.wait(fourth, S.SUCCEEDED)
    until(lambda: not gateway.births[-1].rolled_back, "the next success to clear it")
    assert device.terminate() == 0
    alone = command(device, "rollback")
    assert (alone.returncode, active(device)) == (0, 1), alone.stderr
    device.start()
    assert gateway.wait(fourth, S.ROLLED_BACK).cause is C.OPERATOR


UNSHARE = shutil.which("unshare") or ""


def _mounts() -> bool:
    words = [UNSHARE, "-m", "sh", "-c", "mount -t tmpfs none /mnt"]
    return bool(UNSHARE) and subprocess.run(words, check=False, capture_output=True).returncode == 0


READ_ONLY = """
mount -t tmpfs none /mnt && cp -a "$HOME_FOLDER/." /mnt/ && mount -o remount,ro /mnt || exit 9
$PYTHON -m edge_client run --home /mnt --source "$SOURCE" --window 1 2>"$LOG" &
pid=$!
until grep -q "serving digits" "$LOG"; do kill -0 $pid || exit 8; sleep 0.1; done
$PYTHON -m edge_client status --home /mnt
kill $pid
wait $pid
"""


@pytest.mark.skipif(not _mounts(), reason="needs the right to mount")
def test_a_disk_that_became_read_only_serves_on_and_is_told_of(gateway, make, tmp_path):
    device = make("read-only")
    gateway.wait(_installed(gateway, device), S.SUCCEEDED)
    assert device.terminate() == 0
    log = tmp_path / "agent.log"
    names = {"HOME_FOLDER": device.home.root, "PYTHON": sys.executable,
             "SOURCE": device.options[1], "LOG": log}  # fmt: skip
    done = subprocess.run(
        [UNSHARE, "-m", "sh", "-c", READ_ONLY],
        check=False, capture_output=True, text=True, timeout=60,
        env=os.environ | {name: str(value) for name, value in names.items()},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + log.read_text()
    assert "serving digits v1" in log.read_text()
    assert "read-only: the model serves" in done.stdout


def _installed(gateway: Gateway, device: Device) -> str:
    execution = offer(gateway, device, release(linear_onnx(1)), 1, FIRST)
    device.start()
    return execution
