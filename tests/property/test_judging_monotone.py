"""No verdict gets better when a device gets worse, by whatever figure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import special

from orchestrator.domain.judging.closure import closed_high, closed_low
from orchestrator.domain.judging.compare import Group, group
from orchestrator.domain.judging.figures import Cohorts, DeviceFigures, Span, Verdict
from orchestrator.domain.judging.verdict import judge_telemetry, outcome
from schemas.gates import STANDARD, Gates, Metric, TelemetryGate

REQUIRED = tuple(one.model_copy(update={"required": True}) for one in STANDARD)
RANK = {Verdict.FAIL: 0, Verdict.INCONCLUSIVE: 1, Verdict.WAIT: 1, Verdict.PASS: 2}
N = 1000
FIGURES = ("errors", "wrong", "unsure", "bucket", "silent")
NUMBER = st.floats(-5, 5, allow_subnormal=False).map(lambda x: round(x, 4))


def device(name, pre, now):
    """Of figures by name; what was before has no silence."""

    def span(of):
        return Span(
            n=N,
            errors=of["errors"],
            labelled=N,
            correct=N - of["wrong"],
            confidence=(of["unsure"], 0, 0, 0, 0, 0, 0, 0, 0, N - of["unsure"]),
            latency={of["bucket"]: N},
            classes={0: N},
        )

    return DeviceFigures(name, "pi", span(pre), span(now), silent=bool(now.get("silent", 0)))


def rows(most, bucket, *, silent=False):
    """Figures of 5 to 9 devices, all about as bad as ``most`` allows."""
    figures = {name: st.integers(0, most) for name in ("errors", "wrong", "unsure")}
    figures["bucket"] = st.integers(*bucket)
    figures["silent"] = st.integers(0, 1 if silent else 0)
    return st.lists(st.fixed_dictionaries(figures), min_size=5, max_size=9)


def verdict(treated, control, gates, *, last):
    pre = {"errors": 10, "wrong": 10, "unsure": 10, "bucket": 50}
    cohorts = Cohorts(
        tuple(device(f"t{i}", pre, now) for i, now in enumerate(treated)),
        tuple(device(f"c{i}", pre, now) for i, now in enumerate(control)),
    )
    return outcome(judge_telemetry(cohorts, gates, look=1, last=last), last=last)


@pytest.mark.parametrize("telemetry", [STANDARD, REQUIRED], ids=["optional", "required"])
@pytest.mark.parametrize("last", [False, True])
@given(treated=rows(300, (50, 90), silent=True), control=rows(30, (48, 52)), data=st.data())
@settings(max_examples=40)
def test_no_figure_of_a_device_that_gets_worse_improves_a_verdict(
    telemetry, last, treated, control, data
):
    control = control if data.draw(st.booleans()) else []
    gates = Gates(telemetry=telemetry, alpha=data.draw(st.sampled_from([0.01, 0.2])))
    before = verdict(treated, control, gates, last=last)
    which = data.draw(st.integers(0, len(treated) - 1))
    figure = data.draw(st.sampled_from(FIGURES))
    most = {"bucket": 250, "silent": 1}.get(figure, N)
    worse = {figure: data.draw(st.integers(treated[which][figure], most))}
    changed = [{**now, **worse} if i == which else now for i, now in enumerate(treated)]
    assert RANK[verdict(changed, control, gates, last=last)] <= RANK[before]


@given(
    treated=st.lists(st.integers(0, 60), min_size=5, max_size=12),
    others=st.lists(st.integers(0, 60), min_size=5, max_size=12),
    metric=st.sampled_from([Metric.ERROR_RATE, Metric.ACCURACY, Metric.LATENCY_P95]),
    data=st.data(),
)
@settings(max_examples=150)
def test_a_device_that_becomes_like_the_others_never_lets_a_required_gate_pass(
    treated, others, metric, data
):
    """Far better devices spread the values; without them there is less to pass by, not more."""
    tolerated = data.draw(st.sampled_from([0.01, 0.03, 0.1]))
    worse = 1 + 10 * tolerated if metric is Metric.LATENCY_P95 else tolerated
    gates = Gates(
        telemetry=(TelemetryGate(metric=metric, max_worse=worse),),
        alpha=data.draw(st.sampled_from([0.01, 0.2])),
    )
    others = others if data.draw(st.booleans()) else []
    more = [data.draw(st.integers(figure, 60)) for figure in treated]
    past = {"errors": 30, "wrong": 30, "unsure": 0, "bucket": 80}

    def judged(figures):
        sides = [
            tuple(
                device(f"{i}", past, {"errors": x, "wrong": x, "unsure": 0, "bucket": 50 + x})
                for i, x in enumerate(side)
            )
            for side in (figures, others)
        ]
        return judge_telemetry(Cohorts(*sides), gates, look=1, last=True)[0]

    before, after = judged(treated), judged(more)
    if before.ok is not True:
        assert after.ok is not True
    assert after.high >= before.high - 1e-9


def test_a_device_that_is_far_better_does_not_keep_a_gate_open():
    gate = TelemetryGate(metric=Metric.ERROR_RATE, max_worse=0.02)

    def judged(first):
        before = Span(n=20_000, errors=10_000)
        treated = (first, *range(9_990, 10_008, 2))
        sides = [
            tuple(
                DeviceFigures(f"{i}", "pi", before, Span(n=20_000, errors=e))
                for i, e in enumerate(each)
            )
            for each in (treated, range(9_990, 10_010, 2))
        ]
        return judge_telemetry(Cohorts(*sides), Gates(telemetry=(gate,)), look=1, last=True)[0]

    assert judged(9_990).ok is True
    assert judged(100).ok is True


@given(
    treated=st.lists(st.integers(0, 600), min_size=5, max_size=9),
    others=st.lists(st.integers(0, 600), min_size=5, max_size=9),
    control=st.integers(0, 1),
    least=st.sampled_from([1, 50]),
    n=st.sampled_from([600, 20_000]),
    data=st.data(),
)
@settings(max_examples=150)
def test_more_errors_anywhere_never_undo_a_failure(treated, others, control, least, n, data):
    gate = TelemetryGate(metric=Metric.ERROR_RATE, max_worse=0.02, required=False)
    gates = Gates(telemetry=(gate,), min_inferences=least, alpha=data.draw(st.floats(0.001, 0.2)))
    span = Span(n=n, errors=data.draw(st.integers(0, 200)))
    more = [data.draw(st.integers(errors, 600)) for errors in treated]

    def judged(errors):
        sides = [
            tuple(DeviceFigures(f"{i}", "pi", span, replace(span, errors=e)) for i, e in each)
            for each in (enumerate(errors), enumerate(others if control else []))
        ]
        return judge_telemetry(Cohorts(*sides), gates, look=1, last=True)[0]

    before, after = judged(treated), judged(more)
    if before.ok is False:
        assert after.ok is False
        assert before.low > (0 if control else gate.max_worse)
    assert after.value >= before.value
    assert after.low >= before.low - 1e-12


def test_a_device_that_fails_four_times_as_often_does_not_let_the_others_off():
    """An example that was found: 329 failed, 800 passed."""

    def judged(errors):
        before = Span(n=20_000)
        treated = tuple(
            DeviceFigures(f"t{i}", "pi", before, Span(n=20_000, errors=e))
            for i, e in enumerate(errors)
        )
        control = tuple(DeviceFigures(f"c{i}", "pi", before, before) for i in range(6))
        found = judge_telemetry(Cohorts(treated, control), Gates(), look=1, last=True)
        return outcome(found, last=True)

    assert judged([191, 115, 329, 260, 231, 179]) is Verdict.FAIL
    assert judged([191, 115, 800, 260, 231, 179]) is Verdict.FAIL


@given(
    st.lists(NUMBER, min_size=2, max_size=8),
    st.lists(NUMBER, min_size=2, max_size=8) | st.none(),
    st.floats(1e-6, 2),
    st.sampled_from([0.2, 0.01, 1e-4, 1e-6]),
    st.data(),
)
@example([0.0, 0.0, 0.0], [0.0, 0.0], 1e-6, 0.01, None)
@settings(max_examples=150)
def test_the_limit_is_the_highest_of_all_values_that_are_no_worse(
    values, control, least, alpha, data
):
    x, floor = np.array(values), np.asarray(least)
    other = None if control is None else group(np.array(control), np.zeros(len(control)))
    mean = 0.0 if other is None else float(other.mean)
    found = float(closed_low(x, floor, other, alpha))

    def limits(y):
        """Of each y alone: where all values are alike there is nothing to forgive."""
        own = np.maximum(y.var(axis=-1, ddof=1) / len(x), least)
        alike = np.broadcast_to(y.mean(axis=-1)[:, None], y.shape)
        return closed_low(alike, own, other, alpha)

    held = limits(np.minimum(x, np.linspace(x.min(), x.max(), 401)[:, None])).max()
    most = -special.stdtrit(min(len(x), len(control or x)) - 1, alpha)
    room = 1e-9 + (x.max() - x.min()) / 400 * max(1.0, most)
    assert held - 1e-9 * (1 + abs(found)) <= found <= held + room
    assert found <= x.mean() - mean + 1e-9
    assert float(closed_high(-x, floor, _turned(other), alpha)) == -found
    if data is None:
        return
    lower = x - np.array([data.draw(st.floats(0, 5)) for _ in values])
    assert limits(lower[None])[0] <= found + 1e-9 * (1 + abs(found))
    assert float(closed_low(lower, floor, other, alpha)) <= found + 1e-9 * (1 + abs(found))


def _turned(control):
    return control if control is None else replace(control, mean=-control.mean)


@given(
    st.integers(2, 40),
    st.integers(2, 40),
    st.floats(-9, 9),
    st.sampled_from([0.2, 0.01, 1e-4, 1e-6]),
)
@settings(max_examples=150)
def test_the_half_width_is_welchs_or_more_and_hardly_more(n, m, power, alpha):
    """For cohorts that differ equally or where the wave's differ more, as a new version makes."""
    own, other = 2.0**power / n, 1.0 / m
    sizes = np.asarray(float(m))
    control = Group(np.asarray(0.0), np.asarray(other), sizes, np.asarray(0.0))
    width = -float(closed_low(np.zeros(n), np.asarray(own), control, alpha))

    def welch(own):
        freedom = (own + other) ** 2 / (own**2 / (n - 1) + other**2 / (m - 1))
        return -special.stdtrit(freedom, alpha) * np.sqrt(own + other)

    least = -special.stdtrit(n + m - 2, alpha) * np.sqrt(own + other)
    assert width >= least * (1 - 1e-9)
    if power >= 0:
        assert width >= welch(own) * (1 - 1e-9)
        # A small control is taken to vary as the wave does.
        error = np.sqrt(own + max(other, own * n / m if n >= 1.5 * m else 0.0))
        most = -special.stdtrit(min(n, m) - 1, alpha) * error
        assert width <= max(welch(own * 2), most) * (1 + 1e-9)
    if n == m >= 10 and alpha > 1e-6 and 0 <= power <= 2:
        assert width <= 1.07 * welch(own)


