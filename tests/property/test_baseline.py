from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from workers.inspection.baseline import BINS, baseline_of, bin_counts, edges_of

ANY = st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=60)
SPREAD = st.one_of(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=80),
    st.lists(st.integers(0, 30).map(float), min_size=1, max_size=80),
)


def _array(values: list[float]) -> np.ndarray:
    return np.array(values, dtype=np.float64)


@given(SPREAD)
def test_edges_ascend_and_hold_every_value_they_were_made_of(values: list[float]) -> None:
    edges = edges_of(_array(values))
    assert 2 <= len(edges) <= BINS + 1
    assert all(a < b for a, b in pairwise(edges))
    assert all(np.isfinite(edges))
    found = bin_counts(_array(values), edges)
    assert sum(found.counts) == len(values)
    assert (found.under, found.over, found.nan) == (0, 0, 0)


@given(SPREAD, ANY)
def test_each_value_is_counted_once_where_its_bin_says(made_of, values) -> None:
    edges = edges_of(_array(made_of))
    found = bin_counts(_array(values), edges)
    assert sum(found.counts) + found.under + found.over + found.nan == len(values)
    last = len(edges) - 2
    expected = [
        sum(lo <= v < hi or (i == last and v == hi) for v in values)
        for i, (lo, hi) in enumerate(pairwise(edges))
    ]
    assert list(found.counts) == expected
    assert found.under == sum(v < edges[0] for v in values)
    assert found.over == sum(v > edges[-1] for v in values)


@given(SPREAD, ANY, ANY)
def test_counts_of_parts_add_up_to_those_of_the_whole(made_of, one, other) -> None:
    edges = edges_of(_array(made_of))
    parts = [bin_counts(_array(part), edges) for part in (one, other)]
    whole = bin_counts(_array(one + other), edges)
    added = tuple(a + b for a, b in zip(parts[0].counts, parts[1].counts, strict=True))
    assert whole.counts == added
    for field in ("under", "over", "nan"):
        assert getattr(whole, field) == sum(getattr(part, field) for part in parts)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=60))
def test_a_baseline_of_anything_is_valid_and_complete(values: list[float]) -> None:
    found = baseline_of({"mean": _array(values)}, {0: len(values)})
    assert len(found.features) == int(np.isfinite(values).any())
    for feature in found.features:
        total = sum(feature.counts) + feature.under + feature.over + feature.nan
        assert total == len(values)
