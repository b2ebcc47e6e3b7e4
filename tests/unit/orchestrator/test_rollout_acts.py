"""Operators' acts: approval by another person, promotion by hand, finishing; all written down."""

from __future__ import annotations

import pytest

from orchestrator.domain.acts import Act
from orchestrator.errors import Forbidden, IllegalTransition, Invalid
from orchestrator.services import actor, keys
from orchestrator.services.ports import AuditQuery
from schemas.access import Role
from schemas.rollout import ExecState, PauseReason, RolloutSpec, RolloutState, WaveState
from schemas.rollout_view import RolloutEdit

R = RolloutState
W = WaveState


@pytest.fixture
def fleet(platform):
    platform.models.register("digits", platform.manifest(), None)
    devices = platform.enroll(3)
    for device in devices:
        platform.birth(device)
    return devices


def plan(platform, **more):
    gates = {"min_inferences": 50, "soak_seconds": 600, "evidence_seconds": 60}
    asked = {"model": "digits", "version": 1, "gates": gates}
    waves = [{"count": 1}, {"count": 1}, {"percent": 100}]
    return platform.rollouts.plan(RolloutSpec.model_validate(asked | {"waves": waves} | more)).id


def person(platform, name, role=Role.RELEASER):
    """Who acts with a token of that name."""
    with platform.uow() as tx:
        token = keys.create(tx, role, platform.clock(), name=name)
    return f"{role.value}:{keys.id_of(token)}"


def audited(platform, rollout):
    with platform.uow.read() as tx:
        entries = tx.audit.entries(AuditQuery(limit=500))
    return [one for one in entries if one.subject == rollout]


def succeed(platform, rollout, wave):
    for execution in platform.rollouts.get(rollout).waves[wave].executions:
        if execution.state is ExecState.OFFERED:
            for seq, state in enumerate((ExecState.ACCEPTED, ExecState.SUCCEEDED)):
                platform.report(execution.device, execution.id, seq, state)


def states(platform, rollout):
    return [wave.state for wave in platform.rollouts.get(rollout).waves]


def test_another_person_has_to_agree(platform, fleet):
    rollout = plan(platform, approval=True)
    ann, other_ann, ben = (person(platform, name) for name in ("ann", "ann--laptop", "ben"))
    with actor.acting(ann):
        view = platform.rollouts.operate(rollout, Act.START, "fixes the left lane")
        assert (view.state, view.requested_by) == (R.AWAITING_APPROVAL, ann)
        asked = platform.rollouts.get(rollout).asked
        assert (asked.name, asked.reason) == ("ann", "fixes the left lane")
        assert platform.rollouts.operate(rollout, Act.START).state is R.AWAITING_APPROVAL
        platform.tick()
        assert states(platform, rollout) == [W.PENDING] * 3
        change = RolloutEdit(priority=90)
        with pytest.raises(IllegalTransition, match="waits for a second operator"):
            platform.rollouts.edit(rollout, change, {view.revision})
        with pytest.raises(Forbidden, match="who asks for an approval does not give it"):
            platform.rollouts.operate(rollout, Act.APPROVE)
    with actor.acting(other_ann), pytest.raises(Forbidden, match="both tokens of ann"):
        platform.rollouts.operate(rollout, Act.APPROVE)
    with actor.acting(ben):
        view = platform.rollouts.operate(rollout, Act.APPROVE, "looked at it")
    assert (view.state, view.requested_by, view.approved_by) == (R.RUNNING, ann, ben)
    last = audited(platform, rollout)[-1]
    assert (last.actor, last.action) == (ben, "rollout.approve")
    assert last.detail["reason"] == "looked at it"
    assert last.detail["requested_by"] == ann


def test_a_wave_passes_by_hand_once_its_devices_are_through(platform, fleet):
    rollout = plan(platform)
    platform.rollouts.operate(rollout, Act.START)
    platform.tick()
    with actor.acting(person(platform, "ann")) as _:
        me = actor.current()
        platform.rollouts.operate(rollout, Act.PROMOTE, "seen enough")
    platform.tick()
    assert states(platform, rollout) == [W.RUNNING, W.PENDING, W.PENDING]  # it is at work
    succeed(platform, rollout, 0)
    platform.tick(6)
    assert states(platform, rollout) == [W.PASSED, W.RUNNING, W.PENDING]
    succeed(platform, rollout, 1)
    platform.tick()
    assert states(platform, rollout) == [W.PASSED, W.SOAKING, W.PENDING]  # as it should
    waves = platform.rollouts.get(rollout).waves
    assert [wave.promoted_by for wave in waves] == [me, None, None]
    last = audited(platform, rollout)[-1]
    assert (last.actor, last.detail["waves"]) == (me, [1])
    assert last.detail["reason"] == "seen enough"


def test_every_wave_passes_by_hand(platform, fleet):
    rollout = plan(platform)
    platform.rollouts.operate(rollout, Act.START)
    platform.rollouts.operate(rollout, Act.PROMOTE, full=True)
    for wave in range(3):
        platform.tick(6)
        succeed(platform, rollout, wave)
    platform.tick(6)
    view = platform.rollouts.get(rollout)
    assert view.state is R.SUCCEEDED
    assert {wave.promoted_by for wave in view.waves} == {"platform"}


