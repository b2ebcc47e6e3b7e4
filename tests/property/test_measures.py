"""Laws of measured figures: percentiles, counters that begin anew, outcomes as bits."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from edge_client import bench as edge_bench
from edge_client import energy as edge_energy
from workers.optimization.measuring import energy as job_energy
from workers.optimization.measuring import timing as job_timing

NANOSECONDS = st.lists(st.integers(1, 10**12), min_size=1, max_size=300)


@given(NANOSECONDS)
def test_percentiles_are_in_order_and_of_the_runs(runs):
    p50, p95, p99 = job_timing.percentiles(runs)
    assert min(runs) / 1e6 <= p50 * (1 + 1e-12)
    assert p50 <= p95 <= p99 <= max(runs) / 1e6 * (1 + 1e-12)
    assert edge_bench.percentiles(runs) == (p50, p95, p99)
    assert math.isclose(job_timing.median_ms(runs), p50)


@given(NANOSECONDS, st.integers(1, 1000))
def test_percentiles_scale_with_the_unit_and_not_with_the_order(runs, factor):
    once = job_timing.percentiles(runs)
    scaled = job_timing.percentiles([factor * one for one in reversed(runs)])
    assert all(math.isclose(a * factor, b, rel_tol=1e-9) for a, b in zip(once, scaled, strict=True))


@given(st.integers(0, 2**60), st.integers(0, 2**40), st.integers(2**40 + 1, 2**50))
def test_a_counter_that_begins_anew_once_loses_nothing(start, used, limit):
    before, after = start % limit, (start + used) % limit
    assert job_energy.spent(before, after, limit) == used
    assert edge_energy.spent(before, after, limit) == used


@given(st.floats(1e-9, 1e4))
def test_a_block_is_short_and_never_empty(seconds_each):
    size = job_timing.block_size(seconds_each)
    assert 1 <= size <= job_timing.BLOCK
    assert size == 1 or size * seconds_each <= job_timing.BLOCK_SECONDS * (1 + 1e-9)
