"""Sums of windows: in whatever order they come, and however often, they are the same."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain import rollup
from orchestrator.domain.rollup import COUNTS, MOST, Kept, Sums
from schemas.base import MAX_INTEGER
from schemas.telemetry import MAX_BUCKET
from schemas.window import Window, pack

COUNT = st.one_of(st.integers(0, 50), st.integers(0, MAX_INTEGER))
HISTOGRAM = st.dictionaries(st.integers(0, 300), COUNT, max_size=6).map(pack)
SHARES = st.lists(COUNT, max_size=10)


@st.composite
def kept(draw) -> Kept:
    n = draw(COUNT)
    window = Window(
        about=0,
        seq=draw(st.integers(0, 9)),
        start_ms=0,
        synced=draw(st.booleans()),
        length_ms=draw(st.integers(0, 10**6)),
        n=n,
        errors=draw(st.integers(0, n)),
        runs=draw(COUNT),
        latency=draw(HISTOGRAM),
        confidence=draw(SHARES),
        entropy=draw(SHARES),
        classes=draw(HISTOGRAM),
        features=draw(st.lists(st.lists(COUNT, max_size=6), max_size=3)),
        energy_mj=draw(COUNT),
        method=draw(st.sampled_from(["", "rapl", "meter", "cpu_time"])),
        queue=draw(HISTOGRAM),
        rss_mib=draw(COUNT),
        celsius=draw(st.none() | st.integers(-100, 300)),
    )
    name = draw(st.sampled_from(["CPUExecutionProvider", "other"]))
    wanted = draw(st.sampled_from(["", "CUDAExecutionProvider"]))
    return Kept(window, name, wanted, {name: draw(COUNT)}, draw(st.integers(0, 999)))


WINDOWS = st.lists(kept(), max_size=4)


def added(windows) -> Sums:
    sums = Sums()
    for window in windows:
        sums.add(window)
    return sums


def stored(sums: Sums) -> Sums:
    """As the database gives it back."""
    return rollup.decode(rollup.encode(sums))


@given(WINDOWS, WINDOWS)
def test_the_order_is_all_the_same(one, other):
    left, right = added(one), added(other)
    left.merge(added(other))
    right.merge(added(one))
    assert stored(left) == stored(right) == stored(added([*one, *other]))


@given(WINDOWS, WINDOWS, WINDOWS)
def test_so_is_how_they_are_put_together(a, b, c):
    """Also through the database in between, where sums stop at the largest number it has."""
    first = stored(added(a))
    first.merge(stored(added(b)))
    first = stored(first)
    first.merge(stored(added(c)))
    rest = stored(added(b))
    rest.merge(stored(added(c)))
    second = stored(added(a))
    second.merge(stored(rest))
    assert stored(first) == stored(second) == stored(added([*a, *b, *c]))


@given(WINDOWS)
def test_nothing_is_negative_and_nothing_overflows(windows):
    back = stored(added(windows))
    for name in COUNTS:
        assert 0 <= getattr(back, name) <= MOST
    for histogram in (back.latency, back.queue, back.classes, back.providers):
        assert all(0 <= count <= MOST for count in histogram.values())
    assert all(bucket <= MAX_BUCKET for bucket in back.latency)


@given(WINDOWS)
def test_merging_leaves_what_is_merged_as_it_was(windows):
    source = added(windows)
    before = rollup.encode(source)
    into = Sums()
    into.merge(source)
    into.merge(source)
    assert rollup.encode(source) == before


@given(kept())
def test_a_window_comes_back_as_it_was_stored(one):
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(one), type=Kept) == one


@given(st.lists(kept(), min_size=1, max_size=8), st.data())
def test_duplicates_and_late_ones_change_nothing(windows, data):
    """What the writer does: a key that was seen is left out, whenever it comes."""
    order = data.draw(st.lists(st.sampled_from(range(len(windows))), min_size=len(windows)))
    order += [n for n in range(len(windows)) if n not in order]
    seen: set[int] = set()
    sums = Sums()
    for number in order:
        if number not in seen:
            seen.add(number)
            sums.add(windows[number])
            sums = stored(sums)
    assert stored(sums) == stored(added(windows))
