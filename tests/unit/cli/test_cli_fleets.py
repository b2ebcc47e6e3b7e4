"""Selectors, fleets, tags and reasons on the command line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from argosy_fake_platform import NOW, State

from orchestrator.cli.selecting import narrowed, tag_changes
from orchestrator.errors import Invalid
from schemas.device import DeviceView
from schemas.device_why import DeviceWhy
from schemas.fleet import FleetView
from schemas.ids import new_id


def device(**fields: Any) -> DeviceView:
    base: dict[str, Any] = {
        "id": new_id("dev"), "device_class": "cam", "tags": ("lab",), "state": "ACTIVE",
        "presence": "ONLINE", "certificate_expires_at": NOW, "enrolled_at": NOW,
    }  # fmt: skip
    return DeviceView(**{**base, **fields})


def test_devices_are_listed_by_selector_and_what_is_none_is_refused_here(
    argosy: Any, fake: State
) -> None:
    one, two = device(), device(device_class="robot")
    fake.devices = [one, two]
    listed = argosy("device", "ls", "--where", "not class = cam", "-o", "name")
    assert listed.out == f"{two.id}\n"
    both = argosy("device", "ls", "--where", "tag = lab", "--class", "cam", "-o", "name")
    assert both.out == f"{one.id}\n"
    wrong = argosy("device", "ls", "--where", "tga = lab")
    assert wrong.code == 2
    assert "--where: at 1: found 'tga'" in wrong.err
    assert "did you mean tag?" in wrong.err


def test_options_become_one_selector() -> None:
    assert narrowed(None, None, ()) is None
    assert narrowed("tag = a or tag = b", "cam", ("lab",)) == (
        "(tag = a or tag = b) and class = cam and tag = lab"
    )
    with pytest.raises(Invalid, match="--class: 'x or tag = y' is not a class"):
        narrowed(None, "x or tag = y", ())


def test_a_fleet_is_made_shown_changed_and_forgotten(argosy: Any, fake: State) -> None:
    made = argosy("fleet", "create", "lab", "class = cam and tag = lab", "--note", "first")
    assert made.code == 0
    assert "class = cam and tag = lab" in made.out
    assert made.out.split()[-3:] == ["cam", "ONLINE", "3"]
    again = argosy("fleet", "create", "lab", "tag = x")
    assert (again.code, "--replace" in again.err) == (6, True)
    assert argosy("fleet", "create", "lab", "tag = x", "--replace").code == 0
    assert argosy("fleet", "ls", "-o", "name").out == "lab\n"
    shown = FleetView.model_validate_json(argosy("fleet", "get", "lab", "-o", "json").out)
    assert (shown.spec.selector, shown.devices) == ("tag = x", 3)
    assert argosy("fleet", "delete", "lab").code == 0
    assert argosy("fleet", "get", "lab").code == 5
    wrong = argosy("fleet", "create", "hall", "tag <= x")
    assert (wrong.code, "SELECTOR: at 5: tag has no order" in wrong.err) == (2, True)


def test_a_fleet_that_a_rollout_needs_stays(argosy: Any, fake: State) -> None:
    argosy("fleet", "create", "lab", "tag = lab")
    busy = fake.fleets["lab"].model_copy(update={"rollouts": (new_id("rol"),)})
    fake.fleets["lab"] = busy
    assert argosy("fleet", "delete", "lab").code == 6
    assert "lab" in fake.fleets


def test_tags_are_given_and_taken_away(argosy: Any, fake: State) -> None:
    one, two = device(tags=("old", "lab")), device(tags=())
    fake.devices = [one, two]
    answer = argosy("device", "tag", one.id, two.id, "+hall", "-old", "--output", "json")
    assert answer.code == 0, answer.err
    assert [view["tags"] for view in json.loads(answer.out)] == [["lab", "hall"], ["hall"]]
    assert [view.tags for view in fake.devices] == [("lab", "hall"), ("hall",)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dev_x"], "name the devices, and tags"),
        (["+lab"], "name the devices, and tags"),
        (["dev_x", "+Lab"], "'Lab' is no tag"),
        (["dev_x", "-"], "'' is no tag"),
        (["dev_x", "+lab", "-lab"], "lab cannot be given and taken away"),
    ],
)
def test_what_is_no_change_of_tags_is_refused(argosy: Any, words: list[str], message: str) -> None:
    answer = argosy("device", "tag", *words)
    assert (answer.code, message in answer.err) == (2, True)


def test_a_device_has_at_most_sixteen_tags() -> None:
    change = tag_changes(["dev_x", *(f"+t{n}" for n in range(16))])
    assert len(change.applied(())) == 16
    with pytest.raises(Invalid, match="at most 16 tags; it would have 17"):
        change.applied(("other",))


def test_reasons_are_shown_for_people_and_programs(argosy: Any, fake: State) -> None:
    missing = {"version": 4, "code": "wave_pending", "text": "It is in wave 2 of 2."}
    model = {
        "model": "digits", "version": 3, "variant": "int8", "origin": "rollout", "newest": 4,
        "text": "It serves digits@3 (int8), by rollout rol_x.", "missing": [missing],
    }  # fmt: skip
    view = device()
    why = DeviceWhy.model_validate(
        {"device": view.id, "state": "ACTIVE", "presence": "ONLINE", "models": [model]}
    )
    fake.devices, fake.whys = [view], [why]
    shown = argosy("device", "get", view.id, "--why")
    assert shown.out.splitlines() == [
        "digits@3",
        "  It serves digits@3 (int8), by rollout rol_x.",
        "  not digits@4 (wave_pending) It is in wave 2 of 2.",
    ]
    told = argosy("device", "get", view.id, "--why", "-o", "json")
    assert DeviceWhy.model_validate_json(told.out) == why
