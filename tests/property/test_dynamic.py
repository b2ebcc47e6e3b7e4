"""Joining: one wave that has not begun, nobody else moves, and no end of waves."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.dynamic import (
    MAX_WAVES,
    Standing,
    absent,
    late_place,
    place,
    takes_place,
)
from orchestrator.domain.snapshot import WaveFacts, open_wave
from schemas.rollout import RolloutSpec, WaveState

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
W = WaveState


@st.composite
def standings(draw):
    """Waves in the order in which the engine works: passed, then one at work, then pending."""
    passed, at_work, pending = draw(st.integers(0, 6)), draw(st.booleans()), draw(st.integers(0, 3))
    going = st.sampled_from([W.RUNNING, W.SOAKING, W.JUDGING, W.FAILED, W.INCONCLUSIVE])
    states = [W.PASSED] * passed + [draw(going)] * at_work + [W.PENDING] * pending
    planned = draw(st.integers(0, len(states)))
    waves = [Standing(i, state, joiners=i >= planned) for i, state in enumerate(states)]
    if draw(st.booleans()):
        state = draw(st.sampled_from(list(W)))
        waves.append(Standing(len(waves), state, stragglers=True))
    return waves


@given(standings())
def test_devices_join_a_wave_that_has_not_begun_or_a_new_one_at_the_end(waves):
    to = place(waves)
    found = next((w for w in waves if w.index == to.index), None)
    if to.new:
        assert found is None
        assert to.index == len(waves)
        assert not any(w.state is W.PENDING and not w.stragglers for w in waves)
    else:
        assert found.state is W.PENDING
        assert not found.stragglers
        assert not [w for w in waves if w.index > to.index and not w.stragglers]


@given(standings(), st.integers(1, 3 * MAX_WAVES))
def test_waves_of_joiners_are_bounded_and_those_put_together_have_passed(waves, times):
    room = max(len(waves), MAX_WAVES) + 2
    for _ in range(times):
        to = place(waves)
        if to.folds is not None:
            by_index = {w.index: w for w in waves}
            both = by_index[to.index], by_index[to.folds]
            assert all(w.joiners and w.state is W.PASSED for w in both)
            waves = [w for w in waves if w.index != to.index]
        if to.new:
            waves = [*waves, Standing(to.index, W.PASSED, joiners=True)]
        else:
            waves = [replace(w, state=W.PASSED) if w.index == to.index else w for w in waves]
        assert len({w.index for w in waves}) == len(waves) <= room


@given(standings())
def test_the_open_wave_comes_after_all_before_it_and_stragglers_last(waves):
    facts = tuple(WaveFacts(w.index, w.state, NOW, stragglers=w.stragglers) for w in waves)
    found = open_wave(facts)
    if found is None:
        assert all(w.state is W.PASSED for w in waves)
        return
    others = [w for w in facts if not w.stragglers]
    if found.stragglers:
        assert all(w.state is W.PASSED for w in others)
        assert absent(waves) == found.index
    else:
        assert all(w.state is W.PASSED for w in others if w.index < found.index)


TEXTS = st.sampled_from([None, "tag = a", "tag=a", "(tag = a)", "tag = b"])


@st.composite
def specs(draw):
    return RolloutSpec(
        model=draw(st.sampled_from(["digits", "letters"])),
        version=draw(st.integers(1, 3)),
        device_class=draw(st.sampled_from([None, "cam"])),
        tags=tuple(draw(st.permutations(["x", "y"]))[: draw(st.integers(0, 2))]),
        where=draw(TEXTS),
        exclude=draw(TEXTS),
        fleet=draw(st.sampled_from([None, "labs"])),
        dynamic=draw(st.booleans()),
    )


@given(specs(), specs())
def test_taking_a_place_asks_for_the_same_model_and_target(newer, older):
    both = takes_place(newer, older)
    assert both is takes_place(older, newer)
    assert takes_place(newer, newer) is newer.dynamic
    if both:
        assert newer.dynamic
        assert (newer.model, newer.fleet, set(newer.tags)) == (
            older.model,
            older.fleet,
            set(older.tags),
        )


@given(st.lists(st.booleans(), min_size=1, max_size=3 * MAX_WAVES))
def test_waves_of_stragglers_are_bounded_with_those_of_joiners(late):
    """Each group of joiners that is not all there leaves some behind."""
    waves = [Standing(0, W.PASSED)]
    for is_late in late:
        to = late_place(waves) if is_late else place(waves)
        if to.folds is not None:
            both = [w for w in waves if w.index in {to.index, to.folds}]
            assert all(w.stragglers is is_late and w.state is W.PASSED for w in both)
            assert len(both) == 2
            waves = [w for w in waves if w.index != to.index]
        assert to.index not in {w.index for w in waves}
        waves.append(Standing(to.index, W.PASSED, stragglers=is_late, joiners=not is_late))
        assert len(waves) <= MAX_WAVES + 2


@given(standings())
def test_stragglers_go_to_the_wave_of_theirs_that_is_not_over(waves):
    to = late_place(waves)
    assert to.new == (absent(waves) is None)
    assert to.new or to.index == absent(waves)
