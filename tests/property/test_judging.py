"""What verdicts by telemetry must hold to, whatever devices report."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.domain.judging.figures import Cohorts, DeviceFigures, Span, Verdict
from orchestrator.domain.judging.spending import next_look, spent
from orchestrator.domain.judging.verdict import judge_telemetry, outcome
from schemas.gates import STANDARD, Gates, Metric, TelemetryGate

REQUIRED = Gates(telemetry=tuple(one.model_copy(update={"required": True}) for one in STANDARD))
MANY = REQUIRED.model_copy(update={"min_devices": 15})
ERRORS = Gates(telemetry=(TelemetryGate(metric=Metric.ERROR_RATE, max_worse=0.02),))
RANK = {Verdict.FAIL: 0, Verdict.INCONCLUSIVE: 1, Verdict.WAIT: 1, Verdict.PASS: 2}


@st.composite
def spans(draw, least=0):
    n = draw(st.integers(least, 400))
    errors = draw(st.integers(0, n))
    labelled = draw(st.integers(0, n))
    unsure = draw(st.integers(0, n))
    bucket = draw(st.integers(40, 120))
    kind = draw(st.integers(0, 4))
    return Span(
        n=n,
        errors=errors,
        labelled=labelled,
        correct=draw(st.integers(0, labelled)),
        confidence=(unsure, 0, 0, 0, 0, 0, 0, 0, 0, n - unsure),
        latency={bucket: n} if n else {},
        classes={kind: unsure, kind + 1: n - unsure},
        rss_mib=draw(st.integers(0, 500)),
    )


@st.composite
def cohorts(draw, least=0):
    def side(name, most):
        return tuple(
            DeviceFigures(
                f"{name}{number}",
                draw(st.sampled_from(["pi", "jetson"])),
                draw(st.none() | spans(least)),
                draw(st.none() | spans(least)),
                silent=draw(st.booleans()),
            )
            for number in range(draw(st.integers(0, most)))
        )

    return Cohorts(side("t", 14), side("c", 14))


def verdict(found, gates, look=1):
    return outcome(judge_telemetry(found, gates, look=look, last=True), last=True)


@given(cohorts(least=50), st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_the_order_of_devices_does_not_matter(found, random):
    treated, control = list(found.treated), list(found.control)
    random.shuffle(treated)
    random.shuffle(control)
    shuffled = Cohorts(tuple(treated), tuple(control))
    assert judge_telemetry(found, REQUIRED, look=1, last=False) == judge_telemetry(
        shuffled, REQUIRED, look=1, last=False
    )


@given(cohorts())
@settings(max_examples=50)
def test_evidence_is_finite_and_its_limits_are_around_its_value(found):
    for one in judge_telemetry(found, REQUIRED, look=2, last=False):
        numbers = [one.value, one.low, one.high, one.control]
        assert all(number is None or math.isfinite(number) for number in numbers)
        if one.value is not None and one.low is not None and one.high is not None:
            assert one.low <= one.value * (1 + 1e-9) + 1e-9
            assert one.value <= one.high * (1 + 1e-9) + 1e-9


@given(cohorts())
@settings(max_examples=50)
def test_too_few_devices_pass_no_required_gate_and_fail_none(found):
    evidence = judge_telemetry(found, MANY, look=1, last=True)
    assert all(one.ok is None for one in evidence)
    assert outcome(evidence, last=True) is Verdict.INCONCLUSIVE
    assert outcome(evidence, last=False) is Verdict.WAIT
    optional = MANY.model_copy(update={"telemetry": STANDARD})
    evidence = judge_telemetry(found, optional, look=1, last=False)
    assert outcome(evidence, last=False) is Verdict.PASS, "so few will never be enough"


@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), min_size=5, max_size=12),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), min_size=5, max_size=12),
    st.data(),
)
@settings(max_examples=150)
def test_more_errors_never_pass_what_failed(treated, control, data):
    """Whatever got worse where: from a failure there is no way to a pass."""

    def device(name, pre, post):
        return DeviceFigures(name, "pi", Span(n=200, errors=pre), Span(n=200, errors=post))

    others = tuple(device(f"c{i}", *pair) for i, pair in enumerate(control))
    before = tuple(device(f"t{i}", *pair) for i, pair in enumerate(treated))
    more = [data.draw(st.integers(post, 200)) for _, post in treated]
    after = tuple(
        device(f"t{i}", pre, worse)
        for i, ((pre, _), worse) in enumerate(zip(treated, more, strict=True))
    )
    first, second = (verdict(Cohorts(side, others), ERRORS) for side in (before, after))
    if first is Verdict.FAIL:
        assert second is not Verdict.PASS


@given(
    st.lists(st.tuples(st.integers(0, 150), st.integers(0, 150)), min_size=5, max_size=12),
    st.lists(st.tuples(st.integers(0, 150), st.integers(0, 150)), min_size=5, max_size=12),
    st.integers(1, 50),
)
@settings(max_examples=150)
def test_what_gets_worse_everywhere_alike_never_gets_a_better_verdict(treated, control, more):
    """The value grows, and so do its limits: wait may become fail, pass may become wait."""

    def device(name, pre, post):
        return DeviceFigures(name, "pi", Span(n=200, errors=pre), Span(n=200, errors=post))

    others = tuple(device(f"c{i}", *pair) for i, pair in enumerate(control))
    sides = [
        tuple(device(f"t{i}", pre, post + by) for i, (pre, post) in enumerate(treated))
        for by in (0, more)
    ]
    found = [judge_telemetry(Cohorts(s, others), ERRORS, look=1, last=True)[0] for s in sides]
    assert found[0].value is not None
    assert found[1].value > found[0].value
    assert found[1].high > found[0].high
    verdicts = [outcome((one,), last=True) for one in found]
    assert RANK[verdicts[1]] <= RANK[verdicts[0]]


@given(
    st.integers(5, 12),
    st.sampled_from([math.nan, math.inf, -math.inf]),
    st.sampled_from(["n", "errors", "labelled", "rss_mib", "energy_mj"]),
)
def test_what_is_no_number_is_not_counted_and_passes_nothing(devices, odd, name):
    span = Span(
        n=200, labelled=100, correct=100, rss_mib=10, energy_mj=5, energy_n=200, method="rapl"
    )
    broken = replace(span, **{name: odd})
    metric = {
        "n": Metric.ERROR_RATE,
        "errors": Metric.ERROR_RATE,
        "labelled": Metric.ACCURACY,
        "rss_mib": Metric.RSS,
        "energy_mj": Metric.ENERGY,
    }[name]
    worse = 1.5 if metric in {Metric.RSS, Metric.ENERGY} else 0.02
    gates = Gates(telemetry=(TelemetryGate(metric=metric, max_worse=worse),))
    treated = tuple(DeviceFigures(f"t{i}", "pi", span, broken) for i in range(devices))
    control = tuple(DeviceFigures(f"c{i}", "pi", span, span) for i in range(devices))
    assert verdict(Cohorts(treated, control), gates) is Verdict.INCONCLUSIVE


@given(st.integers(6, 30), st.sampled_from([1, 200, 2**40, 2**61]), st.integers(0, 2**61))
def test_one_device_has_one_vote_whatever_it_claims(devices, n, errors):
    honest = Span(n=200, errors=2)
    liar = DeviceFigures("t0", "pi", honest, Span(n=max(n, 50), errors=min(errors, max(n, 50))))
    treated = (liar, *(DeviceFigures(f"t{i}", "pi", honest, honest) for i in range(1, devices)))
    control = tuple(DeviceFigures(f"c{i}", "pi", honest, honest) for i in range(devices))
    found = judge_telemetry(Cohorts(treated, control), ERRORS, look=1, last=True)[0]
    assert found.value is not None
    assert abs(found.value) <= 1 / devices
    assert found.ok is not False, "one device alone shows no harm of a version"


@given(st.floats(1e-6, 0.2), st.integers(1, 400))
def test_looks_spend_alpha_and_no_more(alpha, looks):
    each = [spent(alpha, look, last=look == looks) for look in range(1, looks + 1)]
    assert sum(each) == pytest.approx(alpha)
    assert all(one > 0 for one in each)


@given(st.floats(0, 86400), st.floats(1, 86400))
def test_looks_come_ever_later_and_never_stop(soak, wait):
    gates = Gates(soak_seconds=soak, evidence_seconds=wait)
    at = start = datetime(2026, 1, 1, tzinfo=UTC)
    gaps = []
    for look in range(40):
        then = next_look(look, at, gates)
        gaps.append(then - at)
        at = then
    assert gaps[0] == timedelta(0)
    assert all(gap > timedelta(0) for gap in gaps[1:])
    assert gaps[1:] == sorted(gaps[1:])
    assert next_look(0, start, gates) == start
