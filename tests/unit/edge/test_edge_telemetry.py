from __future__ import annotations

import datetime as dt
import json
import threading
from contextlib import nullcontext

import numpy as np
import pytest

from edge_client.courier import HOLD_SECONDS, SETTLE_SECONDS, UNHEARD_SECONDS, Courier
from edge_client.errors import InputError, JournalError, UsageError
from edge_client.inference import Loaded, Prediction
from edge_client.mqtt_line import backoff
from edge_client.runtime import Runtime
from edge_client.slots import Slot
from edge_client.stream import Stream, fit, read_source
from edge_client.telemetry import Buffer, Clocks, Windows, rss_mb
from edge_client.transport import Acknowledged
from schemas.signature import TensorSpec
from schemas.telemetry import Window, bucket_of
from tests.fakes.edge_models import linear_onnx, loaded, samples

DEVICE, BOOT = "dev_0000000000000001", "0" * 32


class Fake:
    provider = "CPUExecutionProvider"


def a_model(version: int = 1) -> Loaded:
    slot = Slot(
        model="digits", version=version, variant="fp32", sha256="0" * 64, manifest_sha256="1" * 64
    )
    return Loaded(slot, Fake())


def prediction(index: int, confidence: float) -> Prediction:
    return Prediction({}, 1, np.array([index]), np.array([confidence]))


@pytest.fixture
def clock():
    class Hand:
        now = 100.0

    hand = Hand()
    hand.clocks = Clocks(
        date=lambda: dt.datetime.fromtimestamp(hand.now, dt.UTC),
        steady=lambda: hand.now,
        cpu=lambda: hand.now / 10,
    )
    return hand


def buffer(tmp_path, most=100, boot=BOOT) -> Buffer:
    return Buffer(tmp_path / "telemetry.db", device=DEVICE, boot=boot, most=most)


def stored(box: Buffer) -> list[Window]:
    return [Window.model_validate_json(body) for _, body in box.waiting(1000)]


def put_one(windows, box, version=1):
    windows.served(a_model(version), 0.001, prediction(0, 0.9), None)
    for cut in windows.cut():
        box.put(*cut)


def test_a_window_adds_up_what_was_served(tmp_path, clock):
    windows, box = Windows(clock.clocks), buffer(tmp_path)
    windows.served(a_model(), 0.001, prediction(2, 0.95), 2)
    windows.served(a_model(), 0.004, prediction(1, 1.0), 0)
    windows.served(a_model(), 0.004, prediction(1, 0.05), None)
    windows.failed(a_model())
    clock.now += 5
    for cut in windows.cut():
        box.put(*cut)
    (window,) = stored(box)
    assert (window.n, window.errors, window.labelled, window.correct) == (4, 1, 2, 1)
    assert window.classes == {2: 1, 1: 2}
    assert window.confidence == (1, 0, 0, 0, 0, 0, 0, 0, 0, 2)
    assert window.latency_us == {bucket_of(1000): 1, bucket_of(4000): 2}
    assert (window.seconds, window.cpu_seconds) == (5, pytest.approx(0.5))
    assert window.start == dt.datetime.fromtimestamp(100, dt.UTC)
    assert window.rss_mb == pytest.approx(rss_mb(), rel=0.2)


def test_a_new_version_begins_a_new_window(tmp_path, clock):
    windows, box = Windows(clock.clocks), buffer(tmp_path)
    for version in (1, 1, 2, 2, 2):
        windows.served(a_model(version), 0.001, prediction(0, 0.9), None)
    for cut in windows.cut():
        box.put(*cut)
    assert [(w.version, w.n, w.seq) for w in stored(box)] == [(1, 2, 0), (2, 3, 1)]
    assert windows.cut() == []


