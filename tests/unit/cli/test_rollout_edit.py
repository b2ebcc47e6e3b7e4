"""What ``argosy rollout edit`` makes of a plan."""

from __future__ import annotations

import pytest
from argosy_fake_platform import rollout_view

from orchestrator.cli.failures import Located
from orchestrator.cli.plan import edited_spec
from orchestrator.errors import Invalid
from schemas.pace import Growth, MaintenanceWindow, Pace, WindowCovers
from schemas.rollout import OnFailure, RolloutSpec

WINDOW = MaintenanceWindow(cron="0 2 * * *", minutes=60)
SPEC = RolloutSpec(
    model="digits",
    version=1,
    pace=Pace(per_minute=10, growth=Growth(), concurrent=5),
    windows=(WINDOW,),
)


def test_what_is_not_named_stays():
    edited = edited_spec(SPEC, {"per_minute": 50.0, "priority": 80, "on_failure": "roll-back"})
    assert edited.pace == Pace(per_minute=50, growth=Growth(), concurrent=5)
    assert (edited.priority, edited.on_failure) == (80, OnFailure.ROLL_BACK)
    assert edited.windows == SPEC.windows
    assert edited_spec(SPEC, {}) == SPEC


def test_what_is_there_can_be_taken_away():
    edited = edited_spec(SPEC, {"no_rate": True, "no_concurrent": True, "no_windows": True})
    assert (edited.pace, edited.windows) == (Pace(), ())


def test_windows_that_are_there_may_cover_more():
    (window,) = edited_spec(SPEC, {"window_covers": "all"}).windows
    assert window == WINDOW.model_copy(update={"covers": WindowCovers.ALL})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"no_rate": True, "max_per_minute": 5.0}, "--max-per-minute"),
        ({"priority": 101}, "--priority"),
        ({"no_windows": True, "window_covers": "all"}, "--window-covers"),
        ({"no_windows": True, "window": ("0 3 * * * 1h UTC",)}, "--no-windows: --window says"),
        ({"no_rate": True, "per_minute": 5.0}, "--no-rate: --per-minute says"),
        ({"no_concurrent": True, "concurrent": 5}, "--no-concurrent: --concurrent says"),
    ],
)
def test_what_is_wrong_is_named_by_its_option(options, said):
    with pytest.raises((Invalid, Located), match=said):
        edited_spec(SPEC, options)


@pytest.mark.parametrize("option", ["--waves", "--where", "--fleet", "--tag", "--class", "--soak-"])
def test_what_is_frozen_is_said_to_be(argosy, option):
    answer = argosy("rollout", "edit", "rol_0000000000000000", option, "x")
    assert answer.code == 2
    frozen = f"{option}: who is in which wave, and what devices do, is frozen"
    assert (frozen in answer.err) is (option != "--soak-")
    assert ("argosy rollout abort" in answer.err) is (option != "--soak-")


def test_an_edit_is_answered_with_what_differs(argosy, fake):
    before = rollout_view(id="rol_0000000000000000", spec=SPEC)
    fake.rollouts[before.id] = [before]
    answer = argosy("rollout", "edit", before.id, "--priority", "80")
    assert "priority: 50 -> 80\nrevision 2" in answer.err