_ODD = {
    "one in ten": lambda rng, shape: (rng.random(shape) < 0.1) * 1.0,
    "one in ten the other way": lambda rng, shape: (rng.random(shape) < 0.1) * -1.0,
    "skewed": lambda rng, shape: rng.lognormal(size=shape),
    "normal": lambda rng, shape: rng.normal(size=shape),
}


@pytest.mark.parametrize("odd", _ODD)
@pytest.mark.parametrize(("n", "m"), [(5, 200), (200, 5), (10, 100), (30, 5)])
def test_cohorts_of_unlike_size_that_do_not_differ_show_neither_harm_nor_its_absence(n, m, odd):
    """Five devices that happen to be alike were taken to have no variance: a third was stopped."""
    rng, waves = np.random.default_rng(7), 400
    treated, kept = _ODD[odd](rng, (waves, n)), _ODD[odd](rng, (waves, m))
    other = group(kept, np.full(kept.shape, 1e-6))
    least = group(treated, np.full(treated.shape, 1e-6)).least
    assert (closed_low(treated, least, other, 0.005) > 0).mean() <= 0.0125
    assert (closed_high(treated, least, other, 0.005) < 0).mean() <= 0.0125


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_devices_have_no_limit(n):
    two = group(np.array([0.0, 0.1]), np.zeros(2))
    assert closed_low(np.full(n, 0.5), np.asarray(0.1), two, 0.01) == -np.inf
    one = group(np.full(n, 0.5), np.zeros(n))
    assert closed_low(np.array([1.0, 2.0]), np.asarray(0.1), one, 0.01) == -np.inf


def test_devices_that_are_not_counted_change_nothing_in_an_array_of_waves():
    two = group(np.array([[0.0, 0.1], [0.2, 0.4]]), np.zeros((2, 2)))
    values = np.array([[3.0, np.nan, 1.0, 2.0], [np.nan, 9.0, 1.0, np.nan]])
    both = closed_low(values, np.array([0.1, 0.2]), two, 0.01)
    for i, kept in enumerate(([3.0, 1.0, 2.0], [9.0, 1.0])):
        alone = group(np.array([[0.0, 0.1], [0.2, 0.4]][i]), np.zeros(2))
        assert both[i] == closed_low(np.array(kept), np.asarray([0.1, 0.2][i]), alone, 0.01)
