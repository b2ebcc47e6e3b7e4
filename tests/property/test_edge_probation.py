"""The verdict on a new model, over all figures."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from edge_client.probation import (
    LEAST_TIMES,
    MIN_TIMES,
    NOISE_SECONDS,
    Failed,
    Figures,
    GoldenRun,
    Passed,
    Times,
    Waiting,
    judge,
)
from schemas.errors import DeviceCause
from schemas.rollout import Probation

seconds = st.floats(1e-6, 100)
rules = st.builds(
    Probation,
    min_inferences=st.integers(1, 50),
    max_error_rate=st.floats(0, 1),
    max_latency_ratio=st.none() | st.floats(0.1, 100),
    max_memory_mb=st.none() | st.integers(1, 1000),
    max_seconds=st.floats(1, 1000),
)
times = st.builds(Times, n=st.integers(0, 60), median=seconds, before=st.none() | seconds)
golden = st.builds(
    GoldenRun, cause=st.sampled_from(DeviceCause), detail=st.none() | st.just("off by 1")
)
counts = st.integers(0, 100)
figures = st.builds(
    lambda n, errors, **more: Figures(n=n, errors=min(n, errors), **more),
    n=counts,
    errors=counts,
    elapsed=st.floats(0, 2000),
    times=st.none() | times,
    grown_mb=st.none() | st.floats(-1000, 2000),
    golden=st.none() | golden,
)


@given(rules, figures)
def test_after_its_time_every_model_is_judged(rules, seen):
    late = replace(seen, elapsed=rules.max_seconds, golden=seen.golden or GoldenRun())
    assert isinstance(judge(rules, late), Passed | Failed)


@given(rules, figures)
def test_none_is_passed_with_more_errors_or_memory_than_allowed(rules, seen):
    verdict = judge(rules, seen)
    if isinstance(verdict, Passed):
        assert seen.errors <= rules.max_error_rate * max(seen.n, rules.min_inferences)
        if rules.max_memory_mb is not None and seen.grown_mb is not None:
            assert seen.grown_mb <= rules.max_memory_mb


@given(rules, figures)
def test_none_is_passed_that_is_too_slow_by_enough_inferences(rules, seen):
    verdict, found = judge(rules, seen), seen.times
    if rules.max_latency_ratio is None or found is None or found.before is None:
        assert getattr(verdict, "cause", None) is not DeviceCause.TOO_SLOW or seen.golden
        return
    slow = found.median > max(rules.max_latency_ratio * found.before, found.before + NOISE_SECONDS)
    if isinstance(verdict, Passed) and found.n >= MIN_TIMES:
        assert not slow
    if verdict is Waiting.FIGURES:
        assert seen.elapsed < rules.max_seconds


@given(rules, figures, st.floats(1, 1e6))
def test_more_time_alone_never_fails_a_model_that_served_enough_and_well(rules, seen, more):
    well = replace(seen, n=max(seen.n, rules.min_inferences), errors=0, times=None, grown_mb=None)
    verdict = judge(rules, well)
    later = judge(rules, replace(well, elapsed=well.elapsed + more))
    assert verdict is Waiting.FIGURES or isinstance(verdict, Passed)
    assert later is Waiting.FIGURES or isinstance(later, Passed)


@given(rules, figures)
def test_the_golden_vectors_are_asked_for_only_when_too_few_asked_in_time(rules, seen):
    if judge(rules, seen) is Waiting.GOLDEN:
        assert seen.elapsed >= rules.max_seconds
        assert seen.n < rules.min_inferences
        assert seen.golden is None
        assert isinstance(judge(rules, replace(seen, golden=GoldenRun())), Passed)
        bad = judge(rules, replace(seen, golden=GoldenRun(detail="off by 1")))
        assert isinstance(bad, Failed)
        assert bad.cause is DeviceCause.GOLDEN_MISMATCH


def test_few_but_very_slow_inferences_are_enough_once_the_time_is_over():
    rules = Probation(min_inferences=1000, max_seconds=60)
    slow = Times(n=LEAST_TIMES, median=20.0, before=0.01)
    seen = Figures(n=LEAST_TIMES, elapsed=30, times=slow)
    assert judge(rules, seen) is Waiting.FIGURES
    verdict = judge(rules, replace(seen, elapsed=60))
    assert isinstance(verdict, Failed)
    assert verdict.cause is DeviceCause.TOO_SLOW
    assert verdict.detail == (
        "an inference takes 2e+04 ms, 2000.0 times the 10 ms of the model before"
        " (at most 5 times may be)"
    )


def test_a_first_model_has_no_past_and_a_fast_one_no_noise():
    rules = Probation(min_inferences=10)
    served = Figures(n=20, times=Times(n=20, median=9.0))
    assert isinstance(judge(rules, served), Passed)
    tiny = Times(n=20, median=0.0004, before=0.00001)
    assert isinstance(judge(rules, replace(served, times=tiny)), Passed)
    few = Times(n=MIN_TIMES - 1, median=0.0004, before=0.00001)
    assert judge(rules, replace(served, times=few)) is Waiting.FIGURES
