from __future__ import annotations

import numpy as np
import pytest

from schemas.dataset import MAX_CLASSES_SHOWN
from workers.inspection.baseline import (
    baseline_of,
    bin_counts,
    channel_axis,
    edges_of,
    input_statistics,
    most_frequent,
)

NAN, INF = float("nan"), float("inf")


def test_a_value_on_an_edge_belongs_to_the_bin_above_but_the_last_closes() -> None:
    values = np.array([0.0, 1.0, 1.5, 2.0, 3.0, -0.1, 3.1, NAN, INF, -INF])
    found = bin_counts(values, (0.0, 1.0, 2.0, 3.0))
    assert found.counts == (1, 2, 2)
    assert (found.under, found.over, found.nan) == (2, 2, 1)


def test_no_values_give_empty_bins() -> None:
    found = bin_counts(np.array([]), (0.0, 1.0))
    assert (found.counts, found.under, found.over, found.nan) == ((0,), 0, 0, 0)


def test_quantile_bins_hold_about_equal_counts() -> None:
    values = np.random.default_rng(0).lognormal(size=5000)
    edges = edges_of(values)
    counts = bin_counts(values, edges).counts
    assert len(counts) == 20
    assert min(counts) >= 249
    assert max(counts) <= 251


def test_few_different_values_get_a_bin_each_with_room_around_them() -> None:
    values = np.array([1.0, 2.0, 4.0, 2.0, 1.0, 1.0])
    edges = edges_of(values)
    assert edges == (0.0, 1.5, 3.0, 5.0)
    assert bin_counts(values * (1 + 1e-12), edges).counts == (3, 2, 1)


@pytest.mark.parametrize("constant", [0.0, 3.5, -1e-12, 1e300, -1e300])
def test_a_constant_has_one_bin_and_anything_else_is_outside(constant: float) -> None:
    edges = edges_of(np.full(9, constant))
    assert len(edges) == 2
    assert edges[0] < constant < edges[1]
    other = np.array([constant * 1.01 + 1, constant * 1.01 - 1])
    assert bin_counts(other, edges).counts == (0,)


def test_mostly_one_value_leaves_fewer_but_ascending_edges() -> None:
    values = np.concatenate([np.zeros(900), np.arange(1, 101)])
    edges = edges_of(values)
    assert list(edges) == sorted(set(edges))
    assert sum(bin_counts(values, edges).counts) == 1000


def test_values_that_are_not_finite_make_no_edges() -> None:
    assert edges_of(np.array([NAN, INF, -INF])) == ()
    assert edges_of(np.array([NAN, 2.0, INF])) == edges_of(np.array([2.0]))


@pytest.mark.parametrize(
    ("shape", "layout", "axis"),
    [
        ((4,), None, 0),
        ((6, 200), None, 0),
        ((6, 200), "NCT", 0),
        ((200, 6), "NTC", 1),
        ((3, 8, 8), "NCHW", 0),
        ((8, 8, 3), "NHWC", 2),
        ((3, 8, 8), None, None),
        ((3, 8, 8), "NC", None),
        ((), None, None),
    ],
)
def test_the_layout_says_where_the_channels_are(shape, layout, axis) -> None:
    assert channel_axis(shape, layout) == axis


def test_statistics_of_images() -> None:
    x = np.zeros((2, 1, 2, 2), dtype=np.uint8)
    x[1] = [[[0, 4], [8, 4]]]
    found = input_statistics(x, "NCHW")
    assert set(found) == {"mean", "std", "min", "max", "zeros"}
    assert found["mean"].tolist() == [0.0, 4.0]
    assert found["std"][1] == pytest.approx(np.sqrt(8))
    assert found["max"].tolist() == [0.0, 8.0]
    assert found["zeros"].tolist() == [1.0, 0.25]


def test_statistics_of_each_channel_of_a_series_either_way_round() -> None:
    x = np.random.default_rng(1).normal(size=(5, 3, 40)).astype(np.float32)
    first = input_statistics(x, "NCT")
    last = input_statistics(np.ascontiguousarray(x.transpose(0, 2, 1)), "NTC")
    assert {"mean[0]", "mean[1]", "mean[2]", "std[0]", "std[1]", "std[2]"} < set(first)
    for name, values in first.items():
        assert values.dtype == np.float64
        assert np.allclose(values, last[name])
    assert np.allclose(first["mean[1]"], x[:, 1].mean(1))


def test_features_of_a_table_have_means_and_no_spread() -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    found = input_statistics(x)
    assert [name for name in found if "[" in name] == [f"mean[{i}]" for i in range(4)]
    assert found["mean[2]"].tolist() == [2.0, 6.0, 10.0]
    assert not [name for name in input_statistics(np.zeros((3, 17))) if "[" in name]


def test_a_statistic_that_is_never_a_number_has_no_bins() -> None:
    found = baseline_of({"mean": np.array([NAN, NAN]), "max": np.array([1.0, 2.0])}, {0: 2})
    assert [feature.name for feature in found.features] == ["max"]
    assert found.n == 2


def test_only_the_most_frequent_of_very_many_classes_are_kept() -> None:
    counts = {label: 1 + label % 7 for label in range(3 * MAX_CLASSES_SHOWN)}
    kept = most_frequent(counts)
    assert len(kept) == MAX_CLASSES_SHOWN
    assert min(kept.values()) >= max(counts[label] for label in counts if label not in kept)
    assert list(kept) == sorted(kept)
