from __future__ import annotations

import random
import sqlite3
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from edge_client.courier import (
    HOLD_SECONDS,
    SETTLE_SECONDS,
    UNHEARD_SECONDS,
    Bucket,
    Courier,
    Parcel,
    singly,
)
from edge_client.envelopes import Envelopes
from edge_client.errors import InputError, JournalError, UsageError
from edge_client.mqtt_line import backoff
from edge_client.recorder import Recorder
from edge_client.runtime import Runtime
from edge_client.settings import Home
from edge_client.stream import Stream, fit, read_source
from edge_client.telemetry import MAX_PENDING, MAX_PENDING_BYTES, Clocks, Windows
from edge_client.telemetry_buffer import Buffer
from edge_client.transport import Acknowledged
from schemas.dataset import Baseline
from schemas.signature import Signature, TensorSpec
from schemas.telemetry import bucket_of
from schemas.window import MAX_ENVELOPE_BYTES, decode, unpack
from tests.fakes.edge_models import linear_onnx, loaded, samples
from tests.fakes.edge_windows import counted, serve
from workers.inspection.baseline import baseline_of, bin_counts, input_statistics

BOOT, OTHER = "0" * 32, "f" * 32


@pytest.fixture
def hand():
    hand = SimpleNamespace(now=100.0, machine=b"m" * 16)
    hand.clocks = lambda: Clocks(
        date=lambda: hand.now + 1e9,
        steady=lambda: hand.now,
        cpu=lambda: hand.now / 10,
        machine=hand.machine,
    )
    return hand


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


def recorder(home, hand, *, boot=BOOT, most=100, most_bytes=10**6):
    windows = Windows(hand.clocks(), rng=random.Random(1))  # noqa: S311 - a sample, by seed
    buffer = Buffer(home.telemetry, most=most, most_bytes=most_bytes)
    return Recorder(home, boot=boot, windows=windows, buffer=buffer), windows, buffer


def stored(buffer):
    return [row.window for row in buffer.waiting(1000)]


def gone(disk):
    return lambda ids: [disk.pop(one) for one in ids]


def test_a_window_adds_up_what_was_served(home, hand):
    keeper, windows, buffer = recorder(home, hand)
    one = counted()
    windows.cold(one)
    serve(windows, one, best=2, high=0.95, seconds=0.001, truth=2)
    serve(windows, one, best=1, high=1.0, seconds=0.004, truth=0)
    serve(windows, one, best=1, high=0.55, seconds=0.004, n=5, runs=1, queue_seconds=0.02)
    windows.failed(one, 2)
    windows.rejected(one, 3)
    windows.shed(one, 4)
    hand.now += 5
    keeper.cut()
    (row,) = buffer.waiting(10)
    window = row.window
    assert (window.n, window.errors, window.labelled, window.correct) == (9, 2, 2, 1)
    assert (window.rejected, window.shed, window.cold, window.runs) == (3, 4, 1, 3)
    assert unpack(window.classes, 9) == {2: 1, 1: 6}
    assert window.confidence == [0, 0, 0, 0, 0, 5, 0, 0, 0, 2]
    assert sum(window.entropy) == 7
    assert window.entropy[0] == 1, "nothing is surer than 1"
    assert unpack(window.latency, 256) == {bucket_of(1000): 1, bucket_of(4000): 6}
    assert unpack(window.queue, 256) == {bucket_of(20_000): 5}
    assert (window.length_ms, window.cpu_ms) == (5000, 500)
    assert window.raw_bytes == 7 * 16
    assert (row.steady, row.date, row.machine) == (100.0, 100.0 + 1e9, b"m" * 16)
    assert window.method == "cpu_time"
    assert window.energy_mj > 0


def test_models_and_roles_have_windows_of_their_own(home, hand):
    keeper, windows, buffer = recorder(home, hand)
    for version in (1, 1, 2, 2, 2):
        serve(windows, counted(version))
    serve(windows, counted(2), role="shadow")
    windows.compared(counted(2), 3, 4)
    keeper.cut()
    found = [(Envelopes(buffer, lambda _: None).waiting((), 9))]
    envelope = decode(found[0][0].body)
    whose = {
        (envelope.about[w.about].version, envelope.about[w.about].role): w for w in envelope.windows
    }
    assert {key: one.n for key, one in whose.items()} == {
        (1, "active"): 2, (2, "active"): 3, (2, "shadow"): 1,
    }  # fmt: skip
    shadow = whose[2, "shadow"]
    assert (shadow.compared, shadow.agreed) == (4, 3)
    assert sorted(w.seq for w in envelope.windows) == [0, 1, 2]
    keeper.cut()
    assert len(buffer) == 3, "nothing was served since"


