"""A real agent gets files by every way there is, over a real broker; and is killed on each."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from edge_client.slots import read_pointer
from schemas.model import Manifest
from schemas.rollout import ExecState
from schemas.transfer import CHUNK_BYTES, BroadcastOffer
from tests.fakes.edge_models import Release, linear_onnx, release
from tests.fakes.edge_patches import patch_of
from tests.fakes.edge_trust import assignment
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

CHUNKS = 60
BIG = CHUNKS * CHUNK_BYTES - 1000
S = ExecState
OFFER = BroadcastOffer(batch=1, starts_in=0.2, rate=5e6, quiet=0.7)


@pytest.fixture
def device(broker, signer, tmp_path) -> Iterator[Device]:
    home, device_id = enrolled_home(tmp_path / "home", broker.ca, signer, broker.port)
    device = Device(home, device_id, ("--window", "1", "--no-bench"))
    yield device
    device.kill()


def offer(gateway: Gateway, device: Device, version: Release, *, number: int = 1) -> str:
    gateway.add(version, number)
    wanted = assignment(device.id, version.manifest, version=number)
    document = gateway.signer.desired(wanted, sequence=number, length=len(version.manifest))
    gateway.offer(device.id, document)
    return wanted.execution


def place(home, version: Release) -> None:
    """Leave a version's model among the complete files."""
    home.create()
    (home.blobs / sha_of(version)).write_bytes(version.onnx)


def sha_of(version: Release) -> str:
    return Manifest.model_validate_json(version.manifest).variants[0].file.sha256


def tuned(data: bytes, *, shifted: bool) -> bytes:
    """The same model with other weights; shifted: with all bytes at other places."""
    model = onnx.load_from_string(data)
    weights = numpy_helper.to_array(model.graph.initializer[0])
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights + 1, "weights"))
    if shifted:
        model.graph.node[0].doc_string = "so that everything lies elsewhere"
    return model.SerializeToString()


def pulled(gateway: Gateway, sha256: str) -> list[int]:
    return [index for digest, index in gateway.sent if digest == sha256]


def test_what_did_not_change_is_copied_and_the_rest_is_made_of_a_patch(gateway, device):
    old = release(linear_onnx(1, padding=BIG))
    place(device.home, old)
    near = release(tuned(old.onnx, shifted=False))
    device.start()
    done = gateway.wait(offer(gateway, device, near), S.VERIFIED)
    assert pulled(gateway, sha_of(near)) == [0]
    golden = sum(len(d) for d in near.files.values()) - len(near.onnx)
    assert done.bytes_fetched == CHUNK_BYTES + golden
    assert done.bytes_done == done.bytes_total == len(near.onnx) + golden

    far = release(tuned(old.onnx, shifted=True))
    patch = patch_of(near.onnx, far.onnx)
    gateway.patch(far.onnx, near.onnx, patch)
    gateway.patch_retries = 2
    done = gateway.wait(offer(gateway, device, far, number=2), S.VERIFIED)
    golden = sum(len(d) for d in far.files.values()) - len(far.onnx)
    rest = pulled(gateway, sha_of(far))
    assert len(rest) <= CHUNKS / 10  # chunks whose bytes lie in the slice of another frame
    assert done.bytes_fetched < len(patch) + golden + (len(rest) + 1) * CHUNK_BYTES
    gateway.wait(done.execution, S.PROBATION)
    assert read_pointer(device.home.pointer).active.sha256 == sha_of(far)


def test_a_broadcast_is_taken_and_what_it_lost_is_pulled(gateway, device):
    version = release(linear_onnx(1, padding=BIG))
    gateway.broadcasts = OFFER
    gateway.misbehave(Faults(lose=0.2, damage=0.05, double=0.1, seed=3))
    execution = offer(gateway, device, version)
    device.start()
    until(lambda: "listening to a broadcast of model.onnx" in device.log(), "the device")
    gateway.broadcast(sha_of(version))
    gateway.misbehave(Faults())
    gateway.broadcasts = None
    done = gateway.wait(execution, S.VERIFIED)
    rest = pulled(gateway, sha_of(version))
    assert 0 < len(rest) == len(set(rest)) < CHUNKS / 2
    assert done.bytes_fetched >= done.bytes_total


