"""Clones are told from reboots, from messages that come late and from those that come again."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.domain.clone import KEEP, Seen, Sighting, cleared, observe

START = 1_700_000_000.0
LIFE = 600.0
"""How long a boot lasts."""


def births(boot: str, began: float, beats: list[float]) -> list[Sighting]:
    """What an agent that began then publishes, on time."""
    return [Sighting(boot, 1, beat, began + beat) for beat in beats]


def run(sightings):
    turns, seen = (), []
    for sighting in sightings:
        what, turns = observe(turns, sighting)
        seen.append(what)
    assert len(turns) <= KEEP
    return seen, turns


beats = st.lists(st.floats(0, LIFE - 1), min_size=1, max_size=5, unique=True).map(sorted)


@given(st.lists(beats, min_size=1, max_size=2 * KEEP))
def test_a_device_that_reboots_is_no_clone(lives):
    sent = [
        one
        for index, life in enumerate(lives)
        for one in births(f"boot-{index}", START + index * LIFE, life)
    ]
    seen, turns = run(sent)
    assert set(seen) == {Seen.ON_TIME}
    assert turns[-1].boot == f"boot-{len(lives) - 1}"


@settings(max_examples=300)
@given(
    st.lists(beats, min_size=2, max_size=6),
    st.lists(st.tuples(st.integers(0, 50), st.floats(0, 5000)), max_size=8),
)
def test_messages_that_come_late_or_again_make_no_clone(lives, again):
    """Any message may come once more, long after, whatever came in between."""
    sent = [
        one
        for index, life in enumerate(lives)
        for one in births(f"boot-{index}", START + index * LIFE, life)
    ]
    heard = list(sent)
    for which, delay in again:
        one = sent[which % len(sent)]
        heard.append(Sighting(one.boot, one.session, one.uptime, one.at + delay))
    heard.sort(key=lambda one: one.at)
    seen, _ = run(heard)
    assert Seen.CLONE not in seen


@given(st.lists(beats, min_size=2, max_size=6), st.integers(0, 20), st.floats(1, 5000))
def test_a_message_held_back_until_after_the_next_boot_makes_no_clone(lives, which, delay):
    """Not a repeat: it comes late the first time already."""
    sent = [
        one
        for index, life in enumerate(lives)
        for one in births(f"boot-{index}", START + index * LIFE, [*life, LIFE])
    ]
    late = which % len(sent)
    heard = [
        Sighting(one.boot, one.session, one.uptime, one.at + (delay if n == late else 0))
        for n, one in enumerate(sent)
    ]
    seen, _ = run(sorted(heard, key=lambda one: one.at))
    first = sent[late].uptime == min(o.uptime for o in sent if o.boot == sent[late].boot)
    assert Seen.CLONE not in seen or first


@given(
    st.floats(0, 1e6),
    st.floats(0, 1e6),
    st.floats(1, 1000),
    st.integers(1, 4),
    st.sampled_from((0, 1)),
)
def test_two_agents_of_one_identity_are_found_at_the_third_turn(up_a, up_b, gap, sessions, jump):
    """A kicks B off and B kicks A off, as a broker does with one client id."""
    at, seen, turns = START, [], ()
    for turn in range(4):
        boot, uptime = ("a", up_a) if turn % 2 == 0 else ("b", up_b)
        sighting = Sighting(boot, 1 + turn // 2 * sessions * jump, uptime + at - START, at)
        what, turns = observe(turns, sighting)
        seen.append(what)
        at += gap
    assert seen == [Seen.ON_TIME, Seen.ON_TIME, Seen.CLONE, Seen.CLONE]
    assert len(turns) == 2


def test_a_b_b_is_a_reboot_and_a_b_a_is_none():
    a, b = Sighting("a", 1, 5, START), Sighting("b", 1, 5, START + 10)
    assert run([a, b, Sighting("b", 1, 15, START + 20)])[0][-1] is Seen.ON_TIME
    assert run([a, b, Sighting("a", 2, 25, START + 20)])[0][-1] is Seen.CLONE


def test_once_somebody_looked_only_a_new_sign_counts():
    a, b = Sighting("a", 1, 5, START), Sighting("b", 1, 5, START + 10)
    _, turns = run([a, b, Sighting("a", 2, 25, START + 20)])
    turns = cleared(turns)
    what, turns = observe(turns, Sighting("a", 2, 35, START + 30))
    assert what is Seen.ON_TIME
    what, turns = observe(turns, Sighting("b", 2, 35, START + 40))
    assert what is Seen.ON_TIME
    what, _ = observe(turns, Sighting("a", 3, 55, START + 50))
    assert what is Seen.CLONE