def test_many_threads_lose_nothing_though_they_work_off_the_list_themselves(home, hand):
    keeper, windows, buffer = recorder(home, hand)
    one = counted()

    def work():
        for _ in range(3 * MAX_PENDING):
            serve(windows, one, n=2)
            windows.failed(one)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        keeper.cut()
    for thread in threads:
        thread.join()
    keeper.cut()
    tried = 4 * 3 * MAX_PENDING
    assert sum(w.n for w in stored(buffer)) == 3 * tried
    assert sum(w.errors for w in stored(buffer)) == tried
    assert sum(sum(unpack(w.latency, 256).values()) for w in stored(buffer)) == 2 * tried


def based(shape=(-1, 1, 8, 8), layout="NCHW", n=400):
    """A model with the baseline of random images, and inputs like them."""
    rng = np.random.default_rng(3)
    x = rng.integers(0, 17, size=(n, *shape[1:])).astype(np.float32)
    baseline = baseline_of(input_statistics(x, layout), dict.fromkeys(range(10), n // 10))
    spec = TensorSpec(name="x", dtype="float32", shape=shape, layout=layout)
    manifest = SimpleNamespace(
        baseline=Baseline.model_validate(baseline.model_dump()),
        signature=Signature(inputs=(spec,), outputs=(spec,)),
    )
    return counted(manifest=manifest), baseline, x


@pytest.mark.parametrize(
    ("shape", "layout"), [((-1, 1, 8, 8), "NCHW"), ((-1, 6), None), ((-1, 9, 3), "NTC")]
)
def test_inputs_are_counted_as_where_the_baseline_was_made(home, hand, shape, layout):
    model, baseline, x = based(shape, layout)
    x[3] = np.nan
    x[4] *= 1000
    keeper, windows, buffer = recorder(home, hand)
    for start in range(0, 200, 2):
        serve(windows, model, feed={"x": x[start : start + 2]}, n=2)
    keeper.cut()
    (window,) = stored(buffer)
    made = input_statistics(x[:200], layout)
    for counts, feature in zip(window.features, baseline.features, strict=True):
        binned = bin_counts(made[feature.name], feature.edges)
        expected = [binned.under, binned.over, binned.nan, *binned.counts]
        assert counts + [0] * (len(expected) - len(counts)) == expected
    assert window.raw_bytes == x[:200].nbytes


def test_a_caller_may_reuse_its_buffer(home, hand):
    model, baseline, x = based()
    keeper, windows, buffer = recorder(home, hand)
    mine = np.zeros((1, 1, 8, 8), np.float32)
    for row in x[:50]:
        mine[0] = row
        serve(windows, model, feed={"x": mine})
    keeper.cut()
    edges = next(f.edges for f in baseline.features if f.name == "mean")
    binned = bin_counts(input_statistics(x[:50])["mean"], edges)
    counts = stored(buffer)[0].features[0]
    assert counts[3:] == list(binned.counts)[: len(counts) - 3]


def test_of_very_many_inputs_a_random_part_is_looked_at(home, hand):
    model, _, x = based()
    keeper, windows, buffer = recorder(home, hand)
    for second in range(60):
        for i in range(500):
            serve(windows, model, feed={"x": x[i % 400][None]})
        hand.now = 101.0 + second
    keeper.cut()
    (window,) = stored(buffer)
    looked = sum(window.features[0])
    assert window.n == 30_000
    assert 700 < looked < 2500, "about 16 a second, and all of the first"
    spread = np.array(window.features[0][3:]) / looked
    assert np.abs(spread - 1 / len(spread)).max() < 0.03, "none is preferred"


def test_large_inputs_that_wait_are_bounded_in_memory(home, hand):
    """Before the load is known, all would be looked at: 64 MiB of each of these batches."""
    model, _, _ = based()
    x = np.zeros((64, 1, 512, 512), np.float32)
    keeper, windows, buffer = recorder(home, hand)
    held = []
    for _ in range(20):
        serve(windows, model, n=len(x), feed={"x": x})
        waiting = (item[-1] for line in windows._open() for item in line.pending)
        held.append(sum(picked.size for picked in waiting if picked is not None))
        hand.now += 0.01
    assert max(held) <= MAX_PENDING_BYTES
    keeper.cut()
    assert 0 < sum(stored(buffer)[0].features[0]) <= 20


@pytest.mark.parametrize(("rate", "most"), [(10, 270), (330, 350)])
def test_a_window_of_ten_classes_has_at_most_300_bytes(home, hand, rate, most):
    """Of a minute. Beyond 300 only where each count needs a third byte."""
    model, _, x = based()
    rng = np.random.default_rng(5)
    keeper, windows, buffer = recorder(home, hand)
    scores = rng.dirichlet(np.full(10, 0.2), 60 * rate).astype(np.float32)
    seconds = rng.lognormal(-8, 0.2, 60 * rate).tolist()
    for i in range(60 * rate):
        feed = {"x": x[i % 400][None]}
        windows.served(model, feed=feed, raw=[scores[i][None]], n=1, seconds=seconds[i])
        hand.now += 1 / rate
    keeper.cut()
    (parcel,) = Envelopes(buffer, lambda _: None).waiting((), 1)
    assert len(decode(parcel.body).windows[0].features) == 5
    assert len(parcel.body) <= most


def test_the_buffer_drops_the_oldest_and_counts_what_went(home, hand):
    keeper, windows, buffer = recorder(home, hand, most=3)
    for _ in range(7):
        serve(windows, counted())
        keeper.cut()
    assert [w.seq for w in stored(buffer)] == [4, 5, 6]
    # Seven were made, three are there; none went uncounted.
    assert sum(w.dropped for w in stored(buffer)) == 4
    buffer.arrived([row.id for row in buffer.waiting(10)])
    serve(windows, counted())
    keeper.cut()
    assert [w.dropped for w in stored(buffer)] == [0]


def test_bytes_are_bounded_too(home, hand):
    keeper, windows, buffer = recorder(home, hand, most_bytes=1500)
    for _ in range(40):
        serve(windows, counted())
        keeper.cut()
    kept = buffer.waiting(100)
    assert sum(row.size for row in kept) <= 1500
    assert len(kept) + sum(row.window.dropped for row in kept) == 40


def test_what_cannot_be_written_is_in_the_next_window(home, hand):
    keeper, windows, buffer = recorder(home, hand)
    holder = sqlite3.connect(home.telemetry, isolation_level=None)
    buffer._db.execute("PRAGMA busy_timeout=1")
    holder.execute("BEGIN IMMEDIATE")
    for version in (1, 2, 1):
        serve(windows, counted(version), n=2)
        with pytest.raises(JournalError, match="locked"):
            keeper.cut()
        hand.now += 1
    holder.execute("ROLLBACK")
    holder.close()
    serve(windows, counted(1))
    keeper.cut()
    assert sorted(w.n for w in stored(buffer)) == [2, 5]
    assert all(w.dropped == 0 for w in stored(buffer))
    assert max(w.length_ms for w in stored(buffer)) == 3000


def test_windows_survive_a_restart_under_their_own_key(home, hand):
    for boot in (BOOT, OTHER):
        keeper, windows, buffer = recorder(home, hand, boot=boot)
        serve(windows, counted())
        keeper.close()
        found = [decode(p.body) for p in Envelopes(buffer, lambda _: None).waiting((), 1)]
        buffer.close()
    assert [(found[0].about[w.about].boot.hex(), w.seq) for w in found[0].windows] == [
        (BOOT, 0), (OTHER, 0),
    ]  # fmt: skip
    assert list(home.live_counts.iterdir()) == [], "nothing is left to recover"


@pytest.mark.parametrize(
    "killed_in",
    ["edge_client.telemetry_buffer.Buffer.put", "edge_client.telemetry.Windows.written"],
)
def test_what_a_replaced_file_held_is_not_counted_again_after_a_kill(
    home, hand, monkeypatch, killed_in
):
    keeper, windows, _ = recorder(home, hand)
    serve(windows, counted(1), n=5)
    serve(windows, counted(2), n=7)
    keeper.cut()
    for end in ("", "-wal", "-shm"):
        home.telemetry.with_name(home.telemetry.name + end).unlink(missing_ok=True)
    serve(windows, counted(2), n=1)
    with monkeypatch.context() as patch:
        patch.setattr(killed_in, lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            keeper.cut()
    windows.leave(forget=False)  # as a SIGKILL does: the lock goes, the counts stay
    other = recorder(home, hand, boot=OTHER)[0]
    assert other.recover() == 0
    assert sum(row.window.n for row in other.buffer.waiting(9)) <= 1


@pytest.mark.parametrize("column", ["about", "body"])
def test_a_window_that_cannot_be_read_does_not_keep_the_others_back(home, hand, column):
    keeper, windows, buffer = recorder(home, hand)
    for _ in range(3):
        serve(windows, counted())
        keeper.cut()
    db = sqlite3.connect(home.telemetry)
    db.execute("UPDATE windows SET %s = x'c1c1' WHERE id = 1" % column)  # noqa: S608, UP031 - ours
    db.commit()
    db.close()
    (parcel,) = Envelopes(buffer, lambda _: None).waiting((), 4)
    assert [one.seq for one in decode(parcel.body).windows] == [1, 2]
    serve(windows, counted())
    keeper.cut()
    assert [one.dropped for one in stored(buffer)] == [0, 0, 1]


def test_windows_of_older_agents_are_counted_as_dropped(home, hand):
    db = sqlite3.connect(home.telemetry)
    db.executescript(
        "CREATE TABLE windows (id INTEGER PRIMARY KEY, body TEXT, dropped INTEGER);"
        "INSERT INTO windows (body, dropped) VALUES ('{}', 0), ('{}', 2);"
        "CREATE TABLE lost (id INTEGER PRIMARY KEY, n INTEGER);"
    )
    db.close()
    keeper, windows, buffer = recorder(home, hand)
    assert len(buffer) == 0
    serve(windows, counted())
    keeper.cut()
    assert [w.dropped for w in stored(buffer)] == [4]


def test_what_waited_goes_in_few_envelopes_each_within_its_bounds(home, hand):
    keeper, windows, buffer = recorder(home, hand, most=1000)
    scores = np.random.default_rng(2).dirichlet(np.full(3000, 0.2), 400).astype(np.float32)
    for _ in range(150):
        windows.served(counted(), feed={"x": scores}, raw=[scores], n=400, seconds=0.1)
        keeper.cut()
    parcels = Envelopes(buffer, lambda _: None).waiting((1, 2), 1000)
    assert all(len(p.body) <= MAX_ENVELOPE_BYTES for p in parcels)
    assert [one for p in parcels for one in p.ids] == list(range(3, 151))
    assert len(parcels) < 10


def test_however_much_there_is_it_goes_at_a_pace():
    sent = []
    courier = Courier(
        waiting=lambda under_way, most: [
            Parcel((i,), b"x") for i in range(1000) if i not in under_way
        ][:most],
        arrived=lambda _: None,
        publish=lambda body: sent.append(body) or (1, len(sent)),
        most=1000,
        pace=Bucket(4.0, 8.0),
    )
    for tenth in range(101):
        courier.pump(tenth / 10)
    assert len(sent) == 8 + 40


def test_a_message_goes_only_when_the_broker_has_it():
    disk = {i: f"body {i}" for i in range(1, 6)}
    sent = []

    def publish(body):
        sent.append(body)
        return (1, len(sent))

    courier = Courier(
        waiting=singly(lambda n: sorted(disk.items())[:n]),
        arrived=gone(disk),
        publish=publish,
        most=2,
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
        waiting=singly(lambda n: sorted(disk.items())[:n]),
        arrived=gone(disk),
        publish=publish,
        most=2,
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
    runtime.swap("digits", loaded(linear_onnx()))
    stream.feed(0)
    stream.feed(1)
    (cut,) = windows.cut()
    assert (cut.tally.n, cut.tally.labelled) == (2, 2)
    np.savez(path, x=np.zeros((2, 5), np.float32))
    Stream(read_source(path), rate=1, runtime=runtime, stop=threading.Event()).feed(0)
    (cut,) = windows.cut()
    assert (cut.tally.n, cut.tally.errors) == (1, 1)
