"""A real agent against a real broker: updates that succeed, fail, and are cut short."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_client import Edge
from edge_client.slots import read_pointer
from schemas.errors import DeviceCause
from schemas.model import Manifest
from schemas.rollout import ExecState, Probation
from schemas.topics import Down
from schemas.transfer import CHUNK_BYTES
from schemas.window import unpack
from tests.fakes.edge_models import linear_onnx, quantized_onnx, release, run_onnx, samples
from tests.fakes.edge_trust import Signer, assignment
from tests.fakes.gateway import (
    Device,
    Faults,
    Gateway,
    enrolled_home,
    mosquitto_path,
    until,
)

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(mosquitto_path() is None, reason="mosquitto is not installed"),
]

BIG = 40 * CHUNK_BYTES
S = ExecState


@pytest.fixture
def source(tmp_path) -> Path:
    x = samples(50)
    path = tmp_path / "source.npz"
    np.savez(path, x=x, y=run_onnx(linear_onnx(1), x).argmax(axis=1))
    return path


@pytest.fixture
def device(broker, signer, tmp_path, source) -> Iterator[Device]:
    home, device_id = enrolled_home(tmp_path / "home", broker.ca, signer, broker.port)
    options = ("--source", str(source), "--rate", "50", "--window", "0.3")
    device = Device(home, device_id, options)
    yield device
    device.kill()


def offer(gateway: Gateway, device: Device, version, *, number=1, sequence=None, **wanted) -> str:
    gateway.add(version, number)
    wanted = assignment(device.id, version.manifest, version=number, **wanted)
    document = gateway.signer.desired(
        wanted, sequence=sequence or number, length=len(version.manifest)
    )
    gateway.offer(device.id, document)
    return wanted.execution


def installed(gateway: Gateway, device: Device) -> None:
    """Bring a device to version 1, running."""
    execution = offer(gateway, device, release(linear_onnx(1)))
    device.start()
    gateway.wait(execution, S.SUCCEEDED)


def active_version(device: Device) -> int | None:
    slot = read_pointer(device.home.pointer).active
    return None if slot is None else slot.version


def status(device: Device) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "edge_client", "status", "--home", str(device.home.root),
         "-o", "json"],
        check=True, capture_output=True, timeout=10,
    )  # fmt: skip
    return json.loads(done.stdout)


def test_an_update_goes_through_every_state_and_serves(gateway, device):
    version = release(linear_onnx(1, padding=BIG))
    execution = offer(gateway, device, version)
    device.start()
    last = gateway.wait(execution, S.SUCCEEDED)
    states = list(dict.fromkeys(gateway.states(execution)))
    assert states == [
        S.ACCEPTED, S.DOWNLOADING, S.VERIFIED, S.STAGED, S.ACTIVATING, S.PROBATION, S.SUCCEEDED,
    ]  # fmt: skip
    reports = [r for r in gateway.reports if r.execution == execution]
    assert [r.seq for r in reports] == sorted({r.seq for r in reports})
    assert last.boot == gateway.births[-1].boot
    total = sum(len(data) for data in version.files.values())
    verified = gateway.wait(execution, S.VERIFIED)
    assert verified.bytes_done == verified.bytes_total == verified.bytes_fetched == total

    until(lambda: sum(w.n for w in gateway.windows if w.device == device.id) >= 30, "telemetry")
    windows = [w for w in gateway.windows if w.device == device.id]
    assert all(w.provider == "CPUExecutionProvider" and w.errors == 0 for w in windows)
    assert all(w.correct == w.labelled == w.n for w in windows)
    assert all(sum(unpack(w.latency, 256).values()) == sum(w.confidence) == w.n for w in windows)
    assert all(w.synced and abs(w.start_ms / 1000 - time.time()) < 60 for w in windows)
    keys = [(w.boot, w.seq) for w in windows]
    assert len(keys) == len(set(keys))
    until(lambda: any([one.version for one in b.active] == [1] for b in gateway.births), "a birth")

    found = status(device)
    assert (found["device"], found["active"][0]["version"]) == (device.id, 1)
    assert found["running"]
    x = samples(3, seed=9)
    prediction = Edge(device.home.root).model().predict(x)
    np.testing.assert_allclose(
        prediction.outputs["probabilities"], run_onnx(linear_onnx(1), x), atol=1e-5
    )
    assert device.terminate() == 0
    until(lambda: any(d.boot == last.boot for d in gateway.deaths), "the will")


def test_both_variants_are_served_without_a_failed_request(gateway, device):
    installed(gateway, device)
    both = release(linear_onnx(1, padding=10), more=[("int8", quantized_onnx(1))])
    execution = offer(gateway, device, both, number=2, variant="int8")
    gateway.wait(execution, S.SUCCEEDED)
    assert read_pointer(device.home.pointer).active.variant == "int8"
    assert read_pointer(device.home.pointer).fallback.version == 1
    until(lambda: any(w.version == 2 and w.variant == "int8" for w in gateway.windows), "windows")
    assert all(w.errors == 0 for w in gateway.windows if w.device == device.id)


def test_lost_and_damaged_chunks_are_fetched_again(gateway, device):
    version = release(linear_onnx(1, padding=3 * BIG))
    gateway.misbehave(Faults(lose=0.05, damage=0.05))
    execution = offer(gateway, device, version)
    device.start()
    gateway.wait(execution, S.SUCCEEDED)
    total = sum(len(data) for data in version.files.values())
    assert gateway.wait(execution, S.VERIFIED).bytes_fetched > total


def test_after_a_kill_nothing_is_fetched_twice(gateway, device):
    version = release(linear_onnx(1, padding=2 * BIG))
    sha = Manifest.model_validate_json(version.manifest).variants[0].file.sha256
    gateway.misbehave(Faults(withhold=50))
    execution = offer(gateway, device, version)
    device.start()
    saved_map = device.home.partial / f"{sha}.map"

    def saved() -> set[int]:
        if not saved_map.exists():
            return set()
        bits = bytes.fromhex(json.loads(saved_map.read_text())["bitmap"])
        return {i for i in range(len(bits) * 8) if bits[i // 8] >> i % 8 & 1}

    until(lambda: len(saved()) == 50, "50 chunks on the disk")
    device.kill()
    kept = saved()
    gateway.sent.clear()
    gateway.misbehave(Faults())
    device.start()
    gateway.wait(execution, S.SUCCEEDED)
    again = [index for digest, index in gateway.sent if digest == sha]
    assert kept.isdisjoint(again)
    assert len(again) == len(set(again))
    total = sum(len(data) for data in version.files.values())
    assert gateway.wait(execution, S.VERIFIED).bytes_fetched == total


def test_wrong_golden_outputs_fail_and_the_old_model_stays(gateway, device):
    installed(gateway, device)
    bad = release(linear_onnx(2), golden_error=0.5)
    failed = gateway.wait(offer(gateway, device, bad, number=2), S.FAILED)
    assert failed.cause is DeviceCause.GOLDEN_MISMATCH
    assert active_version(device) == 1


def test_an_unloadable_file_fails_and_the_old_model_stays(gateway, device):
    installed(gateway, device)
    good = release(linear_onnx(2))
    manifest = Manifest.model_validate_json(good.manifest)
    garbage = b"not a model" * 50
    from tests.fakes.edge_models import Release, model_file

    variant = manifest.variants[0].model_copy(update={"file": model_file("model.onnx", garbage)})
    manifest = manifest.model_copy(update={"variants": (variant,)})
    files = good.files | {variant.file.sha256: garbage}
    bad = Release(manifest.model_dump_json().encode(), files, garbage)
    failed = gateway.wait(offer(gateway, device, bad, number=2), S.FAILED)
    assert failed.cause is DeviceCause.LOAD_FAILED
    assert active_version(device) == 1


def test_a_model_that_fails_in_service_is_rolled_back(gateway, device, source):
    x = samples(50)
    x[1::2] *= -1
    np.savez(source, x=x)
    installed(gateway, device)
    bad = release(linear_onnx(2, log_input=True))
    back = gateway.wait(offer(gateway, device, bad, number=2), S.ROLLED_BACK)
    assert back.cause is DeviceCause.PROBATION_FAILED
    assert active_version(device) == 1
    count = len(gateway.windows)
    until(lambda: any(w.version == 1 for w in gateway.windows[count + 1 :]), "version 1 serving")


def test_starts_in_probation_are_counted_and_end_it(gateway, device):
    installed(gateway, device)
    rules = Probation(min_inferences=100_000, max_boots=2)
    execution = offer(gateway, device, release(linear_onnx(2)), number=2, probation=rules)
    gateway.wait(execution, S.PROBATION)
    for _ in range(2):
        device.kill()
        births = len(gateway.births)
        device.start()
        until(lambda births=births: len(gateway.births) > births, "the device")
        assert active_version(device) == 2
    device.kill()
    device.start()
    back = gateway.wait(execution, S.ROLLED_BACK)
    assert back.cause is DeviceCause.BOOT_LOOP
    assert active_version(device) == 1


def test_cancel_is_honoured_early_and_too_late_later(gateway, device):
    installed(gateway, device)
    gateway.misbehave(Faults(withhold=0))
    execution = offer(gateway, device, release(linear_onnx(2, padding=BIG)), number=2)
    gateway.wait(execution, S.DOWNLOADING)
    gateway.cancel(device.id, execution)
    assert gateway.wait(execution, S.FAILED).cause is DeviceCause.CANCELLED
    assert active_version(device) == 1

    gateway.misbehave(Faults())
    rules = Probation(min_inferences=100_000)
    later = offer(gateway, device, release(linear_onnx(3)), number=3, probation=rules)
    gateway.wait(later, S.PROBATION)
    gateway.cancel(device.id, later)
    until(
        lambda: (
            [r.cause for r in gateway.reports if r.execution == later][-1:]
            == [DeviceCause.CANCEL_TOO_LATE]
        ),
        "the answer",
    )
    assert gateway.reports[-1].state is S.PROBATION


def test_an_execution_that_ended_is_answered_from_the_store(gateway, device):
    first = release(linear_onnx(1))
    gateway.add(first, 1)
    wanted = assignment(device.id, first.manifest)
    document = gateway.signer.desired(wanted, length=len(first.manifest))
    gateway.offer(device.id, document)
    device.start()
    ended = gateway.wait(wanted.execution, S.SUCCEEDED)
    needs = len(gateway.needs)
    gateway.reports.clear()
    gateway.offer(device.id, document)
    assert gateway.wait(wanted.execution, S.SUCCEEDED) == ended
    assert len(gateway.needs) == needs
    second = offer(gateway, device, first, number=1, sequence=2)
    again = gateway.wait(second, S.SUCCEEDED)
    assert again.detail == "this version was serving already"
    assert len(gateway.needs) == needs


def test_a_document_for_another_device_or_below_the_floor_is_rejected(gateway, device):
    installed(gateway, device)
    offer(gateway, device, release(linear_onnx(3)), number=3)
    until(lambda: active_version(device) == 3, "version 3")
    stale = offer(gateway, device, release(linear_onnx(2)), number=2)
    assert gateway.wait(stale, S.REJECTED).cause is DeviceCause.BELOW_FLOOR
    version = release(linear_onnx(4))
    other = assignment("dev_0000000000000000", version.manifest, version=4)
    gateway.offer(device.id, gateway.signer.desired(other, sequence=9))
    assert gateway.wait(other.execution, S.REJECTED).cause is DeviceCause.WRONG_DEVICE
    forged = assignment(device.id, version.manifest, version=4)
    gateway.offer(device.id, Signer().desired(forged, sequence=9))
    assert gateway.wait(forged.execution, S.REJECTED).cause is DeviceCause.BAD_SIGNATURE
    assert active_version(device) == 3


def test_new_roots_are_walked_and_older_metadata_passes_no_more(gateway, signer, device):
    """Also when the cache is wiped in between: the floors are in the journal."""
    first = dict(signer.files)
    signer.rotate("root", "snapshot")
    installed(gateway, device)
    assert gateway.asked[0].endswith(".root.json")
    assert json.loads((device.home.metadata / "timestamp.json").read_text())
    device.kill()
    for path in device.home.metadata.iterdir():
        path.unlink()
    newest = dict(signer.files)
    signer.files.clear()
    signer.files.update(first)
    try:
        device.start()
        until(lambda: "trust metadata was not refreshed" in device.log(), "a refusal to be logged")
        version = release(linear_onnx(2))
        wanted = assignment(device.id, version.manifest, version=2)
        gateway.offer(device.id, signer.desired(wanted, sequence=2, length=len(version.manifest)))
        assert gateway.wait(wanted.execution, S.REJECTED).cause is DeviceCause.BELOW_FLOOR
    finally:
        signer.files.update(newest)
    execution = offer(gateway, device, release(linear_onnx(2)), number=2, sequence=3)
    gateway.wait(execution, S.SUCCEEDED)


def test_a_server_that_gives_no_metadata_keeps_updates_waiting_and_nothing_else(gateway, device):
    installed(gateway, device)
    gateway.silent = True
    asked, windows = len(gateway.asked), len(gateway.windows)
    execution = offer(gateway, device, release(linear_onnx(2)), number=2)
    until(lambda: len(gateway.asked) > asked, "a question")
    until(lambda: len(gateway.windows) > windows + 2, "inference to go on")
    assert gateway.states(execution) == []
    gateway.silent = False
    gateway.wait(execution, S.SUCCEEDED)


def test_a_model_larger_than_the_quota_is_refused(gateway, device):
    device.options += ("--disk-quota", "20000")
    execution = offer(gateway, device, release(linear_onnx(1, padding=BIG)))
    device.start()
    failed = gateway.wait(execution, S.FAILED)
    assert failed.cause is DeviceCause.DISK_FULL
    assert failed.retryable


def test_garbage_does_not_end_the_agent(gateway, device):
    installed(gateway, device)
    for leaf in Down:
        gateway.send(device.id, leaf, b"\xff\x00{[" * 50)
        gateway.send(device.id, leaf, b"")
    gateway.offer(device.id, b'{"signed": {"_type": "targets"}}')
    execution = offer(gateway, device, release(linear_onnx(2)), number=2)
    gateway.wait(execution, S.SUCCEEDED)


def test_a_restart_serves_without_a_broker_and_keeps_its_telemetry(gateway, broker, device, signer):
    installed(gateway, device)
    device.kill()
    broker.stop()
    try:
        device.start()
        until(lambda: "serving digits v1" in device.log(), "serving")
        until(lambda: status(device)["live"], "the live file")
        until(lambda: status(device)["live"]["windows_waiting"] >= 3, "windows on the disk")
        assert Edge(device.home.root).model().predict(samples(1)).n == 1
        assert device.terminate() == 0
    finally:
        broker.start()
    device.start()
    boots = {w.boot for w in gateway.windows}
    until(lambda: {w.boot for w in gateway.windows} - boots, "windows of the boot offline")


def test_one_agent_per_home(gateway, device):
    installed(gateway, device)
    second = subprocess.run(
        [sys.executable, "-m", "edge_client", "run", "--home", str(device.home.root)],
        check=False, capture_output=True, text=True, timeout=10,
    )  # fmt: skip
    assert second.returncode == 6
    assert "an agent runs in" in second.stderr
    assert str(device.process.pid) in second.stderr


def test_bandwidth_is_kept_to(gateway, device):
    device.options += ("--bandwidth", str(16 * CHUNK_BYTES))
    version = release(linear_onnx(1, padding=BIG))
    execution = offer(gateway, device, version)
    times = []
    sent, real = gateway.sent, time.monotonic

    class Timed(list):
        def append(self, item) -> None:
            times.append(real())
            super().append(item)

    gateway.sent = Timed(sent)
    device.start()
    gateway.wait(execution, S.SUCCEEDED)
    assert len(times) >= 41
    seconds = times[-1] - times[0]
    assert seconds >= (len(times) - 8) / 16  # a burst of a quarter of a second is let through


@pytest.mark.parametrize(("error", "code"), [(0.0, 0), (0.5, 7)])
def test_once_ends_with_the_update(gateway, device, error, code):
    offer(gateway, device, release(linear_onnx(1), golden_error=error))
    process = device.start("--once")
    assert process.wait(60) == code
    assert gateway.reports[-1].state is (S.FAILED if code else S.SUCCEEDED)


def test_a_lost_broker_is_found_again_in_the_middle_of_a_download(gateway, broker, device):
    gateway.misbehave(Faults(withhold=20))
    execution = offer(gateway, device, release(linear_onnx(1, padding=BIG)))
    device.start()
    until(lambda: len(gateway.sent) >= 20, "chunks")
    broker.stop()
    gateway.misbehave(Faults())
    broker.start()
    gateway.wait(execution, S.SUCCEEDED)


@pytest.mark.parametrize("name", ["telemetry.db", "journal.db"])
def test_a_damaged_database_does_not_keep_the_model_from_serving(gateway, device, name):
    installed(gateway, device)
    device.kill()
    for path in device.home.root.glob(f"{name}-*"):
        path.unlink()
    (device.home.root / name).write_bytes(b"not a database, " * 500)
    windows, births = len(gateway.windows), len(gateway.births)
    device.start()
    until(lambda: sum(w.n for w in gateway.windows[windows:]) >= 5, "served inferences")
    versions = lambda birth: [one.version for one in birth.active]  # noqa: E731 - one line
    until(lambda: any(versions(b) == [1] for b in gateway.births[births:]), "birth")
    damaged = device.home.root / f"{name}.damaged"
    if name == "telemetry.db":
        assert damaged.exists()
        execution = offer(gateway, device, release(linear_onnx(2)), number=2)
        gateway.wait(execution, S.SUCCEEDED)
        return
    # Without the sequence floor an old offer could be taken for a new one.
    offer(gateway, device, release(linear_onnx(2)), number=2)
    refused = "no updates are taken"
    until(lambda: refused in ((status(device)["live"] or {}).get("last_error") or ""), refused)
    assert not damaged.exists()
    assert (device.home.root / name).read_bytes().startswith(b"not a database")
    assert active_version(device) == 1
