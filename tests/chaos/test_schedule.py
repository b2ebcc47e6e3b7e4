"""A seed says all that goes wrong, and the same each time."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.schedule import PLATFORM, Kind, draw

SEEDS = st.integers(0, 2**32)


@given(seed=SEEDS, devices=st.integers(1, 8), seconds=st.floats(1, 60))
def test_it_is_a_function_of_the_seed(seed: int, devices: int, seconds: float) -> None:
    once = draw(seed, devices=devices, seconds=seconds)
    assert once == draw(seed, devices=devices, seconds=seconds)
    assert list(once.faults) == sorted(once.faults, key=lambda f: f.at)
    assert all(0 <= f.at < f.at + f.seconds <= seconds + 1e-6 for f in once.faults)
    for target in (PLATFORM, *range(devices)):
        mine = [fault for fault in once.faults if fault.target == target]
        assert all(a.at + a.seconds < b.at for a, b in itertools.pairwise(mine))


@given(seed=SEEDS)
def test_another_device_changes_nothing_for_the_others(seed: int) -> None:
    few, more = (draw(seed, devices=count, seconds=30).faults for count in (2, 3))
    assert set(few) == {fault for fault in more if fault.target < 2}


def test_every_kind_is_drawn() -> None:
    drawn = {fault.kind for seed in range(50) for fault in draw(seed, devices=3, seconds=30).faults}
    assert drawn == set(Kind)
