"""How two versions differ: signs, units, words, and classes in unlike shares."""

from __future__ import annotations

import pytest

from orchestrator.domain.judging.difference import differences
from orchestrator.domain.judging.figures import DeviceFigures, Span
from orchestrator.domain.judging.sums import span_of
from orchestrator.domain.rollup import Kept, Sums
from schemas.experiment import ExperimentSpec
from schemas.telemetry import bucket_of
from schemas.window import Window, pack


def spec(*metrics, **more):
    return ExperimentSpec.model_validate({"model": "m", "a": 1, "b": 2, "metrics": metrics} | more)


def arm(name, posts, *, device_class="pi", pre=None):
    return [DeviceFigures(f"{name}{i}", device_class, pre, post) for i, post in enumerate(posts)]


def errors(*rates, n=1000):
    return [Span(n=n, errors=round(rate * n)) for rate in rates]


def took(*ms):
    return [Span(n=100, latency={bucket_of(one * 1000): 100}) for one in ms]


def test_errors_are_told_in_points_and_fewer_are_better():
    a, b = errors(0.05, 0.06, 0.07, 0.06, 0.05), errors(0.01, 0.02, 0.01, 0.02, 0.01)
    (found,) = differences(arm("a", a), arm("b", b), spec("error_rate"))
    assert found.value == pytest.approx(-0.044)
    assert (found.a, found.b) == pytest.approx((0.058, 0.014))
    assert found.better == "b"
    assert found.words.startswith("b fails less often: -4.40 points (")
    swapped = differences(arm("a", b), arm("b", a), spec("error_rate"))[0]
    assert (swapped.value, swapped.better) == (pytest.approx(0.044), "a")
    assert (swapped.low, swapped.high) == pytest.approx((-found.high, -found.low))


def test_latency_is_told_as_a_factor_and_in_milliseconds():
    (found,) = differences(
        arm("a", took(2, 2.2, 1.8, 2, 2.1)),
        arm("b", took(4, 4.4, 3.6, 4, 4.2)),
        spec("latency_p95"),
    )
    assert found.value == pytest.approx(2, rel=0.1)
    assert found.a == pytest.approx(2, rel=0.1)
    assert found.better == "a"
    assert found.words.startswith("b is slower: +")


def test_alike_is_said_to_be_alike_and_too_few_to_be_too_few():
    same = errors(0.05, 0.06, 0.04, 0.05, 0.05)
    (found,) = differences(arm("a", same), arm("b", same), spec("error_rate"))
    assert (found.value, found.better) == (0, None)
    assert "no difference is shown" in found.words
    (found,) = differences(arm("a", same[:4]), arm("b", same), spec("error_rate"))
    assert (found.value, found.low, found.better) == (None, None, None)
    assert found.words == "cannot be said: 4 devices of a and 5 of b count"


def test_classes_in_unlike_shares_mislead_nobody():
    """b is on more cameras, which fail more whatever they run: by the total it would be worse."""
    easy, hard = errors(*[0.02] * 5), errors(*[0.4] * 5)
    better_easy, better_hard = errors(*[0.01] * 20), errors(*[0.35] * 40)
    a = [*arm("a", easy * 8), *arm("c", hard, device_class="camera")]
    b = [*arm("b", better_easy), *arm("d", better_hard, device_class="camera")]
    total, camera, pi = differences(a, b, spec("error_rate"))
    assert total.b > total.a - 0.05
    assert (camera.better, pi.better, total.better) == ("b", "b", "b")
    assert total.value == pytest.approx((60 * -0.01 + 45 * -0.05) / 105)


def test_a_past_takes_out_what_devices_differ_in_anyway():
    rates = [0.02, 0.2, 0.1, 0.3, 0.05, 0.15]
    before = errors(*rates, n=4000)
    arms = [
        [
            DeviceFigures(f"{name}{i}", "pi", pre, post)
            for i, (pre, post) in enumerate(zip(before, errors(*after, n=4000), strict=True))
        ]
        for name, after in (("a", rates), ("b", [rate + 0.03 for rate in rates]))
    ]
    (found,) = differences(*arms, spec("error_rate"))
    assert found.better == "a"
    without = [[DeviceFigures(d.device, "pi", None, d.post) for d in arm_] for arm_ in arms]
    assert differences(*without, spec("error_rate"))[0].better is None


def test_a_span_is_what_windows_add_up_to():
    sums = Sums()
    for method, mj in (("rapl", 500), ("cpu_time", 9000)):
        window = Window(
            about=0, seq=0, start_ms=0, synced=True, length_ms=1500, n=10, errors=1,
            latency=pack({7: 9}), classes=pack({2: 9}), confidence=[0, 9], energy_mj=mj,
            method=method, rss_mib=44,
        )  # fmt: skip
        sums.add(Kept(window))
    span = span_of(sums)
    assert (span.n, span.errors, span.latency, span.classes) == (20, 2, {7: 18}, {2: 18})
    assert (span.energy_mj, span.energy_n, span.method) == (500, 10, "measured")
    assert (span.confidence, span.rss_mib, span.seconds) == ((0, 18, *[0] * 8), 44, 3.0)
    assert span_of(None) is None
    assert span_of(Sums()) is None
