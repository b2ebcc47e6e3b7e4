"""The simulator's parts: nothing is lost on the wire or the wheel, and a seed decides all."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator.simulator import codec
from orchestrator.simulator.draws import normal, share
from orchestrator.simulator.profile import Drift, Effect, Kind, Offline, Profile, Traffic
from orchestrator.simulator.telemetry import Recorder, Serving
from orchestrator.simulator.traffic import level, window
from orchestrator.simulator.traits import draw, effects, kinds
from orchestrator.simulator.wheel import SLOT_SECONDS, Wheel
from schemas.device import ActiveModel
from schemas.telemetry import quantile
from schemas.window import decode

PAYLOADS = st.lists(st.binary(max_size=400), max_size=8)


@given(PAYLOADS, st.lists(st.integers(1, 97), min_size=1, max_size=20))
def test_packets_come_out_whole_however_the_bytes_are_cut(payloads, cuts):
    stream = b"".join(
        codec.publish(f"t/{n}", payload, pid=n + 1) for n, payload in enumerate(payloads)
    )
    buffer, found, at = bytearray(), [], 0
    while at < len(stream):
        size = cuts[at % len(cuts)]
        buffer += stream[at : at + size]
        at += size
        found += [codec.message_of(packet) for packet in codec.split(buffer)]
    assert [one.payload for one in found] == payloads
    assert [one.pid for one in found] == list(range(1, len(payloads) + 1))
    assert not buffer


@given(
    st.lists(st.tuples(st.floats(0, 50), st.floats(0, 30)), max_size=40),
    st.lists(st.floats(0.001, 20), min_size=1, max_size=30),
)
def test_every_timer_fires_once_and_never_early(timers, steps):
    wheel, now, due = Wheel(100.0), 100.0, {}
    waiting = sorted(enumerate(timers), key=lambda one: one[1][0])
    fired: Counter[int] = Counter()
    for step in [*steps, 200.0]:
        now += step
        while waiting and 100 + waiting[0][1][0] <= now:
            number, (_at, delay) = waiting.pop(0)
            due[number] = now + delay
            wheel.after(delay, now, fired.update, [number])
        for act, args in wheel.due(now):
            act(*args)
            assert now >= due[args[0][0]]
    for act, args in wheel.due(now + 100):
        act(*args)
    assert fired == Counter(dict.fromkeys(due, 1))
    assert len(wheel) == 0


@given(st.floats(0, 5))
def test_a_timer_is_not_late_by_more_than_two_slots(delay):
    wheel = Wheel(0.0)
    wheel.after(delay, 0.0, lambda: None)
    assert len(wheel.due(delay + 2 * SLOT_SECONDS)) == 1


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=6), st.integers(1, 300))
def test_classes_have_their_shares_and_a_larger_fleet_begins_as_a_smaller(weights, count):
    profile = Profile(
        classes=tuple(Kind(name=f"c{i}", share=weight) for i, weight in enumerate(weights))
    )
    found = kinds(profile, count)
    total = sum(weights)
    for kind in profile.classes:
        had = sum(one is kind for one in found)
        assert abs(had - kind.share / total * count) <= len(weights)
    assert kinds(profile, count + 7)[:count] == found


@given(st.integers(0, 2**31), st.integers(0, 10**6), st.text(max_size=8))
def test_chance_is_a_share_and_the_same_again(seed, number, name):
    assert 0 <= share(seed, number, name) < 1
    assert share(seed, number, name) == share(seed, number, name)
    assert abs(normal(seed, number, name)) < 10


TRAFFIC = st.builds(
    Traffic,
    rate=st.floats(0.01, 500),
    accuracy=st.floats(0, 1),
    labelled=st.floats(0, 1),
    error_rate=st.floats(0, 1),
    latency_ms=st.floats(0.0001, 500_000),
    latency_spread=st.floats(0, 3),
    low_confidence=st.floats(0, 1),
    spread=st.floats(0, 1),
    drift=st.builds(Drift, own=st.floats(0, 1), common=st.floats(0, 1)),
)
EFFECT = st.builds(
    Effect,
    accuracy=st.floats(-1, 1),
    error_rate=st.floats(-1, 1),
    low_confidence=st.floats(-1, 1),
    class_shift=st.floats(0, 1),
    latency=st.floats(0.001, 1000),
)


@settings(max_examples=60)
@example(Traffic(latency_ms=1e-9), [], 1.0, 0)
@given(TRAFFIC, st.lists(EFFECT, max_size=2), st.floats(0.01, 120), st.integers(0, 1000))
def test_every_window_that_can_be_drawn_is_one_that_the_platform_takes(
    traffic, changes, seconds, seed
):
    traits = draw(Profile(), Kind(name="default", traffic=traffic), 3, seed)
    model = ActiveModel(model="digits", version=2, variant="int8", sha256="f" * 64)
    one = Serving(model, level(traffic, changes), since=10.0, loaded=10.0)
    payload = Recorder(traits, seed).cut(one, 10.0 + seconds, wall=1.7e9, synced=True)
    (counted,) = decode(payload).windows
    assert counted.correct <= counted.labelled <= counted.n
    assert counted.length_ms == max(1, round(seconds * 1000))


def drawn(traffic: Traffic, *changes: Effect, number: int = 0, seed: int = 5):
    traits = draw(Profile(), Kind(name="default", traffic=traffic), number, seed)
    of = level(traffic, changes)
    return window(of, traits, seconds=4000, at=1e9, seed=seed, key=("digits", 2, 0))


def test_a_window_follows_from_the_seed_and_differs_between_devices():
    traffic = Traffic()
    assert drawn(traffic) == drawn(traffic)
    assert drawn(traffic) != drawn(traffic, number=1)
    assert drawn(traffic) != drawn(traffic, seed=6)


def test_what_is_measured_is_what_the_profile_says():
    traffic = Traffic(accuracy=0.9, error_rate=0.02, low_confidence=0.2, spread=0)
    found = drawn(traffic)
    assert found.n == pytest.approx(8000, rel=0.1)
    assert found.correct / found.labelled == pytest.approx(0.9, abs=0.02)
    assert found.errors / found.n == pytest.approx(0.02, abs=0.01)
    assert sum(found.confidence[:5]) / sum(found.confidence) == pytest.approx(0.2, abs=0.03)
    assert quantile(found.latency, 0.5) == pytest.approx(8000, rel=0.1)
    worse = drawn(traffic, Effect(accuracy=-0.3, latency=2.0, class_shift=0.5))
    assert worse.correct / worse.labelled == pytest.approx(0.6, abs=0.03)
    assert quantile(worse.latency, 0.5) == pytest.approx(16_000, rel=0.1)
    assert worse.classes[0] / sum(worse.classes.values()) == pytest.approx(0.7, abs=0.03)


def test_faults_and_effects_have_their_share_and_keep_to_their_class():
    profile = Profile(
        classes=(Kind(name="a"), Kind(name="b")),
        faults=(Offline(kind="offline", share=0.3, device_class="a"),),
        versions=(Effect(version=3, device_class="b", share=0.5, accuracy=-0.5),),
    )
    a, b = profile.classes
    of_a = [draw(profile, a, number, 1) for number in range(1000)]
    of_b = [draw(profile, b, number, 1) for number in range(1000)]
    assert sum(one.offline for one in of_a) == pytest.approx(300, abs=60)
    assert not any(one.offline for one in of_b)
    hit = sum(bool(effects(profile, one, "digits", 3, 1)) for one in of_b)
    assert hit == pytest.approx(500, abs=80)
    assert not any(effects(profile, one, "digits", 2, 1) for one in of_b)
    assert not any(effects(profile, one, "digits", 3, 1) for one in of_a)
