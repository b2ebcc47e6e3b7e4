"""Wave plans: everyone once, classes in proportion, the same for the same seed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from orchestrator.domain.cohort import Candidate, order, plan_waves
from schemas.rollout import WaveSpec

classes = st.sampled_from(["pi", "jetson", "gateway"])
fleets = st.dictionaries(st.uuids().map(str), classes, max_size=60).map(
    lambda found: [Candidate(device, kind) for device, kind in found.items()]
)
BY_TAG, REST = WaveSpec(where="tag = first"), WaveSpec(percent=100)
specs = st.lists(
    st.one_of(
        st.builds(WaveSpec, count=st.integers(1, 20)),
        st.builds(WaveSpec, percent=st.floats(0.1, 100)),
    ),
    min_size=1,
    max_size=6,
)


@given(fleets, specs, st.text(max_size=5))
def test_nobody_is_in_two_waves_and_no_wave_is_empty(fleet, waves, seed):
    planned = plan_waves(fleet, waves, seed)
    members = [device for wave in planned for device in wave]
    assert len(members) == len(set(members))
    assert set(members) <= {c.device for c in fleet}
    assert all(planned)


@given(fleets, specs)
def test_a_last_wave_of_all_takes_everyone(fleet, waves):
    planned = plan_waves(fleet, [*waves, WaveSpec(percent=100)], "seed")
    assert sum(map(len, planned)) == len(fleet)


@given(fleets, specs, st.randoms())
def test_the_plan_does_not_depend_on_the_order_of_the_fleet(fleet, waves, random):
    shuffled = list(fleet)
    random.shuffle(shuffled)
    assert plan_waves(fleet, waves, "seed") == plan_waves(shuffled, waves, "seed")


@given(st.integers(1, 30), st.integers(1, 30), st.data())
def test_every_prefix_holds_each_class_in_its_share(pis, jetsons, data):
    fleet = [Candidate(f"pi{i}", "pi") for i in range(pis)]
    fleet += [Candidate(f"jetson{i}", "jetson") for i in range(jetsons)]
    cut = data.draw(st.integers(0, len(fleet)))
    prefix = order(fleet, "seed")[:cut]
    share = sum(device.startswith("pi") for device in prefix)
    assert abs(share - cut * pis / (pis + jetsons)) <= 1


@given(fleets, st.uuids().map(str), classes)
def test_a_new_device_does_not_reorder_the_others_of_its_class(fleet, newcomer, kind):
    before = [d for d in order(fleet, "s") if Candidate(d, kind) in fleet]
    after = [d for d in order([*fleet, Candidate(newcomer, kind)], "s") if d in before]
    assert after == before


def test_the_demo_plan_is_one_canary_and_then_the_rest():
    fleet = [Candidate(f"d{i}", "default") for i in range(5)]
    waves = plan_waves(fleet, [WaveSpec(count=1), WaveSpec(percent=100)], "seed")
    assert [len(wave) for wave in waves] == [1, 4]


@st.composite
def picky(draw):
    """A fleet, waves of which some go by a selector, and for each of those whom it matches."""
    fleet = draw(fleets)
    everyone = [one.device for one in fleet]
    waves = draw(
        st.lists(
            st.one_of(specs.map(lambda some: some[0]), st.just(BY_TAG)), min_size=1, max_size=6
        )
    )
    some = st.sets(st.sampled_from(everyone)) if everyone else st.just(set())
    return fleet, waves, [draw(some) if wave.where else None for wave in waves]


@given(picky(), st.text(max_size=5))
def test_waves_by_selector_partition_what_they_take(plan, seed):
    fleet, waves, matching = plan
    planned = plan_waves(fleet, [*waves, REST], seed, [*matching, None])
    members = [device for wave in planned for device in wave]
    assert sorted(members) == sorted(c.device for c in fleet)


@given(picky())
def test_a_wave_by_selector_takes_all_it_matches_that_nobody_has(plan):
    fleet, waves, matching = plan
    before = set()
    for upto, wave in enumerate(waves):
        planned = plan_waves(fleet, waves[: upto + 1], "s", matching[: upto + 1])
        members = {device for one in planned for device in one}
        if wave.where:
            assert members - before == matching[upto] - before
        before = members


@given(picky(), st.uuids().map(str), classes)
def test_a_new_device_takes_nobody_out_of_a_wave_by_selector(plan, newcomer, kind):
    fleet, waves, matching = plan
    first = [BY_TAG, *waves]
    meant = [{device.device for device in fleet[::2]}, *matching]
    before = plan_waves(fleet, first, "s", meant)
    grown = plan_waves([*fleet, Candidate(newcomer, kind)], first, "s", meant)
    if meant[0]:
        assert set(before[0]) == set(grown[0])


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 60), st.data())
def test_counts_and_percents_after_a_selector_hold_each_class_in_its_share(
    pis, jetsons, count, data
):
    """The share is of those that the selector left."""
    fleet = [Candidate(f"pi{i}", "pi") for i in range(pis)]
    fleet += [Candidate(f"jetson{i}", "jetson") for i in range(jetsons)]
    taken = data.draw(st.sets(st.sampled_from([one.device for one in fleet])))
    planned = plan_waves(fleet, [BY_TAG, WaveSpec(count=count)], "s", [taken, None])
    left = [one for one in fleet if one.device not in taken]
    (wave,) = planned[-1:] if len(planned) > bool(taken) else [()]
    assert len(wave) == min(count, len(left))
    share = sum(device.startswith("pi") for device in wave)
    of_class = sum(one.device_class == "pi" for one in left)
    assert not left or abs(share - len(wave) * of_class / len(left)) <= 1


@pytest.mark.parametrize("given_size", [{}, {"count": 1, "percent": 5}])
def test_a_wave_has_one_size(given_size):
    with pytest.raises(ValidationError, match="either a count or a percent"):
        WaveSpec.model_validate(given_size)
