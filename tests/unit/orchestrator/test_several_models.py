"""Devices that serve several models: one update at a time, each model on its own."""

from __future__ import annotations

import json

import pytest

from orchestrator.domain.rollout import RolloutEvent
from schemas.access import Role
from schemas.device import ActiveModel, Birth
from schemas.errors import DeviceCause
from schemas.rollout import ExecReport, ExecState, RolloutState, Shadow
from schemas.topics import Up
from tests.unit.orchestrator.platform import HARDWARE
from tests.unit.orchestrator.test_rollout_service import (
    STEPS,
    assignment,
    desired,
    executions,
    start,
    succeed,
)

S = ExecState
EVERYONE = [{"percent": 100}]


@pytest.fixture
def fleet(platform):
    """Two devices that are there, and version 1 of two models."""
    for name in ("digits", "anomaly"):
        made = platform.manifest(content=name.encode())
        platform.models.register(name, made.model_copy(update={"model": name}), None)
    devices = platform.enroll(2)
    for device in devices:
        platform.birth(device)
    return devices


def ship(platform, model, **more):
    return start(platform, model=model, waves=EVERYONE, **more)


def of(platform, rollout):
    return {e.device: e for e in executions(platform, rollout)}


def serves(platform, device):
    return [one.model for one in platform.devices.get(device).active]


def file_of(platform, model, variant=0):
    its = platform.models.get(model, 1).manifest.variants[variant]
    return ActiveModel(model=model, version=1, variant=its.id, sha256=its.file.sha256)


def test_a_device_at_work_for_one_model_is_offered_the_other_when_it_is_done(platform, fleet):
    one, two = fleet
    first = ship(platform, "digits")
    platform.tick()
    succeed(platform, of(platform, first)[two])
    second = ship(platform, "anomaly")
    platform.tick()
    held = of(platform, second)[one]
    assert (held.state, held.waits_for) == (S.SCHEDULED, first)
    assert (of(platform, second)[two].state, of(platform, second)[two].waits_for) == (
        S.OFFERED,
        None,
    )
    (listed,) = platform.rollouts.executions(second, None, 10, states={S.SCHEDULED})
    assert listed.waits_for == first
    succeed(platform, of(platform, first)[one])
    platform.tick()
    assert of(platform, second)[one].state is S.OFFERED
    assert assignment(desired(platform, one)).model == "anomaly"
    succeed(platform, of(platform, second)[one])
    view = platform.devices.get(one)
    assert [m.model for m in view.active] == ["anomaly", "digits"]
    assert view.active == view.desired
    assert set(view.serving_since) == {"anomaly", "digits"}
    assert of(platform, first)[one].state is S.SUCCEEDED


def test_a_device_that_is_held_is_no_straggler_and_is_waited_for(platform, fleet):
    one, two = fleet
    first = ship(platform, "digits", step_seconds=5000)
    platform.tick()
    platform.report(one, of(platform, first)[one].id, 0, S.DEFERRED)
    succeed(platform, of(platform, first)[two])
    second = ship(platform, "anomaly", straggler_seconds=60)
    platform.tick()
    succeed(platform, of(platform, second)[two])
    for _ in range(3):
        platform.clock.forward(61)
        platform.tick()
    view = platform.rollouts.get(second)
    assert (view.state, len(view.waves)) == (RolloutState.RUNNING, 1)
    assert of(platform, second)[one].waits_for == first


def test_what_a_paused_rollout_has_not_sent_gives_way_and_comes_again(platform, fleet):
    one, two = fleet
    first = ship(platform, "digits")
    platform.engine.tick()  # offered, and nothing sent yet
    platform.rollouts.operate(first, RolloutEvent.PAUSE)
    second = ship(platform, "anomaly")
    platform.tick()
    assert {e.state for e in of(platform, second).values()} == {S.OFFERED}
    assert {e.state for e in of(platform, first).values()} == {S.SCHEDULED}
    assert assignment(desired(platform, one)).model == "anomaly"
    platform.rollouts.operate(first, RolloutEvent.RESUME)
    platform.tick()
    assert {e.waits_for for e in of(platform, first).values()} == {second}
    for device in (one, two):
        succeed(platform, of(platform, second)[device])
    platform.tick()
    assert {e.state for e in of(platform, first).values()} == {S.OFFERED}


