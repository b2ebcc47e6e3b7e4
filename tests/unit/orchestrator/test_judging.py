"""Comparisons over devices: the textbook's figures, and examples that tell them apart."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

from orchestrator.domain.judging.compare import contrast, exact_high, exact_low, fisher, group
from orchestrator.domain.judging.figures import Cohorts, DeviceFigures, Span, Verdict
from orchestrator.domain.judging.metrics import changes, levels
from orchestrator.domain.judging.verdict import judge_telemetry, outcome
from schemas.gates import STANDARD, Gates, Metric, TelemetryGate
from schemas.telemetry import bucket_of

RNG = np.random.default_rng(3)
REQUIRED = Gates(telemetry=tuple(one.model_copy(update={"required": True}) for one in STANDARD))


def test_limits_are_those_of_welch():
    one, other = RNG.normal(1, 2, 9), RNG.normal(0, 0.5, 23)
    groups = (group(one, one * 0), group(other, other * 0))
    ours = contrast(groups, (1.0, -1.0), 0.01, 0.05)
    found = stats.ttest_ind(one, other, equal_var=False)
    assert float(ours.low) == pytest.approx(found.confidence_interval(0.98).low)
    assert float(ours.high) == pytest.approx(found.confidence_interval(0.90).high)


def test_limits_without_a_control_are_those_of_one_sample():
    one = RNG.normal(1, 2, 9)
    ours = contrast((group(one, one * 0),), (1.0,), 0.01, 0.01)
    found = stats.ttest_1samp(one, 0).confidence_interval(0.98)
    assert (float(ours.low), float(ours.high)) == pytest.approx((found.low, found.high))


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (1, 30), (7, 9), (9, 9)])
def test_limits_of_a_share_are_exact(hits, n):
    found = stats.binomtest(hits, n).proportion_ci(0.98, method="exact")
    assert float(exact_low(hits, n, 0.01)) == pytest.approx(found.low)
    assert float(exact_high(hits, n, 0.01)) == pytest.approx(found.high)


@pytest.mark.parametrize("table", [(0, 5, 0, 7), (3, 5, 0, 30), (2, 10, 9, 10), (4, 4, 1, 1)])
def test_fisher_is_exact(table):
    hits, n, others, m = table
    found = stats.fisher_exact([[hits, n - hits], [others, m - others]], alternative="greater")
    assert fisher(*table) == pytest.approx(found.pvalue)


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_devices_show_nothing(n):
    values = np.array([0.5] * n)
    groups = (group(values, values), group(np.array([0.0, 0.1]), np.zeros(2)))
    shown = contrast(groups, (1.0, -1.0), 0.01, 0.01)
    assert (float(shown.low), float(shown.high)) == (-math.inf, math.inf)


def spans(n, **counts):
    return Span(n=n, **counts)


def cohort(name, pre, post, *, devices=10, device_class="pi", silent=0):
    return tuple(
        DeviceFigures(f"{name}{i}", device_class, pre, post, silent=i < silent)
        for i in range(devices)
    )


def judged(metric, treated, control=(), *, worse, least=50, **more):
    gates = Gates(
        telemetry=(TelemetryGate(metric=metric, max_worse=worse, **more),), min_inferences=least
    )
    (found,) = judge_telemetry(Cohorts(treated, control), gates, look=1, last=True)
    return found


def test_zero_errors_of_few_prove_nothing_of_one_in_a_hundred():
    few, many = spans(50), spans(2000)
    assert (
        judged(Metric.ERROR_RATE, cohort("t", few, few), cohort("c", few, few), worse=0.005).ok
        is None
    )
    assert judged(
        Metric.ERROR_RATE, cohort("t", many, many), cohort("c", many, many), worse=0.005
    ).ok


def test_what_everybody_got_worse_by_is_not_the_versions_fault():
    calm, stormy = spans(1000, errors=10), spans(1000, errors=200)
    found = judged(
        Metric.ERROR_RATE, cohort("t", calm, stormy), cohort("c", calm, stormy), worse=0.02
    )
    assert found.ok
    assert found.control == pytest.approx(0.19)


def test_accuracy_counts_wrong_answers_where_labels_are():
    good, bad = (spans(500, labelled=200, correct=c) for c in (190, 150))
    found = judged(Metric.ACCURACY, cohort("t", good, bad), cohort("c", good, good), worse=0.05)
    assert found.value == pytest.approx(0.2)
    assert found.ok is False
    unlabelled = spans(500)
    none = judged(Metric.ACCURACY, cohort("t", unlabelled, unlabelled), worse=0.05)
    assert (none.ok, none.value, none.n) == (None, None, 0)
    assert "10 devices not counted" in none.note


def test_latency_is_a_factor_of_quantiles_and_not_of_means():
    def took(ms):
        return spans(200, latency={bucket_of(ms * 1000): 180, bucket_of(ms * 20_000): 20})

    treated, control = cohort("t", took(2), took(6)), cohort("c", took(2), took(2))
    for metric in (Metric.LATENCY_P50, Metric.LATENCY_P95, Metric.LATENCY_P99):
        found = judged(metric, treated, control, worse=1.5)
        assert found.value == pytest.approx(3, rel=0.1)
        assert found.control == pytest.approx(1)
        assert found.ok is False
    assert judged(Metric.LATENCY_P95, control, control, worse=1.5).ok


def test_p99_is_not_read_from_fifty_values():
    fifty, hundred = (spans(n, latency={100: n}) for n in (50, 100))
    assert len(changes(Metric.LATENCY_P95, cohort("t", fifty, fifty), 50)) == 10
    assert len(changes(Metric.LATENCY_P99, cohort("t", fifty, fifty), 50)) == 0
    assert len(changes(Metric.LATENCY_P99, cohort("t", hundred, hundred), 50)) == 10


def test_energy_is_compared_by_one_method_alone():
    rapl, cpu = (spans(100, energy_mj=500, energy_n=100, method=m) for m in ("rapl", "cpu_time"))
    assert len(changes(Metric.ENERGY, cohort("t", rapl, rapl), 50)) == 10
    assert len(changes(Metric.ENERGY, cohort("t", rapl, cpu), 50)) == 0


def test_a_mix_that_is_merely_counted_twice_has_not_shifted():
    mixes = [
        dict(enumerate(RNG.multinomial(60, [0.5, 0.2, 0.1, 0.1, 0.05, 0.05]).tolist()))
        for _ in range(2000)
    ]
    devices = tuple(
        DeviceFigures(f"t{i:04}", "pi", spans(60, classes=pre), spans(60, classes=post))
        for i, (pre, post) in enumerate(zip(mixes[::2], mixes[1::2], strict=True))
    )
    found = changes(Metric.CLASS_MIX, devices, 50)
    assert abs(float(found.values.mean())) < 0.01
    assert float(found.values.var()) < float(found.noise.mean()) * 1.5


def test_a_mix_that_turned_over_is_found():
    even, one = spans(300, classes={0: 150, 1: 150}), spans(300, classes={0: 290, 1: 10})
    found = judged(Metric.CLASS_MIX, cohort("t", even, one), cohort("c", even, even), worse=0.2)
    assert found.ok is False
    assert found.value == pytest.approx(0.47, abs=0.05)


def test_silence_is_held_against_the_control_and_else_against_what_is_tolerated():
    span = spans(100)
    quiet = cohort("t", span, None, devices=20, silent=8)
    outage = cohort("c", span, None, devices=60, silent=24)
    calm = cohort("c", span, span, devices=60)
    assert judged(Metric.SILENCE, quiet, calm, worse=0.2).ok is False
    assert judged(Metric.SILENCE, quiet, outage, worse=0.2).ok is None
    assert judged(Metric.SILENCE, quiet, worse=0.2).ok is None, "40 % of 20 may be luck"
    gone = cohort("t", span, None, devices=20, silent=15)
    assert judged(Metric.SILENCE, gone, worse=0.2).ok is False
    assert judged(Metric.SILENCE, cohort("t", span, span, devices=30), calm, worse=0.2).ok


def test_shadows_have_to_agree_as_much_as_was_asked():
    def agreed(n):
        return cohort("t", None, spans(100, compared=200, agreed=n))

    good, bad = (judged(Metric.SHADOW_AGREEMENT, agreed(n), worse=0.1) for n in (196, 120))
    assert (good.ok, bad.ok) == (True, False)
    assert good.value == pytest.approx(0.98)
    assert good.threshold == pytest.approx(0.9)
    assert good.low < good.value < good.high


def test_without_a_control_only_more_than_is_tolerated_is_harm():
    before, slower, broken = spans(500), spans(500, errors=6), spans(500, errors=60)
    found = judged(Metric.ERROR_RATE, cohort("t", before, slower), worse=0.02)
    assert found.ok is not False
    assert "own past" in found.note
    assert judged(Metric.ERROR_RATE, cohort("t", before, broken), worse=0.02).ok is False


def test_new_devices_are_held_against_new_ones():
    old, new, bad = spans(500, errors=5), spans(500, errors=50), spans(500, errors=150)
    control = (*cohort("c", None, new, devices=8), *cohort("o", old, old, devices=8))
    found = judged(Metric.ERROR_RATE, cohort("t", None, bad), control, worse=0.02)
    assert found.ok is False
    assert found.value == pytest.approx(0.2)
    assert found.controls == 8
    assert len(levels(Metric.CLASS_MIX, cohort("t", None, bad), 50)) == 0


def test_one_class_that_is_broken_fails_the_wave_and_is_named():
    good, bad = (spans(400, labelled=200, correct=c) for c in (180, 100))
    treated = (
        *cohort("a", good, bad, device_class="jetson"),
        *cohort("b", good, good, device_class="pi", devices=40),
    )
    control = (
        *cohort("c", good, good, device_class="jetson"),
        *cohort("d", good, good, device_class="pi", devices=40),
    )
    evidence = judge_telemetry(Cohorts(treated, control), Gates(), look=1, last=False)
    assert outcome(evidence, last=False) is Verdict.FAIL
    assert [(e.metric, e.device_class) for e in evidence if e.ok is False] == [
        ("accuracy", "jetson")
    ]


def test_one_device_that_raves_does_not_hide_what_the_others_show():
    good, bad = spans(400, errors=4), spans(400, errors=40)
    treated = (
        *cohort("t", good, bad, devices=9),
        *cohort("u", good, spans(400, errors=400), devices=1),
    )
    control = cohort("c", good, good)
    assert judged(Metric.ERROR_RATE, treated, control, worse=0.02).ok is False


def test_a_required_gate_without_any_device_is_open_and_another_one_is_left_out():
    required = judge_telemetry(Cohorts(()), REQUIRED, look=1, last=True)
    assert outcome(required, last=True) is Verdict.INCONCLUSIVE
    assert judge_telemetry(Cohorts(()), Gates(), look=1, last=True) == ()


@pytest.mark.parametrize(("metric", "worse"), [("latency_p95", 0.2), ("rss", 1), ("accuracy", 5)])
def test_a_tolerance_is_in_the_unit_of_its_metric(metric, worse):
    with pytest.raises(ValidationError, match="max_worse"):
        TelemetryGate(metric=metric, max_worse=worse)


def verdict_of(post, *, last, labelled=True):
    """Of ten devices under the gates that nobody set, none of which is required."""
    pre = spans(400, labelled=200 * labelled, correct=180 * labelled)
    evidence = judge_telemetry(
        Cohorts(cohort("t", pre, post), cohort("c", pre, pre)), Gates(), look=1, last=last
    )
    return outcome(evidence, last=last)


def test_what_is_not_required_is_waited_for_while_it_may_show_harm_yet():
    """At the first look few labels are there: to pass then would be to look at none."""
    early = spans(60, labelled=20, correct=12)
    assert verdict_of(early, last=False) is Verdict.WAIT
    assert verdict_of(early, last=True) is Verdict.PASS
    assert verdict_of(spans(400, labelled=200, correct=120), last=False) is Verdict.FAIL
    clear = spans(4000, labelled=2000, correct=1800)
    assert verdict_of(clear, last=False) is Verdict.PASS
    unlabelled = spans(4000)
    assert verdict_of(unlabelled, last=False, labelled=False) is Verdict.PASS


def test_what_can_never_be_compared_is_not_waited_for():
    """A first install without anybody to compare it with passes as soon as it may."""
    post = spans(60, labelled=60, correct=40, latency={100: 60}, classes={0: 60}, rss_mib=9)

    def of(treated, control=()):
        evidence = judge_telemetry(Cohorts(treated, control), Gates(), look=1, last=False)
        return outcome(evidence, last=False)

    fresh, idle = cohort("t", None, post), cohort("t", spans(3), post)
    assert of(fresh) is Verdict.PASS
    assert of(fresh, cohort("c", post, post)) is Verdict.PASS, "those have a past, so are unlike"
    assert of(fresh, cohort("c", None, post, devices=4)) is Verdict.PASS, "too few of them"
    assert of(idle) is Verdict.PASS, "a past does not grow"
    assert of(fresh, cohort("c", None, spans(3))) is Verdict.WAIT
    assert of(cohort("t", post, spans(3, labelled=3, correct=1))) is Verdict.WAIT


def test_a_p99_is_waited_for_until_there_are_enough_values():
    gate = TelemetryGate(metric=Metric.LATENCY_P99, max_worse=1.5, required=False)
    before, fifty = (spans(n, latency={100: n}) for n in (500, 60))
    evidence = judge_telemetry(
        Cohorts(cohort("t", before, fifty)), Gates(telemetry=(gate,)), look=1, last=False
    )
    assert outcome(evidence, last=False) is Verdict.WAIT
