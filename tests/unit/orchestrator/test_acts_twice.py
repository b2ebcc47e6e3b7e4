"""Acts said twice, as after a lost answer: the second one changes nothing, and says so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.domain.acts import Act
from orchestrator.errors import Conflict, IllegalTransition, Invalid, NotFound, PreconditionFailed
from orchestrator.services.joining import JoiningService
from schemas.access import Role
from schemas.pace import MaintenanceWindow, Pace
from schemas.rollout import ExecState, RolloutSpec, RolloutState, WaveState
from schemas.rollout_view import OperateRequest, RetryRequest, RolloutEdit
from tests.unit.orchestrator.test_rollout_acts import audited, plan, states, succeed

W = WaveState
HOURLY = MaintenanceWindow(cron="0 * * * *", minutes=1)


@pytest.fixture
def rollout(platform):
    """Of three waves, on three devices that are there; started."""
    platform.models.register("digits", platform.manifest(), None)
    for device in platform.enroll(3):
        platform.birth(device)
    rollout = plan(platform)
    platform.rollouts.operate(rollout, Act.START)
    platform.tick()
    return rollout


def promoted(platform, rollout):
    return [wave.promoted_by for wave in platform.rollouts.get(rollout).waves]


def test_a_promotion_said_again_lets_no_other_wave_pass(platform, rollout):
    first = platform.rollouts.operate(rollout, Act.PROMOTE, wave=0)
    assert first.notes == ()
    again = platform.rollouts.operate(rollout, Act.PROMOTE, wave=0)
    assert (again.revision, "wave 1 is promoted already" in again.notes[0]) == (
        first.revision,
        True,
    )
    succeed(platform, rollout, 0)
    platform.tick(6)
    assert states(platform, rollout) == [W.PASSED, W.RUNNING, W.PENDING]
    late = platform.rollouts.operate(rollout, Act.PROMOTE, wave=0)
    assert late.notes == ("wave 1 has passed already; the rollout is RUNNING",)
    assert promoted(platform, rollout) == ["platform", None, None]
    assert [e.action for e in audited(platform, rollout)].count("rollout.promote") == 1


def test_a_promotion_names_a_wave_that_is_worked_on(platform, rollout):
    with pytest.raises(Conflict, match="wave 3 is not the one that is worked on: that is wave 1"):
        platform.rollouts.operate(rollout, Act.PROMOTE, wave=2)
    with pytest.raises(NotFound, match="has no wave 8"):
        platform.rollouts.operate(rollout, Act.PROMOTE, wave=7)
    with pytest.raises(Invalid, match="wave: names the one wave"):
        platform.rollouts.operate(rollout, Act.PROMOTE, wave=0, full=True)
    with pytest.raises(Invalid, match="wave: names the one wave"):
        platform.rollouts.operate(rollout, Act.PAUSE, wave=0)


def test_a_promotion_of_all_said_again_changes_nothing(platform, rollout):
    first = platform.rollouts.operate(rollout, Act.PROMOTE, full=True)
    again = platform.rollouts.operate(rollout, Act.PROMOTE, full=True)
    assert again.revision == first.revision
    assert again.notes == ("every wave that is left is promoted already",)


def test_a_promotion_said_again_of_a_rollout_that_is_over_by_now(platform, rollout):
    platform.rollouts.operate(rollout, Act.PROMOTE, full=True)
    for wave in range(3):
        succeed(platform, rollout, wave)
        platform.tick(6)
    view = platform.rollouts.operate(rollout, Act.PROMOTE, wave=2)
    assert view.notes == ("wave 3 has passed already; the rollout is SUCCEEDED",)


@pytest.mark.parametrize("wave", [0, 1])
def test_a_promotion_of_what_has_ended_does_not_say_that_the_wave_passes_yet(
    platform, rollout, wave
):
    platform.rollouts.operate(rollout, Act.PROMOTE, wave=0)
    platform.rollouts.operate(rollout, Act.ABORT)
    with pytest.raises(IllegalTransition, match=r"the rollout has ended \(ABORTED\)"):
        platform.rollouts.operate(rollout, Act.PROMOTE, wave=wave)


def test_joiners_are_promoted_before_the_stragglers_that_wait_for_them(platform):
    """The stragglers' wave has the lower number, and is worked on last."""
    platform.models.register("digits", platform.manifest(), None)
    there, *_ = platform.enroll(2)
    platform.birth(there)
    rollout = plan(platform, dynamic=True, waves=[{"percent": 100}])
    platform.rollouts.operate(rollout, Act.START)
    platform.tick()
    succeed(platform, rollout, 0)
    platform.rollouts.operate(rollout, Act.PROMOTE, wave=0)
    platform.tick(6)
    view = platform.rollouts.get(rollout)
    assert [(w.state, w.stragglers) for w in view.waves] == [(W.PASSED, False), (W.RUNNING, True)]
    (late,) = platform.enroll()
    platform.birth(late)
    JoiningService(platform.uow, platform.clock, lambda: 0.0).tick()
    platform.rollouts.operate(rollout, Act.PROMOTE)
    assert promoted(platform, rollout)[1:] == [None, "platform"]


