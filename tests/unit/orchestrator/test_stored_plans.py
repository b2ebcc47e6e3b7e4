"""Plans that an earlier version took and this one cannot read: shown, stopped, and never lost."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from sqlalchemy import text

from orchestrator.domain.acts import Act
from orchestrator.errors import IllegalTransition
from orchestrator.services.joining import JoiningService
from schemas.access import Role
from schemas.pace import MaintenanceWindow, Pace
from schemas.rollout import ExecState, PauseReason, RolloutState
from schemas.rollout_view import RolloutEdit, RolloutView
from tests.unit.orchestrator.test_rollout_acts import plan

R = RolloutState
GONE = {"cron": "0 2 * * *", "minutes": 60, "timezone": "Mars/Olympus", "covers": "activation"}
WINDOW = MaintenanceWindow(cron="0 2 * * *", minutes=60)


@pytest.fixture
def pair(platform):
    """Two rollouts that run, on devices that are there; of the first one the time zone is gone."""
    for name in ("digits", "faces"):
        manifest = platform.manifest().model_copy(update={"model": name})
        platform.models.register(name, manifest, None)
    for device in platform.enroll(2):
        platform.birth(device)
    found = [plan(platform, model=name, waves=[{"percent": 100}]) for name in ("digits", "faces")]
    for rollout in found:
        platform.rollouts.operate(rollout, Act.START)
    store(platform, found[0], windows=[GONE])
    return found


def stored(platform, rollout):
    with platform.database.connect() as db:
        raw = db.scalar(text("SELECT spec FROM rollouts WHERE id = :id"), {"id": rollout})
    return json.loads(raw)


def executions(platform, rollout):
    return [one for wave in platform.rollouts.get(rollout).waves for one in wave.executions]


def store(platform, rollout, **parts):
    """What another version of the server has written."""
    spec = stored(platform, rollout) | parts
    with platform.database.begin() as db:
        values = {"id": rollout, "spec": json.dumps(spec)}
        db.execute(text("UPDATE rollouts SET spec = :spec WHERE id = :id"), values)


def test_a_plan_that_cannot_be_read_hides_no_other_and_is_shown_with_a_note(platform, pair):
    bad, good = pair
    api = platform.client(platform.key(Role.ADMIN))
    items = api.get("/v1/rollouts").json()["items"]
    assert {item["id"]: bool(item["unreadable"]) for item in items} == {bad: True, good: False}
    view = RolloutView.model_validate(api.get(f"/v1/rollouts/{bad}").json())
    assert "windows.0.timezone: there is no time zone 'Mars/Olympus'" in view.unreadable[0]
    (device, _) = (one.device for one in executions(platform, bad))
    assert api.get(f"/v1/devices/{device}/why").status_code == 200


def test_it_is_paused_with_its_reason_and_offers_nothing_and_the_others_go_on(platform, pair):
    bad, good = pair
    platform.tick()
    view = platform.rollouts.get(bad)
    assert (view.state, view.pause_reason) == (R.PAUSED, PauseReason.UNREADABLE)
    assert "cannot read its plan: windows.0.timezone" in view.reason
    assert {one.state for one in executions(platform, bad)} == {ExecState.SCHEDULED}
    assert {one.state for one in executions(platform, good)} == {ExecState.OFFERED}
    assert stored(platform, bad)["windows"] == [GONE]  # nothing of it is lost


def test_what_was_offered_and_not_sent_is_not_sent_without_its_windows(platform, pair):
    bad, _ = pair
    store(platform, bad, windows=[])
    platform.engine.tick()
    platform.signing.tick()
    store(platform, bad, windows=[GONE])
    platform.publisher.tick()
    sent = b"".join(payload for _, payload, _ in platform.broker.sent)
    assert bad.encode() not in sent


@pytest.mark.parametrize("act", [Act.RESUME, Act.PROMOTE])
def test_nobody_lets_it_go_on_as_it_is(platform, pair, act):
    platform.tick()
    with pytest.raises(IllegalTransition, match="cannot read its plan") as refused:
        platform.rollouts.operate(pair[0], act)
    assert "argosy rollout edit" in refused.value.hint


def test_an_edit_of_what_cannot_be_read_mends_it(platform, pair):
    bad, _ = pair
    platform.tick()
    half = platform.rollouts.edit(bad, RolloutEdit(pace=Pace(per_minute=600)), None)
    assert half.unreadable
    assert stored(platform, bad)["windows"] == [GONE]
    whole = platform.rollouts.edit(bad, RolloutEdit(windows=(WINDOW,)), None)
    assert (whole.unreadable, whole.spec.pace.per_minute) == ((), 600)
    platform.rollouts.operate(bad, Act.RESUME)
    platform.clock.forward(60)
    platform.tick()
    assert platform.rollouts.get(bad).state is R.RUNNING


@pytest.mark.parametrize("act", [Act.ABORT, Act.ROLLBACK])
def test_it_can_be_stopped(platform, pair, act):
    bad, _ = pair
    store(platform, bad, gates={"min_inferences": -1}, not_yet_known=True)
    platform.tick()
    view = platform.rollouts.operate(bad, act)
    assert view.state in {R.ABORTED, R.ROLLING_BACK}
    assert len(view.unreadable) == 3


def test_nobody_joins_what_is_for_nobody_knows_whom(platform, pair):
    bad, _ = pair
    store(platform, bad, windows=[], dynamic=True, where="colour = red")
    (late,) = platform.enroll()
    platform.birth(late)
    assert JoiningService(platform.uow, platform.clock, lambda: 0.0).tick() == 0
    assert late not in {one.device for one in executions(platform, bad)}
    answer = platform.client(platform.key(Role.ADMIN)).get(f"/v1/devices/{late}/why").json()
    reasons = [one for model in answer["models"] for one in model["missing"]]
    (reason,) = [one["text"] for one in reasons if one["rollout"] == bad]
    assert "cannot read the plan" in reason


def test_what_is_stored_may_be_anything(platform, pair):
    bad, _ = pair
    for broken in ("null", "[]", '{"model": "X Y", "version": "z"}'):
        with platform.database.begin() as db:
            values = {"id": bad, "spec": broken}
            db.execute(text("UPDATE rollouts SET spec = :spec WHERE id = :id"), values)
        view = platform.rollouts.get(bad)
        assert (view.spec.model, view.spec.version, bool(view.unreadable)) == ("digits", 1, True)
        assert len(platform.rollouts.page(None, 10)) == 2


def test_a_fleet_that_cannot_be_read_any_more_stops_a_rollout_too(platform, pair):
    _, good = pair
    with platform.database.begin() as db:
        values = {"id": good, "where": "colour = red"}
        db.execute(text("UPDATE rollouts SET fleet_where = :where WHERE id = :id"), values)
    platform.clock.now += timedelta(seconds=1)
    platform.tick()
    view = platform.rollouts.get(good)
    assert view.pause_reason is PauseReason.UNREADABLE
    assert "its fleet when it was planned: at 1:" in view.reason
