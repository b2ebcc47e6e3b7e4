"""Histograms merge exactly and give quantiles within a bucket's width."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.telemetry import GAMMA, MAX_BUCKET, bucket_of, bucket_value, merge, quantile

values = st.floats(1, 2**31, allow_nan=False)


def histogram(items: list[float]) -> dict[int, int]:
    return merge({bucket_of(item): 1} for item in items)


@given(values)
def test_a_bucket_stands_for_its_values_within_half_its_width(value):
    assert bucket_value(bucket_of(value)) == pytest.approx(value, rel=math.sqrt(GAMMA) - 1 + 1e-6)


@given(st.lists(values, max_size=50), st.lists(values, max_size=50))
def test_merging_is_the_histogram_of_all(left, right):
    assert merge([histogram(left), histogram(right)]) == histogram(left + right)


@given(st.lists(values, min_size=1, max_size=200), st.floats(0.01, 1))
def test_a_quantile_is_that_of_the_values(items, q):
    exact = sorted(items)[max(1, math.ceil(q * len(items))) - 1]
    assert quantile(histogram(items), q) == pytest.approx(exact, rel=math.sqrt(GAMMA) - 1 + 1e-6)


@given(values, values)
def test_buckets_keep_the_order(a, b):
    if a <= b:
        assert bucket_of(a) <= bucket_of(b)


def test_the_edges_are_clamped():
    assert bucket_of(0) == 0
    assert bucket_of(math.inf) == MAX_BUCKET
    assert quantile({}, 0.5) is None


@pytest.mark.parametrize("bad", [-1.0, math.nan])
def test_what_is_no_duration_is_refused(bad):
    with pytest.raises(ValueError, match="at least 0"):
        bucket_of(bad)
