from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.jobfile import Schedule
from workers.training.schedule import factor
from workers.training.steps import eta_seconds

schedules = st.builds(
    Schedule,
    kind=st.sampled_from(["constant", "linear", "cosine"]),
    warmup_epochs=st.just(0.0) | st.floats(0, 10),
    floor=st.floats(0, 1),
)
lengths = st.tuples(st.integers(1, 40), st.integers(1, 20))


@given(schedules, lengths)
def test_it_rises_over_the_warm_up_then_never_again_and_stays_above_the_floor(
    found, length
) -> None:
    per_epoch, epochs = length
    values = [factor(s, per_epoch, epochs, found) for s in range(per_epoch * epochs)]
    warm = max(0, math.ceil(found.warmup_epochs * per_epoch) - 1)
    assert all(0 < v <= 1 for v in values[:warm])
    assert all(a < b for a, b in itertools.pairwise(values[:warm]))
    after = values[warm:]
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(after))
    assert all(found.floor - 1e-12 <= v <= 1 for v in after)
    if found.kind == "constant":
        assert all(v == 1 for v in after)


@given(schedules, lengths)
def test_the_floor_is_reached_at_the_end_and_held(found, length) -> None:
    per_epoch, epochs = length
    end = per_epoch * epochs
    if found.kind != "constant" and found.warmup_epochs < epochs:
        assert factor(end, per_epoch, epochs, found) == pytest.approx(found.floor, abs=1e-9)
        assert factor(end + 100, per_epoch, epochs, found) == pytest.approx(found.floor, abs=1e-9)


@given(schedules, st.integers(1, 20), st.integers(1, 10), st.integers(2, 5))
def test_it_depends_on_the_share_of_the_way_and_not_on_the_number_of_steps(
    found, per_epoch, epochs, times
) -> None:
    # With another number of workers an epoch has another number of steps.
    for step in range(per_epoch * epochs):
        coarse = factor(step, per_epoch, epochs, found)
        fine = factor(step * times, per_epoch * times, epochs, found)
        in_warm_up = step < found.warmup_epochs * per_epoch
        assert in_warm_up or math.isclose(coarse, fine, abs_tol=1e-9)


def test_known_points_of_the_cosine() -> None:
    cosine = Schedule(kind="cosine", warmup_epochs=1, floor=0.2)
    assert factor(0, 10, 5, cosine) == pytest.approx(0.1)
    assert factor(9, 10, 5, cosine) == 1
    assert factor(10, 10, 5, cosine) == 1
    assert factor(30, 10, 5, cosine) == pytest.approx(0.6)


@given(
    st.integers(0, 10**6),
    st.floats(0.1, 1e6),
    st.integers(0, 1000),
    st.floats(0, 1e5),
    st.floats(-5, 1e6),
)
def test_an_eta_is_at_least_the_epochs_rest_and_bounded_by_the_budget(
    left, rate, epochs_left, epoch_seconds, budget
) -> None:
    free = eta_seconds(left=left, rate=rate, epochs_left=epochs_left, epoch_seconds=epoch_seconds)
    bound = eta_seconds(
        left=left, rate=rate, epochs_left=epochs_left, epoch_seconds=epoch_seconds, budget=budget
    )
    assert left / rate <= bound <= free
    assert free == pytest.approx(left / rate + epochs_left * epoch_seconds)
    assert bound <= max(budget, 0) + left / rate
