"""The choice of ways ends, whatever a server offers; a broadcast is left, whatever it brings."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_client.ways import (
    MAX_PATCH_SECONDS,
    MAX_PATCH_WAITS,
    SLACK_SECONDS,
    Listening,
    Next,
    Ways,
    bearable,
)
from schemas.transfer import BroadcastOffer, HttpsOffer, PatchOffer, Reply

SHA = "a" * 64

patches = st.builds(
    PatchOffer, base=st.just(SHA), sha256=st.just(SHA), size=st.integers(1, 2000),
    leaves_sha256=st.just(SHA),
)  # fmt: skip
casts = st.builds(
    BroadcastOffer, batch=st.just(1), starts_in=st.floats(0, 60), rate=st.floats(1, 1e9),
    quiet=st.floats(0.1, 60),
)  # fmt: skip
replies = st.builds(
    Reply, kind=st.just("leaves"), sha256=st.just(SHA), patch=st.none() | patches,
    broadcast=st.none() | casts, retry_in=st.none() | st.floats(0.001, 60),
    https=st.none() | st.builds(HttpsOffer, path=st.just("/v1/x"), expires_in=st.just(9.0)),
)  # fmt: skip


@given(answers=st.lists(replies, min_size=1, max_size=40), missing=st.integers(1, 3000))
def test_the_choice_ends_with_the_network_and_takes_no_way_twice(answers, missing):
    ways, gone, waits, waited = Ways(), [], 0, 0.0
    answers = iter(answers * 20)
    ways = ways.offered(next(answers))
    while (way := ways.choose(missing)) is not Next.NETWORK:
        if way is Next.WAIT:
            ways, seconds = ways.wait()
            waits, waited = waits + 1, waited + seconds
            ways = ways.offered(next(answers))
        else:
            assert way is not Next.PATCH or ways.patch.size < missing
            gone.append(way)
            ways = ways.gone(way)
    assert len(gone) == len(set(gone))
    assert waits <= MAX_PATCH_WAITS
    assert waited <= MAX_PATCH_SECONDS + 0.2


@given(reply=replies)
def test_a_patch_in_the_making_is_not_waited_for_while_a_broadcast_is_offered(reply):
    way = Ways().offered(reply).choose(1000)
    assert way is not Next.WAIT or (reply.retry_in and reply.broadcast is None)
    if reply.patch is not None and reply.patch.size < 1000:
        assert way is Next.PATCH


@given(offer=casts, size=st.integers(1, 2**29), gaps=st.lists(st.floats(0, 100), max_size=60))
def test_a_broadcast_is_left_when_it_falls_silent_and_in_any_case(offer, size, gaps):
    now = begun = 50.0
    listening = Listening.begin(offer, size, now)
    silence_from = listening.starts_at
    for gap in gaps:
        now += gap
        if listening.over(now):
            break
        assert now < max(silence_from, listening.starts_at) + offer.quiet
        listening.heard(now)
        silence_from = max(silence_from, now)
    due = listening.due()
    assert due <= silence_from + offer.quiet
    assert due <= begun + offer.starts_in + 2 * size / offer.rate + SLACK_SECONDS
    assert listening.over(due)


@given(offer=casts, bandwidth=st.none() | st.integers(1, 10**9))
def test_a_device_listens_to_nothing_faster_than_its_own_limit(offer, bandwidth):
    assert bearable(offer, bandwidth) == (bandwidth is None or offer.rate <= bandwidth)