def test_a_newer_rollout_supersedes_only_those_of_its_own_model(platform, fleet):
    one, _ = fleet
    platform.models.register("digits", platform.manifest(content=b"v2"), None)
    first = ship(platform, "digits")
    platform.tick()
    platform.report(one, of(platform, first)[one].id, 0, S.ACCEPTED)
    other = ship(platform, "anomaly")
    platform.tick()
    platform.clock.forward(0.1)
    newer = start(platform, version=2, waves=EVERYONE)
    platform.tick()
    assert {e.state for e in of(platform, first).values()} == {S.SUPERSEDED}
    assert {e.state for e in of(platform, newer).values()} == {S.OFFERED}
    assert {e.waits_for for e in of(platform, other).values()} == {newer}


def test_another_model_s_offer_after_it_does_not_supersede_a_retry(platform, fleet):
    one, _ = fleet
    first = ship(platform, "digits", retry_seconds=1)
    platform.tick()
    broke = {"cause": DeviceCause.TRANSFER_FAILED, "retryable": True}
    platform.report(one, of(platform, first)[one].id, 0, S.FAILED, **broke)
    platform.clock.forward(0.1)
    second = ship(platform, "anomaly")
    platform.tick()
    succeed(platform, of(platform, second)[one])
    platform.clock.forward(2)
    platform.tick()
    again = of(platform, first)[one]
    assert (again.state, again.attempt) == (S.OFFERED, 2)


def test_one_strange_model_among_those_given_is_drift(platform, fleet):
    one, _ = fleet
    rollout = ship(platform, "digits")
    platform.tick()
    succeed(platform, of(platform, rollout)[one])
    mine, strange = file_of(platform, "digits"), file_of(platform, "anomaly")
    platform.birth(one, session=2, active=(mine, strange))
    assert platform.devices.get(one).drifted_at is not None
    as_another = strange.model_copy(update={"sha256": mine.sha256})
    platform.birth(one, session=3, active=(mine, as_another))
    assert platform.devices.get(one).drifted_at is not None
    platform.birth(one, session=4, active=(mine,))
    assert platform.devices.get(one).drifted_at is None


def test_an_installed_version_of_one_model_says_nothing_of_the_other(platform, fleet):
    one, two = fleet
    for device in fleet:
        platform.birth(device, session=2, active=(file_of(platform, "digits"),))
    platform.birth(two, session=3, active=(file_of(platform, "anomaly"),))
    rollout = ship(platform, "anomaly")
    platform.tick()
    assert of(platform, rollout)[one].state is S.OFFERED
    assert of(platform, rollout)[two].state is S.ALREADY_INSTALLED


def test_devices_are_found_by_what_they_serve(platform, fleet):
    one, two = fleet
    platform.birth(one, session=2, active=(file_of(platform, "digits"),))
    since = platform.clock()
    platform.clock.forward(5)
    both = (file_of(platform, "anomaly"), file_of(platform, "digits"))
    platform.birth(one, session=3, active=both)
    platform.birth(two, session=2, active=both[:1])

    def found(**what):
        return {view.id for view in platform.devices.page(None, 10, **what)}

    assert found(model="anomaly") == {one, two}
    assert found(model="digits") == found(model="digits", version=1) == {one}
    assert found(model="digits", version=2) == found(model="dig") == set()
    assert platform.devices.get(one).serving_since == {
        "digits": since,
        "anomaly": platform.clock(),
    }
    platform.birth(one, session=4, active=())
    assert found(model="anomaly") == {two}


def test_a_device_that_lost_everything_is_given_one_model_after_the_other(platform, fleet):
    one, _ = fleet
    rollouts = [ship(platform, "anomaly")]
    platform.tick()
    succeed(platform, of(platform, rollouts[0])[one])
    platform.clock.forward(1)
    rollouts.append(ship(platform, "digits"))
    platform.tick()
    succeed(platform, of(platform, rollouts[1])[one])
    platform.clock.forward(1)

    def again(seq=0):
        platform.tick()
        asked = assignment(desired(platform, one))
        report = ExecReport(
            execution=asked.execution,
            attempt=asked.attempt,
            seq=seq,
            boot="c" * 32,
            uptime=1,
            state=S.SUCCEEDED,
        )
        platform.clock.forward(1)
        platform.receive(one, Up.EXEC, report)
        return asked.model

    bare = Birth(boot="c" * 32, session=1, uptime=1, hardware=HARDWARE)
    platform.receive(one, Up.BIRTH, bare)
    assert serves(platform, one) == []
    assert again() == "digits"
    assert again() == "anomaly"
    assert serves(platform, one) == ["anomaly", "digits"]
    last = json.loads(desired(platform, one))["signed"]["version"]
    assert again() == "anomaly", "a report that comes twice begins nothing"
    assert json.loads(desired(platform, one))["signed"]["version"] == last