def test_the_buffer_drops_the_oldest_and_counts_what_went(tmp_path, clock):
    windows, box = Windows(clock.clocks), buffer(tmp_path, most=3)
    for _ in range(7):
        put_one(windows, box)
    kept = stored(box)
    assert [w.seq for w in kept] == [4, 5, 6]
    lost_before = [w.dropped for w in kept]
    # Seven were made, three are there; none went uncounted.
    assert sum(lost_before) == 4
    for window_id, _ in box.waiting(10):
        box.arrived(window_id)
    put_one(windows, box)
    assert stored(box)[0].dropped == 0


def disk_full(box: Buffer, *, full: bool) -> None:
    """Let SQLite have not a page more, or as many as it likes."""
    (pages,) = box._db.execute("PRAGMA page_count").fetchone()
    box._db.execute(f"PRAGMA max_page_count={pages if full else 1_000_000}")


def fill_the_disk(windows, box) -> tuple[int, int]:
    """How many windows were kept, and how many not."""
    disk_full(box, full=True)
    kept = failed = 0
    for _ in range(40):
        try:
            put_one(windows, box)
            kept += 1
        except JournalError as error:
            assert "full" in str(error)  # noqa: PT017 - most go through, some must not
            failed += 1
    assert failed > 1
    disk_full(box, full=False)
    return kept, failed


def test_windows_that_could_not_be_written_are_counted_by_the_next_one(tmp_path, clock):
    windows, box = Windows(clock.clocks), buffer(tmp_path)
    kept, failed = fill_the_disk(windows, box)
    put_one(windows, box)
    put_one(windows, box)
    assert [w.dropped for w in stored(box)] == [0] * kept + [failed, 0]


def test_the_oldest_that_go_and_those_not_written_add_up(tmp_path, clock):
    windows, box = Windows(clock.clocks), buffer(tmp_path, most=3)
    put_one(windows, box)
    made, broken = 1, box._window
    for fails in (True, False, True, True, False, False, False, True, False):
        box._window = (lambda *_: int("x")) if fails else broken
        with pytest.raises(JournalError) if fails else nullcontext():
            put_one(windows, box)
        made += 1
    assert sum(1 + w.dropped for w in stored(box)) == made


def test_what_could_not_be_written_is_counted_across_a_restart(tmp_path, clock):
    windows, box = Windows(clock.clocks), buffer(tmp_path)
    _, failed = fill_the_disk(windows, box)
    box.close()
    box = buffer(tmp_path)
    put_one(windows, box)
    assert stored(box)[-1].dropped == failed


def test_windows_survive_a_restart_under_their_own_key(tmp_path, clock):
    windows, box = Windows(clock.clocks), buffer(tmp_path)
    put_one(windows, box)
    box.close()
    box = buffer(tmp_path, boot="f" * 32)
    put_one(windows, box)
    assert [(w.boot, w.seq) for w in stored(box)] == [(BOOT, 0), ("f" * 32, 0)]


def test_a_message_goes_only_when_the_broker_has_it():
    disk = {i: f"body {i}" for i in range(1, 6)}
    sent = []

    def publish(body):
        sent.append(body)
        return (1, len(sent))

    courier = Courier(
        waiting=lambda n: sorted(disk.items())[:n], arrived=disk.pop, publish=publish, most=2
    )
    courier.pump(0.0)
    courier.pump(0.0)
    assert sent == ["body 1", "body 2"]
    assert courier.acknowledged(Acknowledged((1, 1), ok=True), 0.0)
    assert not courier.acknowledged(Acknowledged((1, 1), ok=True), 0.0)
    courier.pump(0.0)
    assert sent[2:] == ["body 3"]
    courier.pump(SETTLE_SECONDS)
    assert 1 not in disk
    courier.disconnected()
    courier.pump(0.0)
    assert sent[3:] == ["body 2", "body 3"]
    assert courier.acknowledged(Acknowledged((1, 4), ok=False), 1.0)
    courier.pump(2.0)
    assert len(sent) == 5
    courier.pump(1.0 + HOLD_SECONDS)
    assert sent[5:] == ["body 2"]


