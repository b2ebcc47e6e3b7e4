"""Sides of an experiment: everybody once at most, classes in the shares asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.cohort import Candidate
from orchestrator.domain.experiment import split

classes = st.sampled_from(["pi", "jetson", "gateway"])
fleets = st.dictionaries(st.uuids().map(str), classes, max_size=60).map(
    lambda found: [Candidate(device, kind) for device, kind in found.items()]
)


@given(fleets, st.floats(1, 100), st.floats(0.01, 0.99), st.text(max_size=5), st.randoms())
def test_sides_are_disjoint_in_every_class_of_their_size_and_whatever_the_order(
    fleet, percent, share, seed, random
):
    arms = split(fleet, seed, percent=percent, share=share)
    assert not arms.a & arms.b
    for kind in ("pi", "jetson", "gateway"):
        its = {c.device for c in fleet if c.device_class == kind}
        part = its & (arms.a | arms.b)
        assert len(its) * percent / 100 - 1e-6 <= len(part) < len(its) * percent / 100 + 1
        assert abs(len(its & arms.b) - share * len(part)) < 1
    shuffled = list(fleet)
    random.shuffle(shuffled)
    assert split(shuffled, seed, percent=percent, share=share) == arms


def test_what_is_left_over_goes_to_either_side_as_often_as_it_should():
    fleet = [Candidate(str(i), "pi") for i in range(3)]
    sizes = [len(split(fleet, str(seed), percent=100, share=0.25).b) for seed in range(2000)]
    assert set(sizes) == {0, 1}
    assert sum(sizes) / len(sizes) == pytest.approx(0.75, abs=0.04)


def test_another_experiment_draws_anew():
    fleet = [Candidate(str(i), "pi") for i in range(400)]
    one, other = (split(fleet, seed, percent=100, share=0.5).b for seed in ("x", "y"))
    assert len(one & other) == pytest.approx(100, abs=35)