def test_a_shadow_is_asked_for_in_the_signed_document_and_has_its_time(platform, fleet):
    one, two = fleet
    shadow = Shadow(seconds=30, max_seconds=600)
    gates = {"max_failure_rate": 0.9}
    rollout = ship(platform, "digits", shadow=shadow.model_dump(), step_seconds=60, gates=gates)
    platform.tick()
    assert assignment(desired(platform, one)).shadow == shadow
    for seq, state in enumerate((S.ACCEPTED, S.STAGED, S.SHADOWING)):
        platform.report(one, of(platform, rollout)[one].id, seq, state)
    platform.report(two, of(platform, rollout)[two].id, 0, S.STAGED)
    platform.clock.forward(61)
    platform.tick()
    assert of(platform, rollout)[two].state is S.TIMED_OUT
    platform.clock.forward(598)
    platform.tick()
    assert of(platform, rollout)[one].state is S.SHADOWING
    platform.clock.forward(2)
    platform.tick()
    ended = of(platform, rollout)[one]
    assert (ended.state, "660 s" in ended.detail) == (S.TIMED_OUT, True)


def test_a_shadow_that_disagreed_counts_as_a_failure_and_is_not_tried_again(platform, fleet):
    one, _ = fleet
    rollout = ship(platform, "digits", shadow=Shadow().model_dump())
    platform.tick()
    mine = of(platform, rollout)[one]
    for seq, state in enumerate((*STEPS[:4], S.SHADOWING)):
        platform.report(one, mine.id, seq, state)
    detail = "agreement 0.71 of 200 is below 0.9"
    cause = DeviceCause.SHADOW_DISAGREED
    platform.report(one, mine.id, 9, S.FAILED, cause=cause, detail=detail)
    platform.tick()
    view = platform.rollouts.get(rollout)
    assert view.state is RolloutState.PAUSED
    assert (of(platform, rollout)[one].cause, of(platform, rollout)[one].attempt) == (cause, 1)


@pytest.mark.parametrize("act", [RolloutEvent.PAUSE, RolloutEvent.ABORT])
def test_a_rollout_is_stopped_while_a_device_tries_a_shadow(platform, fleet, act):
    one, _ = fleet
    rollout = ship(platform, "digits", shadow=Shadow().model_dump())
    platform.tick()
    mine = of(platform, rollout)[one]
    platform.report(one, mine.id, 0, S.SHADOWING)
    platform.broker.sent.clear()
    platform.rollouts.operate(rollout, act)
    platform.tick()
    told = [json.loads(p) for topic, p, _ in platform.broker.sent if topic == f"d/{one}/down/cmd"]
    if act is RolloutEvent.ABORT:
        assert of(platform, rollout)[one].state is S.CANCELLED
        assert [(m["kind"], m["execution"]) for m in told] == [("cancel", mine.id)]
    else:
        assert (of(platform, rollout)[one].state, told) == (S.SHADOWING, [])


def test_who_serves_what_and_why_it_was_stopped_go_over_the_api(platform, fleet):
    one, _ = fleet
    platform.birth(one, session=2, active=(file_of(platform, "digits"),))
    client = platform.client(platform.key(Role.ADMIN))
    found = client.get("/v1/devices", params={"model": "digits", "version": 1}).json()["items"]
    assert [(view["id"], view["active"][0]["version"]) for view in found] == [(one, 1)]
    assert client.get("/v1/devices", params={"model": "anomaly"}).json()["items"] == []
    refused = client.get("/v1/devices", params={"version": 1})
    assert (refused.status_code, "name it too" in refused.text) == (422, True)
    rollout = ship(platform, "digits")
    paused = client.post(f"/v1/rollouts/{rollout}/pause")
    assert (paused.status_code, paused.json()["state"]) == (200, "PAUSED")
    long = client.post(f"/v1/rollouts/{rollout}/abort", json={"reason": "x" * 501})
    assert long.status_code == 422
    ended = client.post(f"/v1/rollouts/{rollout}/abort", json={"reason": "wrong labels"}).json()
    assert ended["reason"].endswith(": wrong labels")
    assert ended["reason"].startswith("by admin:")
