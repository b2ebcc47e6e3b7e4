"""Selectors, fleets, tags and reasons on the command line."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from argosy_fake_platform import NOW, State

from orchestrator.cli.selecting import narrowed
from orchestrator.client import Argosy
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
        ([], "name the devices or say --where, and tags"),
        (["dev_x"], "name the devices or say --where, and tags"),
        (["+lab"], "name the devices or say --where, and tags"),
        (["dev_x", "+lab", "--where", "*"], "dev_x is named, and --where says which"),
        (["--where", "*"], "name the devices or say --where, and tags"),
        (["--where", "tga = x", "+lab"], "--where: at 1: found 'tga'"),
        (["dev_x", "+lab", "--dry-run"], "--dry-run is for --where"),
        (["dev_x", *(f"+t{n}" for n in range(17))], "more than 16 tags"),
        (["dev_x", "+Lab"], "'Lab' is no tag"),
        (["dev_x", "+"], "'' is no tag"),
        (["dev_x", "+lab", "-lab"], "lab cannot be given and taken away"),
    ],
)
def test_what_is_no_change_of_tags_is_refused(argosy: Any, words: list[str], message: str) -> None:
    answer = argosy("device", "tag", *words)
    assert (answer.code, message in answer.err) == (2, True)


def piped(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_ids_may_come_by_a_pipe(argosy: Any, fake: State, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.devices = [device(id=new_id("dev", entropy=n), tags=()) for n in range(200)]
    asked = fake.devices[:170]
    names = "".join(f"{one.id}\n" for one in asked)
    for more, changed in (("--dry-run", 0), ("--at-most=170", 170)):
        piped(monkeypatch, f"{names}\n{asked[0].id}\n")
        answer = argosy("device", "tag", "-", "+lab", more)
        assert (answer.code, answer.err) == (0, "")
        assert answer.out.startswith("170 devices match, 170 ")
        assert sum(one.tags == ("lab",) for one in fake.devices) == changed


@pytest.mark.parametrize(
    ("text", "more", "code", "message"),
    [
        ("", "", 2, "stdin names no device"),
        ("dev_0000000000000001\nx y\n", "", 2, "stdin:2: 'x y' is no id of a device"),
        ("z" * 10_000, "", 2, "is no id of a device"),
        ("many", "", 2, "these are more than 10000 devices"),
        ("all\ndev_zzzzzzzzzzzzzzzz\n", "", 5, "1 of 3 ids are of no device here"),
        ("all", "--at-most=1", 6, "2 would change, more than the 1 of --at-most"),
    ],
)
def test_ids_from_a_pipe_change_all_or_none(
    argosy: Any, fake: State, monkeypatch: pytest.MonkeyPatch,
    text: str, more: str, code: int, message: str,
) -> None:  # fmt: skip
    fake.devices = [device(tags=()), device(tags=())]
    there = "\n".join(one.id for one in fake.devices)
    many = "\n".join(new_id("dev", entropy=n) for n in range(10_001))
    piped(monkeypatch, many if text == "many" else text.replace("all", there))
    answer = argosy("device", "tag", "-", "+lab", *filter(None, [more]))
    assert (answer.code, message in answer.err) == (code, True), answer.err
    assert all(one.tags == () for one in fake.devices)


def test_a_tag_that_begins_like_an_option_is_a_tag(argosy: Any, fake: State) -> None:
    one = device(tags=("old", "o", "y", "h"))
    fake.devices = [one]
    answer = argosy("device", "tag", one.id, "-old", "-o", "json", "-o", "-y", "-h")
    assert answer.code == 0, answer.err
    assert [view["tags"] for view in json.loads(answer.out)] == [[]]


def test_all_that_a_selector_matches_change_once_it_was_agreed_to(
    argosy: Any, fake: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.devices = [device(tags=()), device(tags=("lab",)), device(device_class="pi", tags=())]
    words = ("device", "tag", "--where", "class = cam", "+lab")
    looked = argosy(*words, "--dry-run")
    assert (looked.code, looked.out) == (0, "2 devices match, 1 would change\n")
    refused = argosy(*words)
    assert (refused.code, "--yes" in refused.err) == (2, True)
    assert argosy(*words, "--yes", "--at-most", "0").code == 6
    assert [view.tags for view in fake.devices] == [(), ("lab",), ()]
    monkeypatch.setattr("orchestrator.cli.asking.is_anyone_there", lambda: True)
    asked: list[str] = []

    def one_more_comes(text: str, **_: Any) -> None:
        asked.append(text)
        fake.devices = [*fake.devices, device(tags=())]

    monkeypatch.setattr("click.confirm", one_more_comes)
    late = argosy(*words)
    assert (late.code, asked) == (6, ["+lab for 1 of 2 that match?"])
    monkeypatch.setattr("click.confirm", lambda *_, **__: None)
    done = argosy(*words, "-o", "json")
    assert json.loads(done.out) == {"matched": 3, "changed": 2, "dry_run": False}
    assert [view.tags for view in fake.devices] == [("lab",), ("lab",), (), ("lab",)]
    assert argosy(*words).out == "3 devices match, 0 changed\n"  # nothing is asked


def test_the_sdk_replaces_all_tags_too(platform_env: dict[str, str], fake: State) -> None:
    fake.devices = [device(tags=("old", "lab"))]
    with Argosy.from_profile() as argosy:
        assert argosy.devices.tag(fake.devices[0].id, ["x", "y"]).tags == ("x", "y")


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