def test_the_word_to_go_on_said_again_takes_in_nobody_else(platform, rollout):
    first = platform.rollouts.operate(rollout, Act.ACTIVATE)
    platform.clock.forward(1)
    again = platform.rollouts.operate(rollout, Act.ACTIVATE)
    assert (again.revision, len(again.notes)) == (first.revision, 1)
    succeed(platform, rollout, 0)
    platform.rollouts.operate(rollout, Act.PROMOTE)
    platform.tick(6)  # the second wave is offered it
    third = platform.rollouts.operate(rollout, Act.ACTIVATE)
    assert third.notes == ()
    assert [e.action for e in audited(platform, rollout)].count("rollout.activate") == 2


def test_a_finish_said_again_changes_nothing(platform):
    platform.models.register("digits", platform.manifest(), None)
    for device in platform.enroll(1):
        platform.birth(device)
    rollout = plan(platform, dynamic=True, waves=[{"percent": 100}])
    platform.rollouts.operate(rollout, Act.START)
    first = platform.rollouts.operate(rollout, Act.FINISH)
    again = platform.rollouts.operate(rollout, Act.FINISH)
    assert again.revision == first.revision
    assert again.notes[0].startswith("no device joins it any more")


def test_an_act_that_finds_its_result_says_so(platform, rollout):
    platform.rollouts.operate(rollout, Act.PAUSE)
    again = platform.rollouts.operate(rollout, Act.PAUSE)
    assert again.notes == ("nothing was changed: it is PAUSED already",)


def test_a_retry_said_again_tries_nothing_twice(platform, rollout):
    (failed,) = platform.rollouts.get(rollout).waves[0].executions
    for seq, state in enumerate((ExecState.ACCEPTED, ExecState.FAILED)):
        platform.report(failed.device, failed.id, seq, state)
    named = RetryRequest(devices=(failed.device,))
    assert platform.rollouts.retry(rollout, named).devices == 1
    for request in (named, RetryRequest()):
        again = platform.rollouts.retry(rollout, request)
        assert (again.devices, again.rollout.notes) == (
            0,
            ("what failed is being tried again already",),
        )
    (execution,) = platform.rollouts.get(rollout).waves[0].executions
    assert execution.attempt == 2


