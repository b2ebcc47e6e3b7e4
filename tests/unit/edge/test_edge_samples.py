"""Samples for the operator: only by opt-in, drawn as is said, bounded, sent slowly."""

from __future__ import annotations

import random
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from edge_client.envelopes import sample_parcels
from edge_client.machine import Clocks
from edge_client.recorder import Recorder
from edge_client.sample_store import SampleStore, opt_in, quota_of
from edge_client.samples import Sampler
from edge_client.settings import Home
from edge_client.tally import Subject
from edge_client.telemetry import Windows
from edge_client.telemetry_buffer import Buffer
from schemas.sample import MAX_SAMPLE_BYTES, decode
from tests.fakes.edge_windows import counted, serve

BOOT = "5" * 32


@pytest.fixture
def hand():
    return SimpleNamespace(now=100.0)


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


def recorder(home, hand, *, per_hour=0, seed=1):
    if per_hour:
        opt_in(home.samples, per_hour)
    clocks = Clocks(
        date=lambda: hand.now, steady=lambda: hand.now, cpu=lambda: 0.0, machine=b"m" * 16
    )
    windows = Windows(clocks, rng=random.Random(seed))  # noqa: S311 - likewise
    return Recorder(home, boot=BOOT, windows=windows, buffer=Buffer(home.telemetry)), windows


def sent(home):
    store = SampleStore(home.samples)
    found = [decode(p.body) for p in sample_parcels(store, lambda _: None)((), 1000)]
    store.close()
    return found


def marked(i, n=1):
    """An input that says which it is."""
    return {"x": np.full((n, 4), i, np.float32)}


def test_nothing_is_set_aside_unless_the_operator_opted_in(home, hand):
    keeper, windows = recorder(home, hand)
    for i in range(2000):
        serve(windows, counted(), feed=marked(i + 0.123))
        hand.now += 1
    keeper.cut()
    keeper.close()
    keeper.buffer.close()
    secret = np.full(4, 0.123 + 7, np.float32).tobytes()
    files = [path for path in home.root.rglob("*") if path.is_file()]
    assert not home.samples.exists()
    assert files
    assert all(secret not in path.read_bytes() for path in files)


def test_both_streams_say_what_they_are(home, hand):
    keeper, windows = recorder(home, hand, per_hour=60)
    keeper.cut()
    for minute in range(3):
        for i in range(100):
            unsure = i == 37
            high = 0.4 if unsure else 0.9
            serve(windows, counted(), feed=marked(1000 * minute + i), best=2, high=high, truth=1)
            hand.now += 0.6
        hand.now += 1
        keeper.cut()
    found = sent(home)
    assert Counter(one.stream for one in found) == {"uniform": 3, "uncertain": 3}
    assert len({(one.boot, one.seq) for one in found}) == 6
    for minute, one in enumerate(s for s in found if s.stream == "uncertain"):
        value = np.frombuffer(one.inputs[0].data, np.float32)
        assert value.tolist() == [1000 * minute + 37] * 4
        assert (one.predicted, one.truth, one.inputs[0].shape) == (2, 1, [4])
        assert one.confidence == pytest.approx(0.4)
    assert all(
        one.probability == pytest.approx(1 / 100) for one in found if one.stream == "uniform"
    )
    rows = keeper.buffer.waiting(10)
    assert [row.window.sampled for row in rows] == [2, 2, 2]


def test_every_sample_has_the_same_chance_in_the_uniform_stream():
    sampler = Sampler(3600, random.Random(11))  # noqa: S311 - a sample
    drawn = Counter()
    for turn in range(6000):
        stream = sampler.stream(Subject(slot=counted().slot), 0.0)
        at, last = 0, None
        for n in (1, 3, 1, 5):
            row = stream.draw(n)
            last = last if row is None else at + row
            at += n
        drawn[last] += 1
        assert turn >= 0
        assert last is not None
    # 600 each; 5 standard deviations of a binomial.
    assert all(abs(drawn[i] - 600) < 5 * 23.3 for i in range(10))


def test_what_is_too_large_is_counted_and_not_kept(home, hand):
    keeper, windows = recorder(home, hand, per_hour=3600)
    keeper.cut()
    large = {"x": np.zeros((1, MAX_SAMPLE_BYTES // 4), np.float32)}
    for _ in range(5):
        serve(windows, counted(), feed=large)
        hand.now += 2
    keeper.cut()
    assert sent(home) == []
    assert windows.sampler.refused == 5


def test_the_oldest_go_when_there_is_no_room(home, hand):
    keeper, windows = recorder(home, hand, per_hour=3600)
    keeper._samples._most = 4
    for i in range(10):
        serve(windows, counted(), feed=marked(i))
        hand.now += 1.5
        keeper.cut()
    assert len(sent(home)) == 4
    assert max(one.seq for one in sent(home)) > 10


def test_what_was_sent_is_told_and_opting_out_removes_the_rest(home, hand):
    keeper, windows = recorder(home, hand, per_hour=3600)
    for i in range(3):
        serve(windows, counted(), feed=marked(i))
        hand.now += 1.5
        keeper.cut()
    store = SampleStore(home.samples)
    store.arrived([row.id for row in store.waiting(2)])
    left = len(store)
    store.close()
    assert left > 0
    serve(windows, counted(), feed=marked(9))
    keeper.cut()
    assert keeper.buffer.waiting(100)[-1].window.sent == 2
    opt_in(home.samples, 0)
    assert quota_of(home.samples) == 0
    serve(windows, counted(), feed=marked(10))
    keeper.cut()
    assert windows.sampler is None
    assert not list(home.root.glob("samples*"))


def test_a_sample_carries_the_servers_time(home, hand):
    keeper, windows = recorder(home, hand, per_hour=3600)
    hand.now = 200.0
    serve(windows, counted(), feed=marked(1))
    hand.now = 300.0
    keeper.cut()
    hand.now = 302.0
    serve(windows, counted(), feed=marked(2))
    keeper.cut()
    store = SampleStore(home.samples)
    sync = SimpleNamespace(offset=5000.0)
    found = [decode(p.body) for p in sample_parcels(store, lambda _: sync)((), 10)]
    assert found[0].at_ms == 5_200_000
    assert found[0].synced
