"""Downsampled curves: shorter, and with the same ends and extremes."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator.domain.curves import KEYS, downsample
from schemas.job import MetricPoint

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FIGURES = st.dictionaries(
    st.sampled_from([*KEYS, "other"]),
    st.floats(-1e6, 1e6) | st.integers(0, 3).map(float),
)
EPOCHS = st.lists(st.integers(0, 300) | st.integers(0, 2**62), unique=True, max_size=150)


@st.composite
def curves(draw):
    epochs = sorted(draw(EPOCHS))
    return [MetricPoint(epoch=e, at=NOW, values=draw(FIGURES)) for e in epochs]


def values(points, key):
    return [point.values[key] for point in points if key in point.values]


@given(points=curves(), n=st.integers(1, 160))
def test_ends_extremes_and_order_stay(points, n):
    kept = downsample(points, n)
    places = [points.index(point) for point in kept]
    assert places == sorted(set(places)), "a part, in order, each once"
    assert kept[:1] == points[:1]
    assert kept[-1:] == points[-1:]
    for key in KEYS:
        was, now = values(points, key), values(kept, key)
        assert bool(was) == bool(now)
        if was:
            assert (min(was), max(was)) == (min(now), max(now))


@given(points=curves(), n=st.integers(1, 160))
def test_no_more_than_asked_for_unless_that_is_too_few_for_the_extremes(points, n):
    kept = downsample(points, n)
    assert len(kept) <= max(n, 2 + 2 * len(KEYS))
    if len(points) <= n:
        assert kept == points
    assert downsample(kept, max(n, len(kept))) == kept


@given(points=curves(), n=st.integers(4, 160), key=st.sampled_from(["loss", "other"]))
def test_only_the_named_figures_count(points, n, key):
    kept = downsample(points, n, [key])
    assert len(kept) <= n
    was, now = values(points, key), values(kept, key)
    if was:
        assert (min(was), max(was)) == (min(now), max(now))


@settings(max_examples=30)
@given(count=st.integers(20, 400), n=st.integers(16, 200))
@example(count=400, n=20)
def test_the_points_that_stay_are_spread_over_the_epochs(count, n):
    points = [MetricPoint(epoch=e, at=NOW, values={"loss": 1 / (1 + e)}) for e in range(count)]
    kept = downsample(points, n)
    assert len(kept) >= min(count, n) // 3
    widest = max(b.epoch - a.epoch for a, b in pairwise(kept))
    assert widest <= 4 * max(1, count // n) + 2


def test_curves_of_unknown_figures_keep_a_point_of_every_bucket():
    points = [MetricPoint(epoch=e, at=NOW, values={"bleu": e}) for e in range(1000)]
    kept = downsample(points, 100)
    assert 30 <= len(kept) <= 100