def test_an_act_may_name_the_revision_that_it_was_meant_for(platform, rollout):
    api = platform.client(platform.key(Role.RELEASER))
    path = f"/v1/rollouts/{rollout}"
    tag = {"If-Match": api.get(path).headers["etag"]}
    done = api.post(f"{path}/pause", headers=tag)
    assert (done.status_code, done.headers["etag"] != tag["If-Match"]) == (200, True)
    assert api.post(f"{path}/pause", headers=tag).status_code == 200  # it is done: a repeat
    late = api.post(f"{path}/resume", headers=tag)
    assert (late.status_code, late.json()["code"]) == (412, "precondition_failed")
    assert api.post(f"{path}/retry", json={}, headers=tag).status_code == 412
    seen = api.post(f"{path}/promote", json={"wave": 0, "reason": "seen"}).json()
    assert [note.partition(",")[0] for note in seen["notes"]] == ["it is paused by an operator"]
    with pytest.raises(PreconditionFailed):
        platform.rollouts.operate(rollout, Act.ABORT, revisions={1})


def test_nothing_new_is_said_to_a_server_from_before():
    assert "wave" not in OperateRequest(reason="seen").model_dump(mode="json")
    assert OperateRequest(wave=0).model_dump(mode="json")["wave"] == 0


def test_an_edit_says_who_keeps_what_was_before(platform, rollout):
    (one,) = platform.rollouts.get(rollout).waves[0].executions
    edit = RolloutEdit(windows=(HOURLY,))
    view = platform.rollouts.edit(rollout, edit, None)
    assert "keep the windows of their offer (1 OFFERED)" in view.notes[0]
    steps = (ExecState.ACCEPTED, ExecState.DOWNLOADING, ExecState.VERIFIED, ExecState.STAGED)
    for seq, state in enumerate(steps):
        platform.report(one.device, one.id, seq, state)
    view = platform.rollouts.edit(
        rollout, RolloutEdit(windows=(), pace=Pace(jitter_seconds=5)), None
    )
    assert "keep the windows and the jitter of their offer (1 STAGED)" in view.notes[0]
    assert f"argosy rollout activate {rollout}" in view.notes[0]
    assert platform.rollouts.edit(rollout, RolloutEdit(priority=7), None).notes == ()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"max_deferral_seconds": 60}, "max_deferral_seconds: .* in mode forced"),
        ({"mode": {"urgency": "time_forced", "force_at": "2020-01-01T00:00Z"}}, "mode.force_at"),
        (
            {"pace": {"per_minute": 60, "growth": {"max_per_minute": 10}}},
            "pace.growth.max_per_minute: the rate begins at 60",
        ),
        ({"max_attempts": 1, "retry_seconds": 60}, "retry_seconds: there is no second attempt"),
        ({"gates": {"telemetry": [], "alpha": 0.05}}, "gates.alpha: no telemetry is compared"),
        (
            {"gates": {"telemetry": [{"metric": "shadow_agreement", "max_worse": 0.1}]}},
            "gates.telemetry: shadow_agreement cannot be judged",
        ),
    ],
)
def test_what_would_have_no_effect_is_refused(platform, rollout, more, said):
    spec = RolloutSpec.model_validate({"model": "digits", "version": 1} | more)
    with pytest.raises(Invalid, match=said) as refused:
        platform.rollouts.plan(spec)
    assert refused.value.hint
    if more.keys() <= RolloutEdit.model_fields.keys():
        with pytest.raises(Invalid, match=said):
            platform.rollouts.edit(rollout, RolloutEdit.model_validate(more), None)


def test_an_edit_of_something_else_is_not_stopped_by_what_never_had_an_effect(platform, rollout):
    """It was planned when nobody looked at that."""
    with platform.uow() as tx:
        record = tx.rollouts.get(rollout)
        spec = record.spec.model_copy(update={"max_deferral_seconds": 60.0})
        tx.rollouts.save(replace(record, spec=spec))
    assert platform.rollouts.edit(rollout, RolloutEdit(priority=7), None).spec.priority == 7


def test_a_paused_rollout_is_not_started_again(platform, rollout):
    platform.rollouts.operate(rollout, Act.PAUSE)
    with pytest.raises(IllegalTransition, match="it allows resume"):
        platform.rollouts.operate(rollout, Act.START)
    assert platform.rollouts.get(rollout).state is RolloutState.PAUSED
