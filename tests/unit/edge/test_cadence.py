"""Windows are cut often while a version is new, and seldom in peace."""

from __future__ import annotations

import pytest

from edge_client.cadence import NEW_SECONDS, OFTEN_SECONDS, SELDOM_SECONDS, is_due, look_every


@pytest.mark.parametrize(
    ("now", "loaded_at", "updating", "due"),
    [
        (OFTEN_SECONDS, 0.0, False, True),
        (OFTEN_SECONDS - 0.1, 0.0, False, True),
        (OFTEN_SECONDS / 2, 0.0, False, False),
        (OFTEN_SECONDS, None, False, False),
        (OFTEN_SECONDS, None, True, True),
        (SELDOM_SECONDS, None, False, True),
    ],
)
def test_a_version_that_is_new_is_told_of_often(now, loaded_at, updating, due):
    assert is_due(now, cut_at=0.0, loaded_at=loaded_at, updating=updating) is due


def test_what_is_not_new_any_more_is_told_of_seldom():
    soon = NEW_SECONDS + OFTEN_SECONDS
    assert not is_due(soon, cut_at=NEW_SECONDS, loaded_at=0.0)
    assert is_due(NEW_SECONDS + SELDOM_SECONDS, cut_at=NEW_SECONDS, loaded_at=0.0)


def test_what_somebody_said_holds_in_peace_and_in_war():
    for loaded_at, updating in ((None, False), (0.0, True)):
        assert is_due(1.0, cut_at=0.0, loaded_at=loaded_at, updating=updating, every=1.0)
        assert not is_due(8.9, cut_at=0.0, loaded_at=loaded_at, updating=updating, every=10.0)
    assert look_every(0.3) == 0.3


def test_a_clock_that_went_back_does_not_stop_the_telling():
    assert is_due(0.0, cut_at=1000.0, loaded_at=1000.0)