def test_what_a_killed_broker_may_have_lost_is_sent_once_more():
    disk = {i: f"body {i}" for i in range(1, 4)}
    sent = []

    def publish(body):
        sent.append(body)
        return (1, len(sent))

    courier = Courier(
        waiting=lambda n: sorted(disk.items())[:n], arrived=disk.pop, publish=publish, most=2
    )
    courier.pump(0.0)
    assert courier.acknowledged(Acknowledged((1, 1), ok=True), 0.0)
    assert courier.acknowledged(Acknowledged((1, 2), ok=False, heard=False), 5.0)
    assert not courier.idle
    courier.pump(5.0)
    assert len(sent) == 2, "nobody is there to hear"
    courier.pump(5.0 + UNHEARD_SECONDS)
    assert sent[2:] == ["body 2", "body 3"]
    assert courier.acknowledged(Acknowledged((1, 3), ok=True), 8.0)
    courier.pump(SETTLE_SECONDS)
    assert sorted(disk) == [2, 3], "the first one is safe"
    courier.disconnected()
    courier.pump(SETTLE_SECONDS)
    assert sent[4:] == ["body 2", "body 3"]
    for ticket in ((1, 5), (1, 6)):
        assert courier.acknowledged(Acknowledged(ticket, ok=True), SETTLE_SECONDS)
    assert courier.idle
    assert courier.settling == 2
    courier.pump(2 * SETTLE_SECONDS)
    assert not disk


def test_reconnecting_backs_off_with_jitter():
    assert backoff(0, 0.0) == 0.25
    assert backoff(0, 1.0) == 0.5
    assert backoff(3, 1.0) == 4.0
    assert backoff(1000, 1.0) == 30.0


def test_a_source_is_checked(tmp_path):
    path = tmp_path / "s.npz"
    for arrays in (
        {"y": np.zeros(3, int)},
        {"x": np.zeros((3, 4)), "z": np.zeros((2, 4))},
        {"x": np.zeros((0, 4))},
        {"x": np.zeros((3, 4)), "y": np.zeros(2, int)},
        {"x": np.zeros((3, 4)), "y": np.zeros(3)},
        {"x": np.array(["a"])},
        {"x": np.array([None])},
    ):
        np.savez(path, **arrays)
        with pytest.raises(UsageError):
            read_source(path)
    with pytest.raises(UsageError, match="not a usable source"):
        read_source(tmp_path / "missing.npz")


def test_a_sample_is_fitted_to_the_signature_and_never_bent():
    image = TensorSpec(name="image", dtype="float32", shape=(-1, 1, 8, 8))
    assert fit(np.arange(64, dtype=np.uint8).reshape(8, 8), image).shape == (1, 1, 8, 8)
    with pytest.raises(InputError, match="shape"):
        fit(np.zeros(63, np.float32), image)
    with pytest.raises(InputError, match="must be uint8"):
        fit(np.zeros(64), TensorSpec(name="image", dtype="uint8", shape=(-1, 64)))


def test_the_stream_goes_round_in_order_and_counts_misfits(tmp_path):
    windows = Windows()
    runtime = Runtime(windows)
    path = tmp_path / "s.npz"
    np.savez(path, x=samples(2), y=np.array([0, 1]))
    stream = Stream(read_source(path), rate=1000, runtime=runtime, stop=threading.Event())
    stream.feed(0)
    assert windows.cut() == []
    runtime.swap(loaded(linear_onnx()))
    stream.feed(0)
    stream.feed(1)
    ((tally, _, _),) = windows.cut()
    assert (tally.n, tally.labelled) == (2, 2)
    np.savez(path, x=np.zeros((2, 5), np.float32))
    Stream(read_source(path), rate=1, runtime=runtime, stop=threading.Event()).feed(0)
    ((tally, _, _),) = windows.cut()
    assert (tally.n, tally.errors) == (1, 1)


def test_bodies_are_plain_json(tmp_path, clock):
    box = buffer(tmp_path)
    put_one(Windows(clock.clocks), box)
    assert json.loads(box.waiting(1)[0][1])["provider"] == "CPUExecutionProvider"