def test_what_a_verdict_stopped_goes_on_by_hand(platform, fleet):
    rollout = plan(platform, gates={"soak_seconds": 0, "evidence_seconds": 5})
    platform.rollouts.operate(rollout, Act.START)
    platform.tick()
    succeed(platform, rollout, 0)
    platform.tick()
    platform.clock.forward(10)
    platform.tick()
    view = platform.rollouts.get(rollout)
    assert (view.state, view.pause_reason) == (R.PAUSED, PauseReason.INCONCLUSIVE)
    view = platform.rollouts.operate(rollout, Act.PROMOTE)
    assert (view.state, view.pause_reason, view.reason) == (R.RUNNING, None, None)
    platform.tick()
    assert states(platform, rollout)[:2] == [W.PASSED, W.RUNNING]


def test_what_an_operator_paused_stays_paused(platform, fleet):
    rollout = plan(platform)
    platform.rollouts.operate(rollout, Act.START)
    platform.rollouts.operate(rollout, Act.PAUSE)
    first = platform.rollouts.operate(rollout, Act.PROMOTE)
    assert (first.state, first.notes) == (
        R.PAUSED,
        (f"it is paused by an operator, and goes on by `argosy rollout resume {rollout}`",),
    )
    again = platform.rollouts.operate(rollout, Act.PROMOTE, wave=0)
    assert ("promoted already" in again.notes[0], again.notes[1:]) == (True, first.notes)
    platform.rollouts.operate(rollout, Act.RESUME)
    assert platform.rollouts.operate(rollout, Act.PROMOTE, wave=0).notes == again.notes[:1]


def test_too_many_failures_do_not_stop_a_wave_that_passes_by_hand(platform, fleet):
    rollout = plan(platform, waves=[{"percent": 100}], gates={"max_failure_rate": 0.0})
    platform.rollouts.operate(rollout, Act.START)
    platform.tick()
    for execution in platform.rollouts.get(rollout).waves[0].executions:
        platform.report(execution.device, execution.id, 0, ExecState.FAILED)
    platform.tick()
    assert platform.rollouts.get(rollout).pause_reason is PauseReason.ERROR_THRESHOLD
    platform.rollouts.operate(rollout, Act.PROMOTE)
    platform.tick(6)
    assert platform.rollouts.get(rollout).state is R.SUCCEEDED


def test_a_dynamic_rollout_ends_when_it_is_finished(platform, fleet):
    rollout = plan(platform, dynamic=True, waves=[{"percent": 100}])
    platform.rollouts.operate(rollout, Act.START)
    platform.rollouts.operate(rollout, Act.PROMOTE, full=True)
    platform.tick()
    succeed(platform, rollout, 0)
    platform.tick(6)
    assert platform.rollouts.get(rollout).state is R.RUNNING
    platform.rollouts.operate(rollout, Act.FINISH)
    platform.tick()
    assert platform.rollouts.get(rollout).state is R.SUCCEEDED
    assert platform.rollouts.operate(rollout, Act.FINISH).state is R.SUCCEEDED


def test_what_is_not_allowed_names_what_is(platform, fleet):
    rollout = plan(platform)
    with pytest.raises(IllegalTransition, match="cannot promote a rollout that is DRAFT"):
        platform.rollouts.operate(rollout, Act.PROMOTE)
    with pytest.raises(IllegalTransition, match=r"it allows start, abort$"):
        platform.rollouts.operate(rollout, Act.ROLLBACK)
    with pytest.raises(Invalid, match="full: belongs to a promotion"):
        platform.rollouts.operate(rollout, Act.START, full=True)
    platform.rollouts.operate(rollout, Act.START)
    platform.rollouts.operate(rollout, Act.ABORT)
    with pytest.raises(IllegalTransition, match=r"has ended \(ABORTED\)"):
        platform.rollouts.operate(rollout, Act.ROLLBACK)


def test_every_act_is_written_down_once_and_counted(platform, fleet):
    rollout = plan(platform)
    before = platform.rollouts.get(rollout).revision
    acts = [Act.START, Act.PAUSE, Act.RESUME, Act.PROMOTE, Act.ACTIVATE, Act.ROLLBACK, Act.ABORT]
    for act in acts:
        platform.rollouts.operate(rollout, act, f"because of {act}")
        if act is not Act.PROMOTE and act is not Act.ACTIVATE:
            platform.rollouts.operate(rollout, act, "again")
    entries = audited(platform, rollout)[1:]
    assert [one.action for one in entries] == [f"rollout.{act.value}" for act in acts]
    assert [one.detail["reason"] for one in entries] == [f"because of {act}" for act in acts]
    assert platform.rollouts.get(rollout).revision == before + len(acts)


def test_acts_over_http(platform, fleet):
    rollout = plan(platform)
    client = platform.client(platform.key(Role.RELEASER))
    assert client.post(f"/v1/rollouts/{rollout}/start").json()["state"] == "RUNNING"
    assert client.post(f"/v1/rollouts/{rollout}/resume").status_code == 200  # it runs
    answer = client.post(f"/v1/rollouts/{rollout}/rollback", json={"to": 1})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    answer = client.post(f"/v1/rollouts/{rollout}/rollback", json={"reason": "worse"})
    assert (answer.status_code, answer.json()["state"]) == (200, "ROLLING_BACK")
    assert client.post(f"/v1/rollouts/{rollout}/promote").status_code == 409
    assert client.post(f"/v1/rollouts/{rollout}/destroy").status_code == 422
    viewer = platform.client(platform.key(Role.VIEWER))
    assert viewer.post(f"/v1/rollouts/{rollout}/approve").status_code == 403