def test_told_of_a_broadcast_in_the_middle_it_stops_asking(gateway, device):
    version = release(linear_onnx(1, padding=BIG))
    sha256 = sha_of(version)
    gateway.misbehave(Faults(withhold=20))
    execution = offer(gateway, device, version)
    device.start()
    until(lambda: len(gateway.sent) >= 20, "chunks")
    gateway.tell_of_broadcast(device.id, sha256, OFFER)
    until(lambda: "listening to a broadcast" in device.log(), "the device")
    gateway.misbehave(Faults())
    gateway.broadcast(sha256, chunks=range(10, 50))
    gateway.wait(execution, S.VERIFIED)
    rest = pulled(gateway, sha256)[20:]
    assert rest
    assert set(rest).isdisjoint(range(50))


def test_a_kill_while_it_listens_loses_nothing_and_the_topic_is_left(gateway, device):
    version = release(linear_onnx(1, padding=BIG))
    sha256 = sha_of(version)
    gateway.broadcasts = OFFER.model_copy(update={"quiet": 60.0})
    execution = offer(gateway, device, version)
    device.start()
    until(lambda: "listening to a broadcast of model.onnx" in device.log(), "the device")
    gateway.broadcast(sha256, chunks=range(25))
    data = device.home.partial / f"{sha256}.data"
    until(lambda: data.exists() and data.stat().st_size == 25 * CHUNK_BYTES, "25 chunks")
    device.kill()
    gateway.broadcasts = None
    gateway.sent.clear()
    device.start()
    done = gateway.wait(execution, S.VERIFIED)
    assert set(pulled(gateway, sha256)) == set(range(25, CHUNKS))
    assert len(pulled(gateway, sha256)) == CHUNKS - 25
    assert done.bytes_fetched == done.bytes_total
    gateway.broadcast(sha256, chunks=[0])
    until(lambda: "to which nothing listens any more" in device.log(), "the device")


def test_a_kill_while_a_patch_comes_loses_nothing(gateway, device):
    old, new = release(linear_onnx(1, padding=BIG)), release(linear_onnx(2, padding=BIG))
    place(device.home, old)
    patch = patch_of(old.onnx, new.onnx)[: 50 * CHUNK_BYTES]  # random weights: as long as the file
    gateway.patch(new.onnx, old.onnx, patch)
    digest = gateway.patches[sha_of(new)].sha256
    gateway.misbehave(Faults(withhold=20))
    execution = offer(gateway, device, new)
    device.start()
    data = device.home.partial / f"{digest}.data"
    until(lambda: data.exists() and data.stat().st_size == 20 * CHUNK_BYTES, "20 chunks")
    device.kill()
    gateway.misbehave(Faults())
    gateway.sent.clear()
    device.start()
    gateway.wait(execution, S.VERIFIED)
    assert sorted(pulled(gateway, digest)) == list(range(20, 50))
    assert not data.exists()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_model(gateway, device):
    """At most 16 MiB more for 200 MB, at its peak, up to the trial load."""
    execution = offer(gateway, device, release(linear_onnx(1, padding=200_000_000)))
    gateway.faults.withhold = 0
    process = device.start()
    status = Path(f"/proc/{process.pid}/status")

    def rss(name: str) -> int:
        lines = status.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024

    until(lambda: gateway.needs, "a request")
    before, peak, over = rss("VmRSS"), [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.005):
            peak[0] = max(peak[0], rss("VmRSS"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        gateway.faults.withhold = None
        gateway.wait(execution, S.VERIFIED, 120)
    finally:
        over.set()
        watcher.join()
    assert peak[0] - before <= 16 * 1024**2
